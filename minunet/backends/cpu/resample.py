"""Up-sampling on the CPU, along one axis after the other: rows first, then columns.

An axis is described by small tables made in NumPy, so that the loops neither divide nor round. In the adjoints a row
of dx gathers from the rows of dy that saw it, so that threads share no row of dx and the order of sums is fixed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import prange

from minunet.backends.cpu.loops import SERIAL, SPLIT, THREADED
from minunet.jit import njit


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


@lru_cache
def _nearest(size: int, out: int, dtype: np.dtype) -> Taps:
    """low = i size // out: size 2, out 5 gives 0 0 0 1 1."""
    return _taps(np.arange(out) * size // out, np.zeros(out), size, dtype)


@lru_cache
def _bilinear(size: int, out: int, align_corners: bool, dtype: np.dtype) -> Taps:
    """The corner pixels' centres fall together, or else their outer edges: size 2, out 4 reads at 0, .25, .75 and 1."""
    i = np.arange(out)
    if align_corners:
        place = i * ((size - 1) / max(out - 1, 1))
    else:
        place = np.maximum((i + 0.5) * (size / out) - 0.5, 0.0)
    low = np.minimum(place.astype(np.int64), size - 1)
    return _taps(low, np.minimum(place - low, 1.0), size, dtype)


@njit(**SERIAL)
def _blend_rows(y, a, b, weight):
    """y = (1 - weight) a + weight b."""
    rest = 1 - weight
    for k in range(y.size):
        y[k] = rest * a[k] + weight * b[k]


@njit(**SERIAL)
def _blend_columns(y, x, columns):
    """y[j, :] = (1 - weight[j]) x[low[j], :] + weight[j] x[high[j], :].

    y (OW, C) and x (W, C) are indexed whole: a slice per pixel would cost 12 ns, as much as 60 channels.
    """
    for j in range(y.shape[0]):
        a, b, weight = columns.low[j], columns.high[j], columns.weight[j]
        rest = 1 - weight
        if weight == 0:  # x[b] may hold infinities, which are not to count
            for k in range(y.shape[1]):
                y[j, k] = x[a, k]
        else:
            for k in range(y.shape[1]):
                y[j, k] = rest * x[a, k] + weight * x[b, k]


@njit(**SERIAL)
def _up_row(y, x, rows, columns, t):
    """Row t of y (N OH, OW, C) from x (N H, W, C)."""
    n, i = t // rows.low.size, t % rows.low.size
    first = n * rows.begin.size
    row = x[first + rows.low[i]]
    if rows.weight[i] != 0:
        other = x[first + rows.high[i]]
        blend = np.empty(row.shape, x.dtype)
        _blend_rows(blend.reshape(-1), row.reshape(-1), other.reshape(-1), rows.weight[i])
        row = blend
    _blend_columns(y[t], row, columns)


@njit(**THREADED)
def _up(y, x, rows, columns):
    if y.size < SPLIT:
        for t in range(y.shape[0]):
            _up_row(y, x, rows, columns, t)
    else:
        for t in prange(y.shape[0]):
            _up_row(y, x, rows, columns, t)


@njit(**SERIAL)
def _share(taps, i, a):
    """What place i took of source a."""
    near = 1 - taps.weight[i] if taps.low[i] == a else taps.weight.dtype.type(0)
    return near + taps.weight[i] if taps.high[i] == a else near


@njit(**SERIAL)
def _down_row(dx, dy, rows, columns, t):
    """Row t of dx (N H, W, C): the rows of dy (N OH, OW, C) that saw it are summed, then their columns."""
    n, a = t // rows.begin.size, t % rows.begin.size
    row = np.zeros(dy.shape[1:], dx.dtype)  # (OW, C)
    flat = row.reshape(-1)
    for i in range(rows.begin[a], rows.end[a]):
        share, source = _share(rows, i, a), dy[n * rows.low.size + i].reshape(-1)
        for k in range(flat.size):
            flat[k] += share * source[k]
    out = dx[t]
    flat = out.reshape(-1)
    for k in range(flat.size):
        flat[k] = 0
    for j in range(row.shape[0]):  # this row of dx is this task's alone, so its columns may be added to
        low, high, weight = columns.low[j], columns.high[j], columns.weight[j]
        if weight == 0:
            for k in range(out.shape[1]):
                out[low, k] += row[j, k]
        else:
            rest = 1 - weight
            for k in range(out.shape[1]):
                out[low, k] += rest * row[j, k]
                out[high, k] += weight * row[j, k]


@njit(**THREADED)
def _down(dx, dy, rows, columns):
    if dy.size < SPLIT:
        for t in range(dx.shape[0]):
            _down_row(dx, dy, rows, columns, t)
    else:
        for t in prange(dx.shape[0]):
            _down_row(dx, dy, rows, columns, t)


def _rows(a: np.ndarray) -> np.ndarray:
    """(N, H, W, C) as (N H, W, C)."""
    return a.reshape(-1, *a.shape[2:])


def upsample_nearest(y, x):
    _up(_rows(y), _rows(x), *(_nearest(s, o, x.dtype) for s, o in zip(x.shape[1:3], y.shape[1:3])))


def upsample_nearest_grad(dx, dy):
    _down(_rows(dx), _rows(dy), *(_nearest(s, o, dx.dtype) for s, o in zip(dx.shape[1:3], dy.shape[1:3])))


def upsample_bilinear(y, x, *, align_corners):
    taps = (_bilinear(s, o, align_corners, x.dtype) for s, o in zip(x.shape[1:3], y.shape[1:3]))
    _up(_rows(y), _rows(x), *taps)


def upsample_bilinear_grad(dx, dy, *, align_corners):
    taps = (_bilinear(s, o, align_corners, dx.dtype) for s, o in zip(dx.shape[1:3], dy.shape[1:3]))
    _down(_rows(dx), _rows(dy), *taps)
