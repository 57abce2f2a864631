"""Averages over windows on the CPU: along one axis after the other, rows first, then columns.

Forward and gradient are the same computation: a place of the result is a factor times the sum over a rectangle of the
source, the windows of a pixel being neighbours as the pixels of a window are. Which rows and columns, tables say. So
threads share no row of the result, and a 3x3 window costs 3 + 3 additions instead of 9.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import prange

from minunet.backends.cpu.loops import SERIAL, SPLIT, THREADED
from minunet.jit import njit


@lru_cache
def _windows(out: int, size: int, kernel: int, stride: int, pad: int) -> np.ndarray:
    """(out, 2): first and end pixel of each window, within the image."""
    start = np.arange(out) * stride - pad
    return np.stack((np.maximum(start, 0), np.minimum(start + kernel, size)), axis=1)


@lru_cache
def _holders(out: int, size: int, kernel: int, stride: int, pad: int) -> np.ndarray:
    """(size, 2): first and end window that holds each pixel; size 5, kernel 2, stride 3 gives 0:1 0:1 1:1 1:2 1:2."""
    pixel = np.arange(size) + pad
    first = np.maximum(-((kernel - 1 - pixel) // stride), 0)  # the first window with i stride + kernel > pixel
    return np.stack((first, np.maximum(np.minimum(pixel // stride + 1, out), first)), axis=1)


@njit(**SERIAL)
def _sum_rectangles(y, x, rows, columns, factor, t):
    """Row t of y (N OH, OW, C): factor times the sums of x (N H, W, C) over its rows and each pixel's columns."""
    oh = rows.shape[0]
    n, i = t // oh, t % oh
    out, first = y[t], n * (x.shape[0] // (y.shape[0] // oh))
    line = np.zeros(x.shape[1:], x.dtype)  # (W, C), the sum of the rows
    flat = line.reshape(-1)
    for a in range(rows[i, 0], rows[i, 1]):
        source = x[first + a].reshape(-1)
        for k in range(flat.size):
            flat[k] += factor * source[k]
    for j in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[j, k] = 0
        for b in range(np.uintp(columns[j, 0]), np.uintp(columns[j, 1])):
            for k in range(out.shape[1]):
                out[j, k] += line[b, k]


@njit(**THREADED)
def _rectangles(y, x, rows, columns, factor):
    if x.size + y.size < SPLIT:
        for t in range(y.shape[0]):
            _sum_rectangles(y, x, rows, columns, factor, t)
    else:
        for t in prange(y.shape[0]):
            _sum_rectangles(y, x, rows, columns, factor, t)


def _rows(a: np.ndarray) -> np.ndarray:
    """(N, H, W, C) as (N H, W, C)."""
    return a.reshape(-1, *a.shape[2:])


def avg_pool2d(y, x, *, kernel, stride, padding):
    rows, columns = (_windows(*axis) for axis in zip(y.shape[1:3], x.shape[1:3], kernel, stride, padding))
    _rectangles(_rows(y), _rows(x), rows, columns, x.dtype.type(1 / (kernel[0] * kernel[1])))


def avg_pool2d_grad(dx, dy, *, kernel, stride, padding):
    rows, columns = (_holders(*axis) for axis in zip(dy.shape[1:3], dx.shape[1:3], kernel, stride, padding))
    _rectangles(_rows(dx), _rows(dy), rows, columns, dx.dtype.type(1 / (kernel[0] * kernel[1])))
