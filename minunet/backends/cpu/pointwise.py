"""Point-wise kernels on the CPU, and how all kernels of this backend but convolution are threaded.

A kernel here moves memory: 8 bytes per element at 0.25 operations per byte. So it makes one pass, in pieces of `CHUNK`
elements that stay in a core's L1/L2 cache, and each piece is a loop `for i in range(piece.size)` over 1-D slices, the
form in which Numba drops the checks for negative indices and LLVM emits vector instructions.

Threads share the chunks. Chunks depend on the array's size alone, so the result has the same bits for any number of
threads. Below `SPLIT` elements one thread is faster than waking the others (some microseconds).

`THREADED` functions hold both ways, and the loop itself stands once, in the `SERIAL` function that they call.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

# "contract" lets a * b + c be one fused operation; nothing else is relaxed: NaN, infinities and order stay.
# Numba looks at a function's own file only when it decides whether compiled code on disk is stale.
SERIAL = {"cache": True, "error_model": "numpy", "fastmath": {"contract"}}
THREADED = SERIAL | {"parallel": True}
SPLIT = 1 << 15
CHUNK = 1 << 14
LANES = 512  # 2 KiB of float32: a few rows and the lane vectors fit the L1 cache
GROUP = 8  # rows of lanes that sums add in registers; chunks are whole groups

RELU, LEAKY_RELU, ELU, SIGMOID, SCALE = range(5)
RELU_GRAD, LEAKY_RELU_GRAD, ELU_GRAD, SIGMOID_GRAD, ADD = range(5)

_LOG2E = 1.0 / math.log(2.0)
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")  # 32 leading bits: k * _LN2_HIGH is exact
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_ROUND = 1.5 * 2.0**52  # adding it leaves round(v) in the low bits of the mantissa
_LOWEST = -708.0  # exp of less is not a normal number


@njit(**SERIAL)
def exp_parts(x):
    """(s, q) with exp(x) = s + s q and exp(x) - 1 = (s - 1) + s q, for x <= 0 or NaN, in float64.

    x = k ln 2 + r, |r| <= ln(2) / 2; s = 2^k (0 where x < -708), q = exp(r) - 1 by its series to r^13: 2e-16.
    There is no branch and no call, so loops around it become vector instructions: 1 ns, against 5 to 20 in libm.
    """
    inside = -708.0 if x < _LOWEST else x
    t = inside * _LOG2E + _ROUND
    k = t - _ROUND
    r = (inside - k * _LN2_HIGH) - k * _LN2_LOW
    q = 1.0 / 6227020800.0
    q = q * r + 1.0 / 479001600.0
    q = q * r + 1.0 / 39916800.0
    q = q * r + 1.0 / 3628800.0
    q = q * r + 1.0 / 362880.0
    q = q * r + 1.0 / 40320.0
    q = q * r + 1.0 / 5040.0
    q = q * r + 1.0 / 720.0
    q = q * r + 1.0 / 120.0
    q = q * r + 1.0 / 24.0
    q = q * r + 1.0 / 6.0
    q = q * r + 0.5
    q = q * r * r + r
    bits = (np.float64(t).view(np.int64) + np.int64(1023)) << np.int64(52)
    power = np.int64(bits).view(np.float64)
    return (0.0 if x < _LOWEST else power), q


@njit(**SERIAL)
def _unary_chunk(op, y, x, p):
    zero = x.dtype.type(0)
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
            s, q = exp_parts(0.0 if v > zero else np.float64(v))
            y[i] = v if v > zero else p * ((s - 1.0) + s * q)
    elif op == SIGMOID:
        for i in range(y.size):
            v = np.float64(x[i])
            s, q = exp_parts(-abs(v))
            e = s + s * q
            y[i] = (1.0 if v >= 0.0 else e) / (1.0 + e)
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


def layout(size: int, c: int) -> tuple[int, int, int]:
    """How to walk through `size` elements with one number per channel: (repetitions, elements in a chunk, chunks).

    A channel's values lie C apart, and C may be 1. So `LANES // C` pixels are taken at a time and the vectors of
    per-channel numbers are repeated as often: the inner loop always runs over some hundred neighbours in memory.

        x, flattened:      c0 c1 c2 c0 c1 c2 c0 c1 c2 ...        (C = 3, three pixels: a row of 9 lanes)
        slope, repeated:   s0 s1 s2 s0 s1 s2 s0 s1 s2
    """
    repeat = max(1, LANES // c)
    group = GROUP * repeat * c
    chunk = max(1, 4 * CHUNK // group) * group
    return repeat, chunk, -(-size // chunk)


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


def add(y, a, b, *, alpha, beta):
    _binary(ADD, y.reshape(-1), a.reshape(-1), b.reshape(-1), a.dtype.type(alpha), a.dtype.type(beta))


def dropout(y, x, *, rate, seed):
    # u >= rate with u = m / 2^24 is m >= rate 2^24, and that product is exact.
    threshold = np.uint64(math.ceil(rate * 2**24))
    _dropout(y.reshape(-1), x.reshape(-1), np.uint64(seed), threshold, x.dtype.type(1.0 / (1.0 - rate)))


def prelu(y, x, slope):
    repeat, chunk, _ = layout(x.size, x.shape[-1])
    _prelu(y.reshape(-1), x.reshape(-1), np.tile(slope, repeat), chunk)


def prelu_grad(dx, dslope, dy, x, slope):
    c = x.shape[-1]
    repeat, chunk, chunks = layout(x.size, c)
    sums = np.zeros((chunks, repeat * c))
    _prelu_grad(dx.reshape(-1), dy.reshape(-1), x.reshape(-1), np.tile(slope, repeat), chunk, sums)
    dslope[...] = sums.sum(axis=0).reshape(repeat, c).sum(axis=0)
