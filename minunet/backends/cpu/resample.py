"""Up-sampling on the CPU, along one axis after the other: rows first, then columns.

An axis is described by small tables made in NumPy, so that the loops neither divide nor round. The adjoints gather:
each pixel of dx adds what it gave, which needs no order between threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from minunet.backends.cpu.pointwise import SERIAL, SPLIT, THREADED


class Taps(NamedTuple):
    """y[i] = (1 - weight[i]) x[low[i]] + weight[i] x[high[i]]; only places begin[a] <= i < end[a] can see x[a]."""

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray
    begin: np.ndarray
    end: np.ndarray


def _taps(low: np.ndarray, weight: np.ndarray, size: int, dtype: np.dtype) -> Taps:
    high = np.minimum(low + 1, size - 1) if weight.any() else low
    source = np.arange(size)
    return Taps(low, high, weight.astype(dtype), np.searchsorted(high, source), np.searchsorted(low, source, "right"))


def _nearest(size: int, out: int, dtype: np.dtype) -> Taps:
    """low = i size // out: size 2, out 5 gives 0 0 0 1 1."""
    return _taps(np.arange(out) * size // out, np.zeros(out), size, dtype)


def _bilinear(size: int, out: int, align_corners: bool, dtype: np.dtype) -> Taps:
    """Centres of pixels fall together at the corners, or edges do: size 2, out 4 then reads 0 (twice), .25, .75, 1."""
    i = np.arange(out)
    if align_corners:
        place = i * ((size - 1) / max(out - 1, 1))
    else:
        place = np.maximum((i + 0.5) * (size / out) - 0.5, 0.0)
    low = np.minimum(place.astype(np.int64), size - 1)
    return _taps(low, np.minimum(place - low, 1.0), size, dtype)


@njit(**SERIAL)
def _up_row(y, x, rows, columns, t):
    """Row t of y, counted over the whole batch."""
    oh, ow = y.shape[1:3]
    n, i = t // oh, t % oh
    row, weight = x[n, rows.low[i]], rows.weight[i]  # (W, C)
    if weight != 0.0:
        above, below = row.reshape(-1), x[n, rows.high[i]].reshape(-1)
        blend = np.empty(above.size, x.dtype)
        for k in range(blend.size):
            blend[k] = above[k] + weight * (below[k] - above[k])
        row = blend.reshape(row.shape)
    for j in range(ow):
        to, left, right, weight = y[n, i, j], row[columns.low[j]], row[columns.high[j]], columns.weight[j]
        if weight != 0.0:
            for k in range(to.size):
                to[k] = left[k] + weight * (right[k] - left[k])
        else:
            for k in range(to.size):
                to[k] = left[k]


@njit(**THREADED)
def _up(y, x, rows, columns):
    tasks = y.shape[0] * y.shape[1]
    if y.size < SPLIT:
        for t in range(tasks):
            _up_row(y, x, rows, columns, t)
    else:
        for t in prange(tasks):
            _up_row(y, x, rows, columns, t)


@njit(**SERIAL)
def _share(taps, i, a):
    """What place i took of source a."""
    one = taps.weight.dtype.type(1)
    near = one - taps.weight[i] if taps.low[i] == a else one - one
    return near + taps.weight[i] if taps.high[i] == a else near


@njit(**SERIAL)
def _down_row(dx, dy, rows, columns, t):
    """Row t of dx, counted over the whole batch: the rows of dy that saw it are summed, then the columns."""
    h, w, c = dx.shape[1:]
    n, a = t // h, t % h
    out = dx[n, a]  # (W, C)
    row = np.zeros((dy.shape[2], c), dx.dtype)  # (OW, C)
    flat = row.reshape(-1)
    for i in range(rows.begin[a], rows.end[a]):
        share, source = _share(rows, i, a), dy[n, i].reshape(-1)
        for k in range(flat.size):
            flat[k] += share * source[k]
    for b in range(w):
        to = out[b]
        to[:] = 0.0
        for j in range(columns.begin[b], columns.end[b]):
            share, pixel = _share(columns, j, b), row[j]
            for k in range(to.size):
                to[k] += share * pixel[k]


@njit(**THREADED)
def _down(dx, dy, rows, columns):
    tasks = dx.shape[0] * dx.shape[1]
    if dy.size < SPLIT:
        for t in range(tasks):
            _down_row(dx, dy, rows, columns, t)
    else:
        for t in prange(tasks):
            _down_row(dx, dy, rows, columns, t)


def upsample_nearest(y, x):
    _up(y, x, *(_nearest(s, o, x.dtype) for s, o in zip(x.shape[1:3], y.shape[1:3])))


def upsample_nearest_grad(dx, dy):
    _down(dx, dy, *(_nearest(s, o, dx.dtype) for s, o in zip(dx.shape[1:3], dy.shape[1:3])))


def upsample_bilinear(y, x, *, align_corners):
    _up(y, x, *(_bilinear(s, o, align_corners, x.dtype) for s, o in zip(x.shape[1:3], y.shape[1:3])))


def upsample_bilinear_grad(dx, dy, *, align_corners):
    _down(dx, dy, *(_bilinear(s, o, align_corners, dx.dtype) for s, o in zip(dx.shape[1:3], dy.shape[1:3])))
