"""Layers that come together: a convolution with its batch-norm and activation, and layers in a row."""

from __future__ import annotations

import numpy as np

from minunet import ops
from minunet.nn import init
from minunet.nn.layers import BatchNorm2d, Conv2d, ConvTranspose2d
from minunet.nn.module import Module
from minunet.tensor import Tensor, recording


class Sequential(Module):
    """Modules one after the other; `net[k]` is the k-th."""

    def __init__(self, *modules: Module):
        self.layers = list(modules)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def __getitem__(self, k: int) -> Module:
        return self.layers[k]

    def __len__(self) -> int:
        return len(self.layers)


class ConvBN(Module):
    """Convolution, batch-norm, activation: act(bn(conv(x))).

    In evaluation, where nothing is recorded, the batch-norm's scale and shift go into the convolution's weights, and
    one kernel does it all: (conv(x) - mean) gamma / s + beta = conv'(x) with w' = w gamma / s and
    b' = (b - mean) gamma / s + beta, s = sqrt(var + eps). Elsewhere the batch-norm takes the bias, which its mean takes
    away again: nothing is added, and no gradient of the bias summed.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        c: int,
        o: int,
        kernel: int | tuple[int, int] = 3,
        *,
        stride: int | tuple[int, int] = 1,
        padding: ops.Padding = "same",
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = "relu",
        eps: float = 1e-5,
        momentum: float = 0.1,
        init: init.Initialiser = init.he_normal,
    ):
        self.conv = Conv2d(
            rng, c, o, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias, init=init
        )
        self.bn = BatchNorm2d(o, momentum=momentum, eps=eps, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        if self.training or recording():
            return self.bn(ops.conv2d(x, self.conv.w, **self.conv.options), self.conv.b)
        w, b = self.bn.fold(self.conv.w, self.conv.b, axis=0)
        return ops.conv2d(x, w, b, **self.conv.options | {"activation": self.bn.options["activation"]})


class UpBN(Module):
    """Transposed convolution, batch-norm, activation; folded in evaluation as `ConvBN` is."""

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
        bias: bool = True,
        activation: str | None = "relu",
        eps: float = 1e-5,
        momentum: float = 0.1,
        init: init.Initialiser = init.he_normal,
    ):
        shape = {"stride": stride, "padding": padding, "output_padding": output_padding}
        self.conv = ConvTranspose2d(rng, c_in, c_out, kernel, **shape, bias=bias, init=init)
        self.bn = BatchNorm2d(c_out, momentum=momentum, eps=eps, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        if self.training or recording():
            return self.bn(ops.conv_transpose2d(x, self.conv.w, **self.conv.options), self.conv.b)
        w, b = self.bn.fold(self.conv.w, self.conv.b, axis=-1)
        return ops.conv_transpose2d(x, w, b, **self.conv.options | {"activation": self.bn.options["activation"]})


def lr_factors(module: Module, weights: float = 1.0, biases: float = 1.0, bias_decay: float = 1.0) -> Module:
    """Give every weight and every bias below `module` a factor on the learning rate, and the biases one on the decay.

    Caffe's recipes: `lr_factors(model, 1, 2, bias_decay=0)`; DeepLab's new layers: `lr_factors(head, 10, 20)`.
    Biases are the parameters with one axis. Returns the module.
    """
    for p in module.parameters():
        if p.data.ndim == 1:
            p.lr_factor, p.decay_factor = float(biases), float(bias_decay)
        else:
            p.lr_factor = float(weights)
    return module
