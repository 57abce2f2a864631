"""Point-wise kernels on the CPU. They move memory: 8 bytes per element at 0.25 operations per byte (see `loops`).

The formulas are those of minunet/backends/formulas.py, which the GPU's Numba kernels compile too.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import prange

from minunet.backends import formulas
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


_relu, _leaky_relu, _not_positive, _elu, _sigmoid, _tanh, _scale = map(
    numba.njit(**SERIAL),  # without a cache of their own: they are part of the loops that call them
    (
        formulas.relu,
        formulas.leaky_relu,
        formulas.not_positive,
        formulas.elu,
        formulas.sigmoid,
        formulas.tanh,
        formulas.scale,
    ),
)
_relu_grad, _leaky_relu_grad, _elu_grad, _sigmoid_grad, _tanh_grad, _add, _slope_grad, _splitmix, _keep = map(
    numba.njit(**SERIAL),
    (
        formulas.relu_grad,
        formulas.leaky_relu_grad,
        formulas.elu_grad,
        formulas.sigmoid_grad,
        formulas.tanh_grad,
        formulas.add,
        formulas.prelu_grad_slope,
        formulas.splitmix,
        formulas.dropout,
    ),
)


@njit(**SERIAL)
def _unary_chunk(op, y, x, p):
    one = x.dtype.type(1)
    if op == RELU:
        for i in range(y.size):
            y[i] = _relu(x[i])
    elif op == LEAKY_RELU:
        for i in range(y.size):
            y[i] = _leaky_relu(x[i], p)
    elif op == ELU:
        for i in range(y.size):
            s, q = exp_parts(_not_positive(x[i]))
            y[i] = _elu(x[i], (s - one) + s * q, p)
    elif op == SIGMOID:
        for i in range(y.size):
            s, q = exp_parts(-abs(x[i]))
            y[i] = _sigmoid(x[i], s + s * q)
    elif op == TANH:
        for i in range(y.size):
            s, q = exp_parts(-(abs(x[i]) + abs(x[i])))
            y[i] = _tanh(x[i], (s - one) + s * q)  # exp(-2 |x|) - 1, exact where it is small
    else:  # SCALE
        for i in range(y.size):
            y[i] = _scale(x[i], p)


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
    if op == RELU_GRAD:
        for i in range(y.size):
            y[i] = _relu_grad(a[i], b[i])
    elif op == LEAKY_RELU_GRAD:
        for i in range(y.size):
            y[i] = _leaky_relu_grad(a[i], b[i], p)
    elif op == ELU_GRAD:
        for i in range(y.size):
            y[i] = _elu_grad(a[i], b[i], p)
    elif op == SIGMOID_GRAD:
        for i in range(y.size):
            y[i] = _sigmoid_grad(a[i], b[i])
    elif op == TANH_GRAD:
        for i in range(y.size):
            y[i] = _tanh_grad(a[i], b[i])
    else:  # ADD
        for i in range(y.size):
            y[i] = _add(a[i], b[i], p, q)


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
    for i in range(y.size):
        y[i] = _keep(x[i], _splitmix(seed, np.uint64(first) + np.uint64(i)), threshold, factor)


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
            out[l] = _leaky_relu(row[l], slope[l])


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
            out[l] = _leaky_relu_grad(grad[l], row[l], slope[l])
            sums[l] += _slope_grad(grad[l], row[l])


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
