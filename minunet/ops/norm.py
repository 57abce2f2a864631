"""Normalisation. Kernels: channel_moments, batch_norm, fold_batch_norm, lrn, l2_normalize and gradients."""

from __future__ import annotations

from math import prod
from typing import Any

from minunet.ops import pointwise
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
    bias: Tensor | None = None,
) -> Tensor:
    """y = act(gamma (x - mean) / sqrt(var + eps) + beta), each channel by itself (Ioffe & Szegedy 2015, algorithm 1)

    x : (N, H, W, C)     gamma, beta : (C,)     running_mean, running_var : arrays (C,)
    training : mean and the biased variance are those of the batch, gradients flow through them, and the running arrays
        are updated in place: r <- (1 - momentum) r + momentum batch, the variance unbiased (n / (n - 1), n = N H W).
        Otherwise the running arrays are used as they are.
    activation : None, or the name of one in `minunet.ops.ACTIVATIONS`; "relu" is fused into the forward kernel
    bias : (C,) or None; the result is that for x + bias, the bias of the convolution before, without adding it: in
        training it only moves the running mean, and its gradient is 0

    Kept for backward: x and the statistics. A channel of one value has variance 0 in training: y = beta.
    """
    x, gamma, beta = as_tensor(x), as_tensor(gamma), as_tensor(beta)
    bias = None if bias is None else as_tensor(bias)
    pointwise.known(activation)
    running_mean, running_var, shift = data(running_mean), data(running_var), data(bias)
    for name, running in (("mean", running_mean), ("variance", running_var)):
        if running.shape != x.shape[-1:]:
            raise ValueError(f"batch_norm: the running {name} has shape {running.shape}; x has {x.shape[-1]} channels")
    if bias is not None and bias.shape != x.shape[-1:]:
        raise ValueError(f"batch_norm: the bias has shape {bias.shape}; x has {x.shape[-1]} channels")
    fused = "relu" if activation == "relu" else None
    if training:
        mean, var = call("channel_moments", x.data)
    else:
        mean, var = running_mean.copy(), running_var.copy()  # a later training step must not change this backward
        mean = mean if shift is None else mean - shift
    y = call("batch_norm", x.data, mean, var, gamma.data, beta.data, eps=float(eps), activation=fused)
    if training:  # last, so that what the kernel refused leaves no trace
        n = prod(x.shape[:-1])
        running_mean += momentum * ((mean if shift is None else mean + shift) - running_mean)
        running_var += momentum * (var * (n / max(n - 1, 1)) - running_var)
    xa, ga, ba = x.data, gamma.data, beta.data if fused else None

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any, ...]:
        grads = call("batch_norm_grad", dy, xa, mean, var, ga, ba, eps=float(eps), training=bool(training))
        if not need[3]:
            return (*grads, None)
        return (*grads, (0 if training else ga / (var + eps) ** 0.5) * grads[2])  # of dbeta

    return pointwise.activate(record("batch_norm", y, (x, gamma, beta, bias), backward), None if fused else activation)


def fold_batch_norm(
    w: Tensor,
    b: Tensor | None,
    mean: Any,
    var: Any,
    gamma: Tensor,
    beta: Tensor,
    eps: float = 1e-5,
    axis: int = 0,
) -> tuple[Tensor, Tensor]:
    """(w', b') with conv(x, w') + b' = batch_norm(conv(x, w) + b) in evaluation: w' = f w, b' = f (b - mean) + beta

    f = gamma / sqrt(var + eps), one number for each output channel.
    w : a convolution's (O, KH, KW, C) with axis = 0, or a transposed one's (C_in, KH, KW, C_out) with axis = -1
    b : (O,) or None     mean, var, gamma, beta : (O,), tensors or arrays
    Nothing is recorded: the results are for evaluation only and want no gradient.
    """
    arrays = [data(a) for a in (w, mean, var, gamma, beta, b)]
    w_folded, b_folded = call("fold_batch_norm", *arrays, eps=float(eps), axis=axis)
    return Tensor(w_folded), Tensor(b_folded)


def lrn(x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> Tensor:
    """y_c = x_c / (1 + alpha / size sum_k x_k^2)^beta, k the `size` channels around c: local response normalisation

    x : (..., C)     k = c - size // 2 .. c + (size - 1) // 2; channels that do not exist count as 0
    Returns x's shape. Kept for backward: x. Source: Krizhevsky et al. 2012, section 3.3, with their k = 1 and with
    alpha divided by size, as Caffe and PyTorch do. Raises ValueError for a size below 1.
    """
    x = as_tensor(x)
    xa, options = x.data, {"size": int(size), "alpha": float(alpha), "beta": float(beta)}

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("lrn_grad", dy, xa, **options),)

    return record("lrn", call("lrn", xa, **options), (x,), backward)


def l2_normalize(x: Tensor, eps: float = 1e-12) -> Tensor:
    """y = x / max(r, eps), r = sqrt(sum_k x_k^2) over the last axis: vectors of length 1, 0 stays 0

    x : (..., C), returns that shape. Kept for backward: x. Raises ValueError unless eps is positive.
    """
    x = as_tensor(x)
    xa, eps = x.data, float(eps)
    if not eps > 0:
        raise ValueError(f"l2_normalize: eps is {eps}; it must be positive, since a pixel may be 0 in all channels")

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("l2_normalize_grad", dy, xa, eps=eps),)

    return record("l2_normalize", call("l2_normalize", xa, eps=eps), (x,), backward)
