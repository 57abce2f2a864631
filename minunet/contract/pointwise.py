"""One element in, one element out; and maps weighed by channel."""

from __future__ import annotations

from math import prod

from minunet.contract.row import SUM, Spec, Work, channels, require, row, same


@row("pointwise")
def relu(x):
    """y = max(x, 0)."""
    return Work((x,), prod(x.shape))


@row("pointwise", linear=("dy",))
def relu_grad(dy, y):
    """dx = dy [y > 0]; y the output (or the input: the sign is the same)."""
    same(dy, y, "relu_grad")
    return Work((y,), prod(y.shape))


@row("pointwise")
def leaky_relu(x, *, slope):
    """y = x where x > 0, else slope x."""
    return Work((x,), prod(x.shape))


@row("pointwise", linear=("dy",))
def leaky_relu_grad(dy, x, *, slope):
    """dx = dy where x > 0, else slope dy."""
    same(dy, x, "leaky_relu_grad")
    return Work((x,), prod(x.shape))


@row("pointwise")
def elu(x, *, alpha):
    """y = x where x > 0, else alpha (exp(x) - 1)."""
    return Work((x,), 2 * prod(x.shape))


@row("pointwise", linear=("dy",))
def elu_grad(dy, y, *, alpha):
    """dx = dy where y > 0, else dy (y + alpha); y the output, alpha > 0."""
    same(dy, y, "elu_grad")
    return Work((y,), 2 * prod(y.shape))


@row("pointwise")
def sigmoid(x):
    """y = 1 / (1 + exp(-x)), without overflow."""
    return Work((x,), 3 * prod(x.shape))


@row("pointwise", linear=("dy",))
def sigmoid_grad(dy, y):
    """dx = dy y (1 - y), y the output."""
    same(dy, y, "sigmoid_grad")
    return Work((y,), 3 * prod(y.shape))


@row("pointwise")
def tanh(x):
    """y = (exp(x) - exp(-x)) / (exp(x) + exp(-x)), without overflow."""
    return Work((x,), 4 * prod(x.shape))


@row("pointwise", linear=("dy",))
def tanh_grad(dy, y):
    """dx = dy (1 - y^2), y the output."""
    same(dy, y, "tanh_grad")
    return Work((y,), 3 * prod(y.shape))


@row("pointwise")
def prelu(x, slope):
    """y = x where x > 0, else slope[c] x; slope has one value a channel. He et al. 2015, eq. 1."""
    channels(slope, x.shape[-1], "prelu: the slope")
    return Work((x,), prod(x.shape))


@row("pointwise", linear=("dy",), tolerance=SUM)
def prelu_grad(dy, x, slope):
    """dx = dy [x > 0] + slope[c] dy [x <= 0]; dslope[c] = sum x dy [x <= 0]."""
    same(dy, x, "prelu_grad")
    channels(slope, x.shape[-1], "prelu_grad: the slope")
    return Work((x, slope), 3 * prod(x.shape))


@row("pointwise", linear=("x",))
def dropout(x, *, rate, seed):
    """y = x / (1 - rate) where u(seed, index) >= rate, else 0. index counts x's elements in C order.

    u = (splitmix64(seed, index) >> 40) / 2^24, in float64 as rate is: z = seed + (index + 1) 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) 0xBF58476D1CE4E5B9; z = (z ^ z >> 27) 0x94D049BB133111EB; z ^ z >> 31, all modulo 2^64
    (Steele, Lea, Flood 2014). Its own adjoint: the gradient passes through the same mask.
    """
    require(0 <= rate < 1, f"dropout: rate {rate} must be at least 0 and less than 1")
    require(0 <= seed < 2**64, f"dropout: seed {seed} must be a 64-bit unsigned integer")
    return Work((x,), prod(x.shape))


@row("pointwise", linear=("a", "b"))
def add(a, b, *, alpha, beta):
    """y = alpha a + beta b. Linear in both together, and in one when the other is zero."""
    same(a, b, "add")
    return Work((a,), 3 * prod(a.shape))


@row("pointwise", linear=("x",))
def scale(x, *, factor):
    """y = factor x."""
    return Work((x,), prod(x.shape))


@row("pointwise", linear=("x", "g"))
def gate(x, g):
    """y[n,i,j,c] = x[n,i,j,c] g[n,0,0,c]: its own adjoint in x, since dx = gate(dy, g)."""
    require(len(x.shape) == 4, f"gate: needs x[N,H,W,C]; got shape {x.shape}")
    expected = (x.shape[0], 1, 1, x.shape[3])
    require(g.shape == expected, f"gate: g has shape {g.shape}; for x of {x.shape} it must be {expected}")
    return Work((x,), prod(x.shape))


@row("pointwise", linear=("dy", "x"), tolerance=SUM)
def gate_grad_g(dy, x):
    """dg[n,0,0,c] = sum_{i,j} dy[n,i,j,c] x[n,i,j,c]."""
    same(dy, x, "gate_grad_g")
    return Work((Spec((x.shape[0], 1, 1, x.shape[3]), x.dtype),), 2 * prod(x.shape))
