"""Max-pooling by index and global averaging on the CPU: the inner loop runs over the channels of a pixel."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from minunet.backends.cpu.pointwise import SERIAL, SPLIT, THREADED

BAND = 1 << 16  # elements of a scattered plane that one task clears and fills: they stay in its L2 cache


@njit(**SERIAL)
def _wins(v, best):
    """v replaces best: it is larger, or the first NaN (as in numpy.argmax)."""
    return (best == best) & ((v > best) | (v != v))


@njit(**SERIAL)
def _pool_row_2x2(y, indices, top, bottom, first):
    """One output row of 2 x 2 windows with stride 2: four loads, three comparisons, two stores per element.

    top, bottom : (W, C), the two input rows; first: index of top[0] in the plane
    """
    w = top.shape[0]
    for j in range(y.shape[0]):
        a, b, c, d = top[2 * j], top[2 * j + 1], bottom[2 * j], bottom[2 * j + 1]
        out, where = y[j], indices[j]
        # int32 beside float32: the choice of value and index then takes vectors of the same number of elements
        ia = np.int32(first + 2 * j)
        ib, ic, id_ = np.int32(ia + 1), np.int32(ia + w), np.int32(ia + w + 1)
        for k in range(out.size):
            best, at = a[k], ia
            if _wins(b[k], best):
                best, at = b[k], ib
            if _wins(c[k], best):
                best, at = c[k], ic
            if _wins(d[k], best):
                best, at = d[k], id_
            out[k] = best
            where[k] = at


@njit(**SERIAL)
def _pool_row(y, indices, x, u0, kernel, stride, left):
    """One output row of any windows, clipped to the plane x (H, W, C); its first input row is u0, maybe negative."""
    h, w, _ = x.shape
    for j in range(y.shape[0]):
        v0 = j * stride - left
        u_start, v_start = max(u0, 0), max(v0, 0)
        out, where = y[j], indices[j]
        out[:] = x[u_start, v_start]
        where[:] = u_start * w + v_start
        for u in range(u_start, min(u0 + kernel[0], h)):
            for v in range(v_start, min(v0 + kernel[1], w)):
                pixel, at = x[u, v], np.int32(u * w + v)
                for k in range(out.size):
                    wins = _wins(pixel[k], out[k])
                    out[k] = pixel[k] if wins else out[k]
                    where[k] = at if wins else where[k]


@njit(**SERIAL)
def _pool_task(y, indices, x, kernel, stride, padding, t):
    oh, ow = y.shape[1:3]
    h, w = x.shape[1:3]
    n, i = t // oh, t % oh
    plain = kernel == (2, 2) and stride == (2, 2) and padding == (0, 0)
    if plain and 2 * oh <= h and 2 * ow <= w:
        _pool_row_2x2(y[n, i], indices[n, i], x[n, 2 * i], x[n, 2 * i + 1], 2 * i * w)
    else:
        _pool_row(y[n, i], indices[n, i], x[n], i * stride[0] - padding[0], kernel, stride[1], padding[1])


@njit(**THREADED)
def _pool(y, indices, x, kernel, stride, padding):
    rows = y.shape[0] * y.shape[1]
    if x.size < SPLIT:
        for t in range(rows):
            _pool_task(y, indices, x, kernel, stride, padding, t)
    else:
        for t in prange(rows):
            _pool_task(y, indices, x, kernel, stride, padding, t)


def max_pool2d(y, indices, x, *, kernel, stride, padding):
    _pool(y, indices, x, tuple(kernel), tuple(stride), tuple(padding))


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
    """Fill band t of the planes out (N, H W, C), `band` pixels each, from all rows of values that reach it."""
    bands = (out.shape[1] + band - 1) // band
    n, start = t // bands, t % bands * band
    c = out.shape[2]
    to = out[n, start : start + band].reshape(-1)
    to[:] = 0.0
    for i in range(values.shape[1]):
        if high[n, i] < start or low[n, i] >= start + band:
            continue
        row, where = values[n, i], indices[n, i]  # (OW, C)
        for j in range(row.shape[0]):
            pixel, at = row[j], where[j]
            for k in range(c):
                place = (np.int64(at[k]) - start) * c + k
                if 0 <= place < to.size:
                    to[np.uintp(place)] += pixel[k]


@njit(**THREADED)
def _scatter(out, values, indices, low, high, band):
    tasks = out.shape[0] * ((out.shape[1] + band - 1) // band)
    if out.size < SPLIT:
        for t in range(tasks):
            _scatter_band(out, values, indices, low, high, band, t)
    else:
        for t in prange(tasks):
            _scatter_band(out, values, indices, low, high, band, t)


def _index_range(indices: np.ndarray, pixels: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest index of each row (N, OH). Raises ValueError if one lies outside the plane."""
    n, oh = indices.shape[:2]
    low, high = np.empty((2, n, oh), np.int32)
    _ranges(indices.reshape(n * oh, -1), low.reshape(-1), high.reshape(-1))
    if low.min() < 0 or high.max() >= pixels:
        raise ValueError(f"{what}: indices run from {low.min()} to {high.max()}, but the plane has {pixels} pixels")
    return low, high


def scatter_by_index(out, values, indices):
    # Threads own bands of the plane, not rows of values: windows may overlap, and then two rows add to one pixel.
    # Which rows reach a band is known from their index ranges. Bands begin at even rows, where 2 x 2 windows do.
    n, h, w, c = out.shape
    low, high = _index_range(indices, h * w, "scatter_by_index")
    band = 2 * w * max(1, BAND // (2 * w * c))
    _scatter(out.reshape(n, h * w, c), values, indices, low, high, band)


@njit(**SERIAL)
def _gather_row(out, plane, indices, t):
    """Row t of out, counted over the whole batch. True if an index lies outside the plane (N, H W, C)."""
    oh = out.shape[1]
    n, i = t // oh, t % oh
    source = plane[n].reshape(-1)
    c = out.shape[3]
    pixels = plane.shape[1]
    outside = False
    for j in range(out.shape[2]):
        to, at = out[n, i, j], indices[n, i, j]
        for k in range(to.size):
            p = np.int64(at[k])
            inside = (p >= 0) & (p < pixels)
            outside |= not inside
            to[k] = source[np.uintp((p if inside else 0) * c + k)]
    return outside


@njit(**THREADED)
def _gather(out, plane, indices, outside):
    if out.size < SPLIT:
        for t in range(outside.size):
            outside[t] = _gather_row(out, plane, indices, t)
    else:
        for t in prange(outside.size):
            outside[t] = _gather_row(out, plane, indices, t)


def gather_by_index(out, plane, indices):
    n, h, w, c = plane.shape
    outside = np.empty(n * out.shape[1], np.bool_)
    _gather(out, plane.reshape(n, h * w, c), indices, outside)
    if outside.any():
        raise ValueError(
            f"gather_by_index: indices run from {indices.min()} to {indices.max()}, but the plane has {h * w} pixels"
        )


@njit(**SERIAL)
def _sum_row(x, sums, t):
    """sums[t, c] = sum of row t over its pixels."""
    out = sums[t]
    out[:] = 0.0
    for j in range(x.shape[1]):
        pixel = x[t, j]
        for k in range(out.size):
            out[k] += pixel[k]


@njit(**THREADED)
def _sum_rows(x, sums):
    if x.size < SPLIT:
        for t in range(sums.shape[0]):
            _sum_row(x, sums, t)
    else:
        for t in prange(sums.shape[0]):
            _sum_row(x, sums, t)


def global_avg_pool(y, x):
    n, h, w, c = x.shape
    sums = np.empty((n * h, c))
    _sum_rows(x.reshape(n * h, w, c), sums)
    y[...] = sums.reshape(n, h, 1, c).sum(axis=1, keepdims=True) / (h * w)


def global_avg_pool_grad(dx, dy):
    _, h, w, _ = dx.shape
    np.copyto(dx, dy / dx.dtype.type(h * w))
