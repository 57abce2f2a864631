"""Normalisation across the channels of a pixel on the CPU: local response, and to length 1. All sums in float64."""

from __future__ import annotations

import numpy as np
from numba import prange

from minunet.backends.cpu.loops import CHUNK, SERIAL, SPLIT, THREADED
from minunet.jit import njit

# The order of a pixel's sum is open, so that it may run over vectors; it is settled when the code is compiled.
SUMMING = SERIAL | {"fastmath": {"contract", "reassoc"}}


@njit(**SERIAL)
def _local_scale(x, size, factor, s):
    """s[c] = 1 + factor * sum of x[k]^2 over k = c - size // 2 .. c + (size - 1) // 2."""
    for c in range(x.size):
        total = 0.0
        for k in range(max(c - size // 2, 0), min(c + (size - 1) // 2 + 1, x.size)):
            total += np.float64(x[k]) * x[k]
        s[c] = 1.0 + factor * total


@njit(**SERIAL)
def _inverse_power(s, beta):
    """s^-beta; the usual 3/4 is two square roots, a tenth of the time of a power."""
    if beta == 0.75:
        root = np.sqrt(s)
        return 1.0 / (root * np.sqrt(root))
    return s**-beta


@njit(**SERIAL)
def _lrn_pixels(y, x, size, alpha, beta):
    s = np.empty(x.shape[1])
    for p in range(x.shape[0]):
        _local_scale(x[p], size, alpha / size, s)
        for c in range(s.size):
            y[p, c] = x[p, c] * _inverse_power(s[c], beta)


@njit(**SERIAL)
def _lrn_grad_pixels(dx, dy, x, size, alpha, beta):
    channels = x.shape[1]
    s, power, shared = np.empty(channels), np.empty(channels), np.empty(channels)
    factor = 2.0 * alpha * beta / size
    for p in range(x.shape[0]):
        _local_scale(x[p], size, alpha / size, s)
        for c in range(channels):
            power[c] = _inverse_power(s[c], beta)
            shared[c] = np.float64(dy[p, c]) * x[p, c] * power[c] / s[c]
        for c in range(channels):
            total = 0.0
            for k in range(max(c - (size - 1) // 2, 0), min(c + size // 2 + 1, channels)):
                total += shared[k]
            dx[p, c] = dy[p, c] * power[c] - factor * x[p, c] * total


@njit(**SUMMING)
def _product(a, b):
    """sum_k a[k] b[k]."""
    total = 0.0
    for k in range(a.size):
        total += np.float64(a[k]) * np.float64(b[k])
    return total


@njit(**SERIAL)
def _l2_pixels(y, x, eps):
    for p in range(x.shape[0]):
        row, out = x[p], y[p]
        r = np.sqrt(_product(row, row))
        inverse = 1.0 / (eps if r <= eps else r)  # so that a NaN stays
        for k in range(row.size):
            out[k] = row[k] * inverse


@njit(**SERIAL)
def _l2_grad_pixels(dx, dy, x, eps):
    for p in range(x.shape[0]):
        row, grad, out = x[p], dy[p], dx[p]
        r = np.sqrt(_product(row, row))
        if r <= eps:
            inverse = 1.0 / eps
            for k in range(row.size):
                out[k] = grad[k] * inverse
        else:  # a NaN too
            inverse = 1.0 / r
            along = _product(grad, row) * inverse * inverse  # of dy, in units of x
            for k in range(row.size):
                out[k] = (grad[k] - row[k] * along) * inverse


@njit(**THREADED)
def _lrn(y, x, size, alpha, beta, chunk):
    if x.size < SPLIT:
        _lrn_pixels(y, x, size, alpha, beta)
    else:
        for t in prange((x.shape[0] + chunk - 1) // chunk):
            a, b = t * chunk, (t + 1) * chunk
            _lrn_pixels(y[a:b], x[a:b], size, alpha, beta)


@njit(**THREADED)
def _lrn_grad(dx, dy, x, size, alpha, beta, chunk):
    if x.size < SPLIT:
        _lrn_grad_pixels(dx, dy, x, size, alpha, beta)
    else:
        for t in prange((x.shape[0] + chunk - 1) // chunk):
            a, b = t * chunk, (t + 1) * chunk
            _lrn_grad_pixels(dx[a:b], dy[a:b], x[a:b], size, alpha, beta)


@njit(**THREADED)
def _l2(y, x, eps, chunk):
    if x.size < SPLIT:
        _l2_pixels(y, x, eps)
    else:
        for t in prange((x.shape[0] + chunk - 1) // chunk):
            a, b = t * chunk, (t + 1) * chunk
            _l2_pixels(y[a:b], x[a:b], eps)


@njit(**THREADED)
def _l2_grad(dx, dy, x, eps, chunk):
    if x.size < SPLIT:
        _l2_grad_pixels(dx, dy, x, eps)
    else:
        for t in prange((x.shape[0] + chunk - 1) // chunk):
            a, b = t * chunk, (t + 1) * chunk
            _l2_grad_pixels(dx[a:b], dy[a:b], x[a:b], eps)


def _pixels(a: np.ndarray) -> np.ndarray:
    """(..., C) as (pixels, C)."""
    return a.reshape(-1, a.shape[-1])


def _chunk(x: np.ndarray) -> int:
    """Pixels in a task."""
    return max(1, CHUNK // x.shape[-1])


def lrn(y, x, *, size, alpha, beta):
    _lrn(_pixels(y), _pixels(x), size, alpha, beta, _chunk(x))


def lrn_grad(dx, dy, x, *, size, alpha, beta):
    _lrn_grad(_pixels(dx), _pixels(dy), _pixels(x), size, alpha, beta, _chunk(x))


def l2_normalize(y, x, *, eps):
    _l2(_pixels(y), _pixels(x), eps, _chunk(x))


def l2_normalize_grad(dx, dy, x, *, eps):
    _l2_grad(_pixels(dx), _pixels(dy), _pixels(x), eps, _chunk(x))
