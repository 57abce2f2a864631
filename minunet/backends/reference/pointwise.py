"""One element in, one element out; and maps weighed by channel."""

from __future__ import annotations

import numpy as np


def relu(y, x):
    """y = max(x, 0)."""
    y[...] = np.maximum(x, 0)


def relu_grad(dx, dy, y):
    """dx = dy [y > 0]."""
    dx[...] = np.where(y > 0, dy, 0)


def leaky_relu(y, x, *, slope):
    """y = x where x > 0, else slope x."""
    y[...] = np.where(x > 0, x, slope * x)


def leaky_relu_grad(dx, dy, x, *, slope):
    """dx = dy where x > 0, else slope dy."""
    dx[...] = np.where(x > 0, dy, slope * dy)


def elu(y, x, *, alpha):
    """y = x where x > 0, else alpha (exp(x) - 1)."""
    y[...] = np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_grad(dx, dy, y, *, alpha):
    """dx = dy where y > 0, else dy (y + alpha)."""
    dx[...] = np.where(y > 0, dy, dy * (y + alpha))


def sigmoid(y, x):
    """y = 1 / (1 + exp(-x)); for negative x the same as exp(x) / (1 + exp(x)), so exp never overflows."""
    e = np.exp(-np.abs(x))
    y[...] = np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def sigmoid_grad(dx, dy, y):
    """dx = dy y (1 - y)."""
    dx[...] = dy * y * (1 - y)


def tanh(y, x):
    """y = (exp(x) - exp(-x)) / (exp(x) + exp(-x))."""
    y[...] = np.tanh(x)


def tanh_grad(dx, dy, y):
    """dx = dy (1 - y^2)."""
    dx[...] = dy * (1 - y * y)


def prelu(y, x, slope):
    """y = x where x > 0, else slope[c] x."""
    y[...] = np.where(x > 0, x, slope * x)


def prelu_grad(dx, dslope, dy, x, slope):
    """dx = dy [x > 0] + slope[c] dy [x <= 0]; dslope[c] = sum x dy [x <= 0]."""
    dx[...] = np.where(x > 0, dy, slope * dy)
    dslope[...] = np.where(x > 0, 0, x * dy).reshape(-1, x.shape[-1]).sum(axis=0)


def dropout(y, x, *, rate, seed):
    """y = x / (1 - rate) where u(seed, index) >= rate, else 0."""
    y[...] = np.where(uniform(seed, x.size).reshape(x.shape) >= rate, x / (1 - rate), 0)


def add(y, a, b, *, alpha, beta):
    """y = alpha a + beta b."""
    y[...] = alpha * a + beta * b


def scale(y, x, *, factor):
    """y = factor x."""
    y[...] = factor * x


def gate(y, x, g):
    """y[n,i,j,c] = x[n,i,j,c] g[n,0,0,c]."""
    y[...] = x * g


def gate_grad_g(dg, dy, x):
    """dg[n,0,0,c] = sum_{i,j} dy[n,i,j,c] x[n,i,j,c]."""
    dg[...] = (dy * x).sum(axis=(1, 2), keepdims=True)


def activate(y, activation):
    """`activation` of y, the last step of conv2d, conv2d_grad_x and batch_norm: None or "relu"."""
    return np.maximum(y, 0) if activation == "relu" else y


def uniform(seed, count):
    """u(seed, 0) ... u(seed, count - 1), multiples of 2^-24 in [0, 1): splitmix64 (Steele, Lea, Flood 2014).

    Arrays of uint64 multiply and add modulo 2^64, which is what the generator wants.
    """
    z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)) / 2.0**24
