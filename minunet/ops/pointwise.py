"""One element in, one element out; and maps weighed by channel.

Kernels: relu, leaky_relu, elu, sigmoid, tanh, prelu, dropout, add, scale, gate.
"""

from __future__ import annotations

from typing import Any

from minunet.backends import owner
from minunet.ops.shared import Tensor, as_map, as_tensor, call, record


def relu(x: Tensor) -> Tensor:
    """y = max(x, 0); the derivative at 0 is 0. Kept for backward: y."""
    x = as_tensor(x)
    y = call("relu", x.data)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("relu_grad", dy, y),)

    return record("relu", y, (x,), backward)


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """y = x where x > 0, else slope x. Kept for backward: x."""
    x = as_tensor(x)
    xa, slope = x.data, float(slope)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("leaky_relu_grad", dy, xa, slope=slope),)

    return record("leaky_relu", call("leaky_relu", xa, slope=slope), (x,), backward)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """y = x where x > 0, else alpha (exp(x) - 1), alpha > 0 (Clevert et al. 2016, eq. 15). Kept for backward: y."""
    x = as_tensor(x)
    alpha = float(alpha)
    if not alpha > 0:
        raise ValueError(f"elu: alpha is {alpha}; it must be positive, since backward reads the sign of x off y")
    y = call("elu", x.data, alpha=alpha)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("elu_grad", dy, y, alpha=alpha),)

    return record("elu", y, (x,), backward)


def sigmoid(x: Tensor) -> Tensor:
    """y = 1 / (1 + exp(-x)), without overflow at either end. Kept for backward: y."""
    x = as_tensor(x)
    y = call("sigmoid", x.data)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("sigmoid_grad", dy, y),)

    return record("sigmoid", y, (x,), backward)


def tanh(x: Tensor) -> Tensor:
    """y = (exp(x) - exp(-x)) / (exp(x) + exp(-x)), without overflow. Kept for backward: y."""
    x = as_tensor(x)
    y = call("tanh", x.data)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("tanh_grad", dy, y),)

    return record("tanh", y, (x,), backward)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """y = x where x > 0, else slope[c] x, with a learned slope (C,) (He et al. 2015, eq. 1). Kept for backward: x."""
    x, slope = as_tensor(x), as_tensor(slope)
    xa, sa = x.data, slope.data

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any, Any]:
        return call("prelu_grad", dy, xa, sa)

    return record("prelu", call("prelu", xa, sa), (x, slope), backward)


def dropout(x: Tensor, rate: float, seed: int) -> Tensor:
    """y = x / (1 - rate) where u(seed, index) >= rate, else 0: the expected value is x

    rate : share of elements set to 0, in [0, 1)      seed : 0 .. 2^64 - 1; the mask is a function of (seed, index)

    u is the counter-based splitmix64 of `minunet.contract.pointwise.dropout`, so every backend makes the same mask, and
    backward makes it again instead of keeping it. Raises ValueError for a rate or seed out of range.
    """
    x = as_tensor(x)
    options = {"rate": float(rate), "seed": int(seed)}

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("dropout", dy, **options),)

    return record("dropout", call("dropout", x.data, **options), (x,), backward)


def dropout_channels(x: Tensor, rate: float, seed: int) -> Tensor:
    """y[n,i,j,c] = x[n,i,j,c] / (1 - rate) where u(seed, n C + c) >= rate, else 0: whole channels of a sample go

    x : (N, H, W, C)     rate, seed : as in `dropout`, whose mask over (N, 1, 1, C) this is
    Source: Tompson et al. 2015 (arXiv 1411.4280), section 3.2, "SpatialDropout". Kept for backward: the mask.
    """
    x = as_map(x, "dropout_channels")
    ones = owner(x.data).empty((x.shape[0], 1, 1, x.shape[3]), x.dtype)
    ones.fill(1)  # where x lies: nothing is copied to a device
    return gate(x, dropout(Tensor(ones), rate, seed))


def gate(x: Tensor, g: Tensor) -> Tensor:
    """y[n,i,j,c] = x[n,i,j,c] g[n,0,0,c]: every channel of a map weighed by one number

    x : (N, H, W, C)     g : (N, 1, 1, C)     returns (N, H, W, C)
    Raises ValueError for another shape of g. Source: Hu et al. 2018 (arXiv 1709.01507), eq. 4. Kept for backward: x
    where g wants a gradient, and g.
    """
    x, g = as_tensor(x), as_tensor(g)
    y = call("gate", x.data, g.data)
    xa, ga = x.data if g.requires_grad else None, g.data

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any, Any]:
        return call("gate", dy, ga) if need[0] else None, call("gate_grad_g", dy, xa) if need[1] else None

    return record("gate", y, (x, g), backward)


def add(a: Tensor, b: Tensor, alpha: float = 1.0, beta: float = 1.0) -> Tensor:
    """y = alpha a + beta b, equal shapes; alpha = beta = 1/2 is FusionNet's mean of two paths."""
    a, b = as_tensor(a), as_tensor(b)
    alpha, beta = float(alpha), float(beta)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any, Any]:
        scaled = {1.0: dy}  # equal factors share one array
        for wanted, factor in zip(need, (alpha, beta)):
            if wanted and factor not in scaled:
                scaled[factor] = call("scale", dy, factor=factor)
        return tuple(scaled[factor] if wanted else None for wanted, factor in zip(need, (alpha, beta)))

    return record("add", call("add", a.data, b.data, alpha=alpha, beta=beta), (a, b), backward)


def scale(x: Tensor, factor: float) -> Tensor:
    """y = factor x."""
    x = as_tensor(x)
    factor = float(factor)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("scale", dy, factor=factor),)

    return record("scale", call("scale", x.data, factor=factor), (x,), backward)


ACTIVATIONS = {"relu": relu, "leaky_relu": leaky_relu, "elu": elu, "sigmoid": sigmoid, "tanh": tanh}


def known(activation: str | None) -> None:
    """Raise ValueError unless `activation` is None or the name of one."""
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is unknown; it is None or one of {', '.join(ACTIVATIONS)}")


def activate(x: Tensor, activation: str | None) -> Tensor:
    """x through the named activation with its default argument, or x itself for None. Raises ValueError for others."""
    known(activation)
    return x if activation is None else ACTIVATIONS[activation](x)
