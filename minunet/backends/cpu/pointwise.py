"""Point-wise kernels on the CPU. They move memory: 8 bytes per element at 0.25 operations per byte (see `loops`)."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from minunet.backends.cpu.exponential import exp_parts
from minunet.backends.cpu.gate import gate, gate_grad_g
from minunet.backends.cpu.loops import CHUNK, SERIAL, SPLIT, THREADED, layout, repeated
from minunet.jit import njit

__all__ = [
    "add",
    "dropout",
    "elu",
    "elu_grad",
    "gate",
    "gate_grad_g",
    "leaky_relu",
    "leaky_relu_grad",
    "prelu",
    "prelu_grad",
    "relu",
    "relu_grad",
    "scale",
    "sigmoid",
    "sigmoid_grad",
    "tanh",
    "tanh_grad",
]

RELU, LEAKY_RELU, ELU, SIGMOID, TANH, SCALE = range(6)
RELU_GRAD, LEAKY_RELU_GRAD, ELU_GRAD, SIGMOID_GRAD, TANH_GRAD, ADD = range(6)


@njit(**SERIAL)
def _unary_chunk(op, y, x, p):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    if op == RELU:
        for i in range(y.size):
            v = x[i]
            y[i] = zero if v <= zero else v  # NaN <= 0 is false: it passes
    elif op == LEAKY_RELU:
        for i in range(y.size):
            v = x[i]
            y[i] = v if v > zero else p * v
    elif op == ELU:
        for i in range(y.size):
            v = x[i]
            s, q = exp_parts(zero if v > zero else v)
            y[i] = v if v > zero else p * ((s - one) + s * q)
    elif op == SIGMOID:
        for i in range(y.size):
            s, q = exp_parts(-abs(x[i]))
            e = s + s * q
            y[i] = (one if x[i] >= zero else e) / (one + e)
    elif op == TANH:
        for i in range(y.size):
            s, q = exp_parts(-(abs(x[i]) + abs(x[i])))
            less = (s - one) + s * q  # exp(-2 |x|) - 1, exact where it is small
            y[i] = (-less if x[i] >= zero else less) / (one + one + less)
    else:  # SCALE
        for i in range(y.size):
            y[i] = p * x[i]


@njit(**THREADED)
def _unary(op, y, x, p):
    n = y.size
    if n < SPLIT:
        _unary_chunk(op, y, x, p)
    else:
        for k in prange((n + CHUNK - 1) // CHUNK):
            a = k * CHUNK
            _unary_chunk(op, y[a : a + CHUNK], x[a : a + CHUNK], p)


@njit(**SERIAL)
def _binary_chunk(op, y, a, b, p, q):
    zero, one = a.dtype.type(0), a.dtype.type(1)
    if op == RELU_GRAD:
        for i in range(y.size):
            y[i] = a[i] if b[i] > zero else zero
    elif op == LEAKY_RELU_GRAD:
        for i in range(y.size):
            y[i] = a[i] if b[i] > zero else p * a[i]
    elif op == ELU_GRAD:
        for i in range(y.size):
            y[i] = a[i] if b[i] > zero else a[i] * (b[i] + p)
    elif op == SIGMOID_GRAD:
        for i in range(y.size):
            y[i] = a[i] * (b[i] * (one - b[i]))
    elif op == TANH_GRAD:
        for i in range(y.size):
            y[i] = a[i] * (one - b[i] * b[i])
    else:  # ADD
        for i in range(y.size):
            y[i] = p * a[i] + q * b[i]


@njit(**THREADED)
def _binary(op, y, a, b, p, q):
    n = y.size
    if n < SPLIT:
        _binary_chunk(op, y, a, b, p, q)
    else:
        for k in prange((n + CHUNK - 1) // CHUNK):
            i = k * CHUNK
            _binary_chunk(op, y[i : i + CHUNK], a[i : i + CHUNK], b[i : i + CHUNK], p, q)


@njit(**SERIAL)
def _dropout_chunk(y, x, first, seed, threshold, factor):
    """`first`: index of x[0] in the whole array. Numba makes float of signed with unsigned, so all here is uint64."""
    zero = x.dtype.type(0)
    state = seed + np.uint64(first) * np.uint64(0x9E3779B97F4A7C15)
    for i in range(y.size):
        z = state + np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        y[i] = x[i] * factor if (z >> np.uint64(40)) >= threshold else zero


@njit(**THREADED)
def _dropout(y, x, seed, threshold, factor):
    n = y.size
    if n < SPLIT:
        _dropout_chunk(y, x, 0, seed, threshold, factor)
    else:
        for k in prange((n + CHUNK - 1) // CHUNK):
            a = k * CHUNK
            _dropout_chunk(y[a : a + CHUNK], x[a : a + CHUNK], a, seed, threshold, factor)


@njit(**SERIAL)
def _prelu_chunk(y, x, slope):
    width = slope.size
    for a in range(0, x.size, width):
        row, out = x[a : a + width], y[a : a + width]
        for l in range(row.size):
            out[l] = row[l] if row[l] > 0 else slope[l] * row[l]


@njit(**THREADED)
def _prelu(y, x, slope, chunk):
    if x.size < SPLIT:
        _prelu_chunk(y, x, slope)
    else:
        for k in prange((x.size + chunk - 1) // chunk):
            a, b = k * chunk, (k + 1) * chunk
            _prelu_chunk(y[a:b], x[a:b], slope)


@njit(**SERIAL)
def _prelu_grad_chunk(dx, dy, x, slope, sums):
    width = slope.size
    for a in range(0, x.size, width):
        out, grad, row = dx[a : a + width], dy[a : a + width], x[a : a + width]
        for l in range(row.size):
            positive = row[l] > 0
            out[l] = grad[l] if positive else slope[l] * grad[l]
            sums[l] += np.float64(0.0 if positive else row[l] * grad[l])


@njit(**THREADED)
def _prelu_grad(dx, dy, x, slope, chunk, sums):
    if x.size < SPLIT:
        for k in range(sums.shape[0]):
            a, b = k * chunk, (k + 1) * chunk
            _prelu_grad_chunk(dx[a:b], dy[a:b], x[a:b], slope, sums[k])
    else:
        for k in prange(sums.shape[0]):
            a, b = k * chunk, (k + 1) * chunk
            _prelu_grad_chunk(dx[a:b], dy[a:b], x[a:b], slope, sums[k])


def relu(y, x):
    _unary(RELU, y.reshape(-1), x.reshape(-1), x.dtype.type(0))


def leaky_relu(y, x, *, slope):
    _unary(LEAKY_RELU, y.reshape(-1), x.reshape(-1), x.dtype.type(slope))


def elu(y, x, *, alpha):
    _unary(ELU, y.reshape(-1), x.reshape(-1), x.dtype.type(alpha))


def sigmoid(y, x):
    _unary(SIGMOID, y.reshape(-1), x.reshape(-1), x.dtype.type(0))


def tanh(y, x):
    _unary(TANH, y.reshape(-1), x.reshape(-1), x.dtype.type(0))


def scale(y, x, *, factor):
    _unary(SCALE, y.reshape(-1), x.reshape(-1), x.dtype.type(factor))


def relu_grad(dx, dy, y):
    zero = y.dtype.type(0)
    _binary(RELU_GRAD, dx.reshape(-1), dy.reshape(-1), y.reshape(-1), zero, zero)


def leaky_relu_grad(dx, dy, x, *, slope):
    _binary(LEAKY_RELU_GRAD, dx.reshape(-1), dy.reshape(-1), x.reshape(-1), x.dtype.type(slope), x.dtype.type(0))


def elu_grad(dx, dy, y, *, alpha):
    _binary(ELU_GRAD, dx.reshape(-1), dy.reshape(-1), y.reshape(-1), y.dtype.type(alpha), y.dtype.type(0))


def sigmoid_grad(dx, dy, y):
    zero = y.dtype.type(0)
    _binary(SIGMOID_GRAD, dx.reshape(-1), dy.reshape(-1), y.reshape(-1), zero, zero)


def tanh_grad(dx, dy, y):
    zero = y.dtype.type(0)
    _binary(TANH_GRAD, dx.reshape(-1), dy.reshape(-1), y.reshape(-1), zero, zero)


def add(y, a, b, *, alpha, beta):
    _binary(ADD, y.reshape(-1), a.reshape(-1), b.reshape(-1), a.dtype.type(alpha), a.dtype.type(beta))


def dropout(y, x, *, rate, seed):
    # u >= rate with u = m / 2^24 is m >= rate 2^24, and that product is exact.
    threshold = np.uint64(math.ceil(rate * 2**24))
    _dropout(y.reshape(-1), x.reshape(-1), np.uint64(seed), threshold, x.dtype.type(1.0 / (1.0 - rate)))


def prelu(y, x, slope):
    repeat, chunk, _ = layout(x.size, x.shape[-1])
    _prelu(y.reshape(-1), x.reshape(-1), repeated(slope, repeat), chunk)


def prelu_grad(dx, dslope, dy, x, slope):
    c = x.shape[-1]
    repeat, chunk, chunks = layout(x.size, c)
    sums = np.zeros((chunks, repeat * c))
    _prelu_grad(dx.reshape(-1), dy.reshape(-1), x.reshape(-1), repeated(slope, repeat), chunk, sums)
    dslope[...] = sums.sum(axis=0).reshape(repeat, c).sum(axis=0)
