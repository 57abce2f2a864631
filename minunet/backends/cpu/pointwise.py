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
from numba import prange, types
from numba.extending import overload

from minunet.jit import njit

# "contract" lets a * b + c be one fused operation; nothing else is relaxed: NaN, infinities and order stay.
THREADED = {"error_model": "numpy", "fastmath": {"contract"}, "parallel": True}
SERIAL = THREADED | {"parallel": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # not called by Python
SPLIT = 1 << 15
CHUNK = 1 << 14
LANES = 512  # 2 KiB of float32: a few rows and the lane vectors fit the L1 cache
GROUP = 8  # rows of lanes that sums add in registers; chunks are whole groups

RELU, LEAKY_RELU, ELU, SIGMOID, SCALE = range(5)
RELU_GRAD, LEAKY_RELU_GRAD, ELU_GRAD, SIGMOID_GRAD, ADD = range(5)

F, D = np.float32, np.float64
# ln 2 in two parts: k times the first is exact for every k that occurs.
_LN2_D = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
_LN2_F = F(0.693359375), F(-2.12194440e-4)
_LOG2E_F, _ROUND_F, _LOWEST_F = F(1.0 / math.log(2.0)), F(1.5 * 2**23), F(-87.0)
_LOG2E_D, _ROUND_D, _LOWEST_D = 1.0 / math.log(2.0), 1.5 * 2.0**52, -708.0
_SERIES_F = tuple(F(1.0 / math.factorial(n)) for n in range(7, 1, -1))
_SERIES_D = tuple(1.0 / math.factorial(n) for n in range(13, 1, -1))


def exp_parts(x):
    """(s, q) with exp(x) = s + s q and exp(x) - 1 = (s - 1) + s q, for x <= 0 or NaN, in the precision of x.

    x = k ln 2 + r, |r| <= ln(2) / 2; s = 2^k, and 0 where it would not be a normal number; q = exp(r) - 1 by its
    series to r^13 (float32: r^7). Adding 1.5 * 2^52 leaves round(x / ln 2) = k in the low bits of the mantissa.
    There is no branch and no call, so loops around it become vector instructions, which a loop over libm's does not.
    """
    raise NotImplementedError("exp_parts is for compiled code")


@overload(exp_parts, jit_options=SERIAL)
def _exp_parts(x):
    return _exp_parts_single if x == types.float32 else _exp_parts_double


def _exp_parts_double(x):
    t = (_LOWEST_D if x < _LOWEST_D else x) * _LOG2E_D + _ROUND_D
    k = t - _ROUND_D
    r = ((_LOWEST_D if x < _LOWEST_D else x) - k * _LN2_D[0]) - k * _LN2_D[1]
    q = _SERIES_D[0]
    for n in range(1, 12):
        q = q * r + _SERIES_D[n]
    bits = (D(t).view(np.int64) + np.int64(1023)) << np.int64(52)
    return (0.0 if x < _LOWEST_D else np.int64(bits).view(np.float64)), q * r * r + r


def _exp_parts_single(x):
    t = (_LOWEST_F if x < _LOWEST_F else x) * _LOG2E_F + _ROUND_F
    k = t - _ROUND_F
    r = ((_LOWEST_F if x < _LOWEST_F else x) - k * _LN2_F[0]) - k * _LN2_F[1]
    q = _SERIES_F[0]
    for n in range(1, 6):
        q = q * r + _SERIES_F[n]
    bits = np.int32(np.int32(F(t).view(np.int32)) + np.int32(127)) << np.int32(23)
    return (F(0) if x < _LOWEST_F else np.int32(bits).view(np.float32)), q * r * r + r


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


def repeated(v: np.ndarray, times: int) -> np.ndarray:
    """The vector `times` over: what numpy.tile does, in a tenth of its time, which shows on small maps."""
    rows = np.empty((times, v.size), v.dtype)
    rows[:] = v
    return rows.reshape(-1)


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
    _prelu(y.reshape(-1), x.reshape(-1), repeated(slope, repeat), chunk)


def prelu_grad(dx, dslope, dy, x, slope):
    c = x.shape[-1]
    repeat, chunk, chunks = layout(x.size, c)
    sums = np.zeros((chunks, repeat * c))
    _prelu_grad(dx.reshape(-1), dy.reshape(-1), x.reshape(-1), repeated(slope, repeat), chunk, sums)
    dslope[...] = sums.sum(axis=0).reshape(repeat, c).sum(axis=0)
