"""Layers: an operation together with its parameters."""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet import backends, ops
from minunet.nn.init import Initialiser, full, he_normal, ones, zeros
from minunet.nn.module import Module, Parameter
from minunet.tensor import Tensor


class Conv2d(Module):
    """`ops.conv2d` with weight w (O, KH, KW, C / groups), He-normal unless told, and bias b (O,), zero."""

    def __init__(
        self,
        rng: np.random.Generator,
        c: int,
        o: int,
        kernel: int | tuple[int, int] = 3,
        *,
        stride: int | tuple[int, int] = 1,
        padding: ops.Padding = "valid",
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        activation: str | None = None,
        bias: bool = True,
        init: Initialiser = he_normal,
    ):
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        if groups < 1 or c % groups or o % groups:
            raise ValueError(f"Conv2d: groups {groups} must divide the channels, {c} in and {o} out")
        self.w = Parameter(init(rng, (o, kh, kw, c // groups)))
        self.b = Parameter(zeros((o,))) if bias else None
        self.options = {"stride": stride, "padding": padding, "dilation": dilation, "activation": activation}
        if groups > 1:
            self.options["groups"] = groups

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        return ops.conv2d(x, self.w, self.b, **self.options, skip=skip)


class ConvTranspose2d(Module):
    """`ops.conv_transpose2d` with weight w (C_in, KH, KW, C_out) and bias b (C_out,), zero.

    He-normal, unless told, with the inputs that reach one output: C_in KH KW / stride^2 (2x2, stride 2: C_in).
    """

    def __init__(
        self,
        rng: np.random.Generator,
        c_in: int,
        c_out: int,
        kernel: int = 2,
        *,
        stride: int = 2,
        padding: ops.Padding = "valid",
        output_padding: int = 0,
        activation: str | None = None,
        bias: bool = True,
        init: Initialiser = he_normal,
    ):
        fan_in = max(c_in * kernel * kernel // (stride * stride), 1)
        self.w = Parameter(init(rng, (c_in, kernel, kernel, c_out), fan_in))
        self.b = Parameter(zeros((c_out,))) if bias else None
        self.options = {
            "stride": stride,
            "padding": padding,
            "output_padding": output_padding,
            "activation": activation,
        }

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv_transpose2d(x, self.w, self.b, **self.options)


class BatchNorm2d(Module):
    """`ops.batch_norm` with gamma = 1, beta = 0, running mean 0 and variance 1."""

    _buffers = ("running_mean", "running_var")

    def __init__(self, c: int, *, momentum: float = 0.1, eps: float = 1e-5, activation: str | None = None):
        self.gamma, self.beta = Parameter(ones((c,))), Parameter(zeros((c,)))
        self.running_mean, self.running_var = zeros((c,)), ones((c,))
        self.options = {"momentum": momentum, "eps": eps, "activation": activation}

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.training:
            backends.forget()  # what was folded: the statistics are about to change
        statistics = (self.running_mean, self.running_var)
        return ops.batch_norm(x, self.gamma, self.beta, *statistics, self.training, **self.options, bias=bias)

    def fold(self, w: Tensor, b: Tensor | None, axis: int) -> tuple[Tensor, Tensor]:
        """Weights and bias of a convolution that does this batch-norm as well, by the running statistics.

        axis : that of w along which its outputs lie: 0, or -1 in a transposed convolution
        Made once where all of that stands still, inside of `backends.fixed_weights`.
        """
        vectors, eps = (self.running_mean, self.running_var, self.gamma, self.beta), self.options["eps"]

        def make() -> tuple[Any, ...]:
            return tuple(t.data for t in ops.fold_batch_norm(w, b, *vectors, eps=eps, axis=axis))

        sources = (w.data, None if b is None else b.data, *vectors[:2], self.gamma.data, self.beta.data)
        folded_w, folded_b = backends.derived(sources, ("fold_batch_norm", backends.get().name, eps, axis), make)
        return Tensor(folded_w), Tensor(folded_b)


class PReLU(Module):
    """`ops.prelu` with one slope a channel, 0.25 at first."""

    def __init__(self, c: int):
        self.slope = Parameter(full((c,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        return ops.prelu(x, self.slope)


class Dropout(Module):
    """`ops.dropout` in training, nothing otherwise. Mask number k of a layer comes from (seed, k): `calls` is k,
    and travels in checkpoints, so that a resumed run draws the masks an undisturbed one would.
    """

    _buffers = ("calls",)

    def __init__(self, rate: float, seed: int):
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate {rate} must be at least 0 and less than 1")
        self.rate, self.seed = rate, int(seed)  # a NumPy integer would overflow below
        self.calls: Any = np.zeros((1,), np.int64)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        self.calls += 1
        seed = (self.seed * 0x9E3779B97F4A7C15 + int(self.calls[0]) * 0xD1B54A32D192ED03) % 2**64
        return self.drop(x, self.rate, seed)

    def drop(self, x: Tensor, rate: float, seed: int) -> Tensor:
        return ops.dropout(x, rate, seed)


class DropoutChannels(Dropout):
    """`ops.dropout_channels` in training: whole channels are dropped (Tompson et al. 2015, spatial dropout)."""

    def drop(self, x: Tensor, rate: float, seed: int) -> Tensor:
        return ops.dropout_channels(x, rate, seed)
