"""Max-pooling by index and global averaging on the CPU: the inner loop runs over the channels of a pixel."""

from __future__ import annotations

import numpy as np
from numba import prange

from minunet.backends.cpu.avg_pool import avg_pool2d, avg_pool2d_grad
from minunet.backends.cpu.loops import SERIAL, SPLIT, THREADED
from minunet.jit import njit

__all__ = [
    "avg_pool2d",
    "avg_pool2d_grad",
    "gather_by_index",
    "global_avg_pool",
    "global_avg_pool_grad",
    "max_pool2d",
    "scatter_by_index",
]

BAND = 1 << 16  # elements of a scattered plane that one task clears and fills: they stay in its L2 cache


@njit(**SERIAL)
def _wins(v, best):
    """v replaces best: it is larger, or the first NaN (as in numpy.argmax)."""
    return (best == best) & ((v > best) | (v != v))


@njit(**SERIAL)
def _pool_row_2x2(y, indices, top, bottom, first):
    """One output row (OW, C) of 2 x 2 windows with stride 2: four loads, three comparisons, two stores per element.

    top, bottom: the two input rows (W, C); first: index of top[0] in its plane
    """
    w = top.shape[0]
    for j in range(y.shape[0]):
        left, right = np.uintp(2 * j), np.uintp(2 * j + 1)
        # int32 beside float32: the choice of value and index then takes vectors of the same number of elements
        at_a, at_b = np.int32(first + 2 * j), np.int32(first + 2 * j + 1)
        at_c, at_d = np.int32(at_a + w), np.int32(at_b + w)
        for k in range(y.shape[1]):
            best, place = top[left, k], at_a
            v = top[right, k]
            wins = _wins(v, best)
            best, place = v if wins else best, at_b if wins else place
            v = bottom[left, k]
            wins = _wins(v, best)
            best, place = v if wins else best, at_c if wins else place
            v = bottom[right, k]
            wins = _wins(v, best)
            y[j, k] = v if wins else best
            indices[j, k] = at_d if wins else place


@njit(**SERIAL)
def _pool_row(y, indices, x, u0, kernel, stride, left):
    """One output row of any windows, clipped to the plane x (H, W, C); its first input row is u0, maybe negative."""
    h, w, _ = x.shape
    for j in range(y.shape[0]):
        v0 = j * stride - left
        first = True
        for u in range(max(u0, 0), min(u0 + kernel[0], h)):
            for v in range(max(v0, 0), min(v0 + kernel[1], w)):
                p, q, at = np.uintp(u), np.uintp(v), np.int32(u * w + v)
                for k in range(y.shape[1]):
                    wins = first | _wins(x[p, q, k], y[j, k])
                    y[j, k] = x[p, q, k] if wins else y[j, k]
                    indices[j, k] = at if wins else indices[j, k]
                first = False


@njit(**SERIAL)
def _pool_task(y, indices, x, kernel, stride, padding, t):
    """Row t of y, counted over the whole batch; y and indices (N OH, OW, C), x (N, H, W, C)."""
    h, w = x.shape[1:3]
    oh = y.shape[0] // x.shape[0]
    i, plane = t % oh, x[t // oh]
    inside = 2 * i + 2 <= h and 2 * y.shape[1] <= w
    if inside and kernel == (2, 2) and stride == (2, 2) and padding == (0, 0):
        _pool_row_2x2(y[t], indices[t], plane[2 * i], plane[2 * i + 1], 2 * i * w)
    else:
        _pool_row(y[t], indices[t], plane, i * stride[0] - padding[0], kernel, stride[1], padding[1])


@njit(**THREADED)
def _pool(y, indices, x, kernel, stride, padding):
    if x.size < SPLIT:
        for t in range(y.shape[0]):
            _pool_task(y, indices, x, kernel, stride, padding, t)
    else:
        for t in prange(y.shape[0]):
            _pool_task(y, indices, x, kernel, stride, padding, t)


def max_pool2d(y, indices, x, *, kernel, stride, padding):
    _pool(_rows(y), _rows(indices), x, tuple(kernel), tuple(stride), tuple(padding))


def _rows(a: np.ndarray) -> np.ndarray:
    """(N, H, W, C) as (N H, W, C)."""
    return a.reshape(-1, *a.shape[2:])


@njit(**SERIAL)
def _row_range(indices, low, high, t):
    """Smallest and largest index in row t."""
    flat = indices[t]
    a = b = flat[0]
    for k in range(flat.size):
        a = min(a, flat[k])
        b = max(b, flat[k])
    low[t] = a
    high[t] = b


@njit(**THREADED)
def _ranges(indices, low, high):
    if indices.size < SPLIT:
        for t in range(low.size):
            _row_range(indices, low, high, t)
    else:
        for t in prange(low.size):
            _row_range(indices, low, high, t)


@njit(**SERIAL)
def _scatter_band(out, values, indices, low, high, band, t):
    """Fill band t of the planes out (N, H W, C), `band` pixels each, from all rows of values that reach it.

    values, indices: (N OH, OW, C); low, high: (N OH)
    """
    bands = (out.shape[1] + band - 1) // band
    n, start = t // bands, t % bands * band
    oh = low.size // out.shape[0]
    to = out[n, start : start + band]  # (band, C)
    flat = to.reshape(-1)
    for k in range(flat.size):
        flat[k] = 0
    for i in range(n * oh, (n + 1) * oh):
        if high[i] < start or low[i] >= start + band:
            continue
        row, where = values[i], indices[i]  # (OW, C)
        for j in range(row.shape[0]):
            for k in range(row.shape[1]):
                place = np.int64(where[j, k]) - start
                if 0 <= place < to.shape[0]:
                    to[np.uintp(place), k] += row[j, k]


@njit(**THREADED)
def _scatter(out, values, indices, low, high, band, tasks):
    if out.size < SPLIT:
        for t in range(tasks):
            _scatter_band(out, values, indices, low, high, band, t)
    else:
        for t in prange(tasks):
            _scatter_band(out, values, indices, low, high, band, t)


def scatter_by_index(out, values, indices):
    # Threads own bands of the plane, not rows of values: windows may overlap, and then two rows add to one pixel.
    # Which rows reach a band is known from their index ranges. Bands begin at even rows, where 2 x 2 windows do.
    n, h, w, c = out.shape
    indices = _rows(indices)
    low, high = np.empty((2, len(indices)), np.int32)
    _ranges(indices.reshape(len(indices), -1), low, high)
    _check_range(low.min(), high.max(), h * w)
    band = 2 * w * max(1, BAND // (2 * w * c))
    _scatter(out.reshape(n, h * w, c), _rows(values), indices, low, high, band, n * -(-h * w // band))


def _check_range(low: int, high: int, pixels: int) -> None:
    if low < 0 or high >= pixels:
        raise ValueError(f"indices run from {low} to {high}, but the plane has {pixels} pixels, from 0")


@njit(**SERIAL)
def _gather_row(out, plane, indices):
    """One row of out (OW, C) from the plane (H W, C). Returns whether an index lies outside of it."""
    outside = False
    for j in range(out.shape[0]):
        for k in range(out.shape[1]):
            place = indices[j, k]
            inside = (place >= 0) & (place < plane.shape[0])
            outside |= not inside
            out[j, k] = plane[np.uintp(place if inside else 0), k]
    return outside


@njit(**THREADED)
def _gather(out, planes, indices, outside):
    """out, indices (N OH, OW, C); planes (N, H W, C); outside (N OH)."""
    oh = out.shape[0] // planes.shape[0]
    if out.size < SPLIT:
        for t in range(out.shape[0]):
            outside[t] = _gather_row(out[t], planes[t // oh], indices[t])
    else:
        for t in prange(out.shape[0]):
            outside[t] = _gather_row(out[t], planes[t // oh], indices[t])


def gather_by_index(out, plane, indices):
    n, h, w, c = plane.shape
    outside = np.empty(n * out.shape[1], np.bool_)
    _gather(_rows(out), plane.reshape(n, h * w, c), _rows(indices), outside)
    if outside.any():
        _check_range(indices.min(), indices.max(), h * w)


@njit(**SERIAL)
def _sum_row(row, sums):
    """sums[c] = sum over the pixels of a row (W, C)."""
    for k in range(sums.size):
        sums[k] = 0.0
    whole = row.shape[0] // 8 * 8
    for j in range(0, whole, 8):
        eight = row[j : j + 8]
        for k in range(sums.size):
            s = row.dtype.type(0)
            for r in range(8):  # in registers
                s += eight[r, k]
            sums[k] += s
    rest = row[whole:]
    for j in range(rest.shape[0]):
        for k in range(sums.size):
            sums[k] += rest[j, k]


@njit(**THREADED)
def _sum_rows(x, sums):
    if x.size < SPLIT:
        for t in range(sums.shape[0]):
            _sum_row(x[t], sums[t])
    else:
        for t in prange(sums.shape[0]):
            _sum_row(x[t], sums[t])


def global_avg_pool(y, x):
    n, h, w, c = x.shape
    sums = np.empty((n * h, c))
    _sum_rows(_rows(x), sums)
    y[...] = sums.reshape(n, h, 1, c).sum(axis=1, keepdims=True) / (h * w)


def global_avg_pool_grad(dx, dy):
    _, h, w, _ = dx.shape
    np.copyto(dx, dy / dx.dtype.type(h * w))
