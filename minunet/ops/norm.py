"""Batch normalisation. Kernels: channel_moments, batch_norm, batch_norm_grad."""

from __future__ import annotations

from math import prod
from typing import Any

from minunet.ops.shared import Tensor, as_tensor, call, data, record


def batch_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
) -> Tensor:
    """y = act(gamma (x - mean) / sqrt(var + eps) + beta), each channel by itself (Ioffe & Szegedy 2015, algorithm 1)

    x : (N, H, W, C)     gamma, beta : (C,)     running_mean, running_var : arrays (C,)
    training : mean and the biased variance are those of the batch, gradients flow through them, and the running arrays
        are updated in place: r <- (1 - momentum) r + momentum batch, the variance unbiased (n / (n - 1), n = N H W).
        Otherwise the running arrays are used as they are.
    activation : None or "relu", fused into the forward kernel.

    Kept for backward: x, the statistics, and y with relu. A channel of one value has variance 0 in training: y = beta.
    """
    x, gamma, beta = as_tensor(x), as_tensor(gamma), as_tensor(beta)
    if activation not in (None, "relu"):
        raise ValueError(f"batch_norm: activation {activation!r} cannot be fused; it is None or 'relu'")
    running_mean, running_var = data(running_mean), data(running_var)
    for name, running in (("mean", running_mean), ("variance", running_var)):
        if running.shape != x.shape[-1:]:
            raise ValueError(f"batch_norm: the running {name} has shape {running.shape}; x has {x.shape[-1]} channels")
    if training:
        mean, var = call("channel_moments", x.data)
    else:
        mean, var = running_mean.copy(), running_var.copy()  # a later training step must not change this backward
    y = call("batch_norm", x.data, mean, var, gamma.data, beta.data, eps=float(eps), activation=activation)
    if training:  # last, so that what the kernel refused leaves no trace
        n = prod(x.shape[:-1])
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * (n / max(n - 1, 1)) - running_var)
    xa, ga, ya = x.data, gamma.data, y if activation else None

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any, Any, Any]:
        if ya is not None:
            dy = call("relu_grad", dy, ya)
        return call("batch_norm_grad", dy, xa, mean, var, ga, eps=float(eps), training=bool(training))

    return record("batch_norm", y, (x, gamma, beta), backward)
