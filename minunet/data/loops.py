"""The per-pixel loops of this package, compiled by Numba.

Imported only where they run, since importing Numba takes most of a second. All release the GIL, so that a
thread can prepare the next tile while the network computes on this one.
"""

from __future__ import annotations

import numpy as np

from minunet.jit import njit

FAR = np.int32(2**30)  # a squared distance that no image reaches


@njit(nogil=True)
def reflect(i, n):
    """Position i of the mirrored line ... 2 1 0 1 2 ... n-2 n-1 n-2 ..., as an index into 0 .. n-1."""
    if 0 <= i < n:
        return i
    if n == 1:
        return 0
    period = 2 * (n - 1)
    i = i % period
    return i if i < n else period - i


@njit(nogil=True)
def two_nearest(instances, n, reach):
    """Squared distances to the nearest and to the second nearest of the instances 1 .. n, FAR beyond `reach`.

    Each instance gets an exact distance transform (Meijster, Roerdink, Hesselink 2000) inside its bounding box
    grown by `reach`: first down and up the columns, then along each row the lower envelope of the parabolas
    (j - q)^2 + g[q]^2. All integers, so exact.
    """
    H, W = instances.shape
    top = np.full(n + 1, H, np.int64)
    left = np.full(n + 1, W, np.int64)
    bottom = np.full(n + 1, -1, np.int64)
    right = np.full(n + 1, -1, np.int64)
    for i in range(H):
        for j in range(W):
            k = instances[i, j]
            if k > 0:
                top[k] = min(top[k], i)
                bottom[k] = max(bottom[k], i)
                left[k] = min(left[k], j)
                right[k] = max(right[k], j)

    first = np.full((H, W), FAR, np.int32)
    second = np.full((H, W), FAR, np.int32)
    g = np.empty((H, W), np.int32)  # distance within the column, reach + 1 for "none"
    site = np.empty(W, np.int64)  # columns of the parabolas in the envelope
    start = np.empty(W, np.int64)  # where each of them begins to be the lowest
    for k in range(1, n + 1):
        if bottom[k] < 0:
            continue
        i0, i1 = max(top[k] - reach, 0), min(bottom[k] + reach + 1, H)
        j0, j1 = max(left[k] - reach, 0), min(right[k] + reach + 1, W)
        for i in range(i0, i1):
            for j in range(j0, j1):
                above = g[i - 1, j] + 1 if i > i0 else reach + 1
                g[i, j] = 0 if instances[i, j] == k else min(above, reach + 1)
        for i in range(i1 - 2, i0 - 1, -1):
            for j in range(j0, j1):
                g[i, j] = min(g[i, j], g[i + 1, j] + 1)

        for i in range(i0, i1):
            last = -1
            for q in range(j0, j1):
                height = g[i, q] * g[i, q]
                if g[i, q] > reach:
                    continue
                while last >= 0:
                    p, s = site[last], start[last]
                    if (s - p) * (s - p) + g[i, p] * g[i, p] > (s - q) * (s - q) + height:
                        last -= 1
                    else:
                        break
                if last < 0:
                    last = 0
                    site[0], start[0] = q, j0
                    continue
                p = site[last]
                s = 1 + (q * q - p * p + height - g[i, p] * g[i, p]) // (2 * (q - p))
                if s < j1:
                    last += 1
                    site[last], start[last] = q, s
            if last < 0:
                continue
            for j in range(j1 - 1, j0 - 1, -1):
                p = site[last]
                d = np.int32((j - p) * (j - p) + g[i, p] * g[i, p])
                if d < first[i, j]:
                    second[i, j] = first[i, j]
                    first[i, j] = d
                elif d < second[i, j]:
                    second[i, j] = d
                if j == start[last]:
                    last -= 1
    return first, second


@njit(nogil=True)
def _bend(weights, nodes, along):
    """along[a, m] = sum over k of weights[k] nodes[a, k, m]: the spline's values on one row of the image, (2, 3)."""
    for a in range(2):
        for m in range(3):
            along[a, m] = weights[0] * nodes[a, 0, m] + weights[1] * nodes[a, 1, m] + weights[2] * nodes[a, 2, m]


@njit(nogil=True)
def _source(row, col, along, weights):
    """Where the pixel at (row, col) comes from: (row, col) + along @ weights."""
    y = row + along[0, 0] * weights[0] + along[0, 1] * weights[1] + along[0, 2] * weights[2]
    x = col + along[1, 0] * weights[0] + along[1, 1] * weights[1] + along[1, 2] * weights[2]
    return y, x


@njit(nogil=True)
def deform(image, rows, cols, down, across, nodes, cubic, out):
    """out[i, j, :] = image at (rows[i], cols[j]) + displacement, between pixels by cubic or linear sampling.

    image (H, W, C), rows (h,) and cols (w,) indices into it, down (h, 3) and across (w, 3) the spline weights of
    the three nodes, nodes (2, 3, 3) displacements in pixels (vertical, horizontal). Mirror border. Cubic: Keys'
    kernel with a = -1/2 (Catmull-Rom), which passes through the pixels and reproduces parabolas.
    """
    H, W, C = image.shape
    wy = np.empty(4)
    wx = np.empty(4)
    iy = np.empty(4, np.int64)
    ix = np.empty(4, np.int64)
    along = np.empty((2, 3))
    for i in range(rows.size):
        _bend(down[i], nodes, along)
        for j in range(cols.size):
            y, x = _source(rows[i], cols[j], along, across[j])
            y0 = int(np.floor(y))
            x0 = int(np.floor(x))
            if cubic:
                _keys(y - y0, wy)
                _keys(x - x0, wx)
                taps, y0, x0 = 4, y0 - 1, x0 - 1
            else:
                wy[0], wy[1] = 1 - (y - y0), y - y0
                wx[0], wx[1] = 1 - (x - x0), x - x0
                taps = 2
            for t in range(taps):
                iy[t] = reflect(y0 + t, H)
                ix[t] = reflect(x0 + t, W)
            for c in range(C):
                total = 0.0
                for t in range(taps):
                    line = 0.0
                    for u in range(taps):
                        line += wx[u] * image[iy[t], ix[u], c]
                    total += wy[t] * line
                out[i, j, c] = total


@njit(nogil=True)
def _keys(f, w):
    w[0] = ((-0.5 * f + 1.0) * f - 0.5) * f
    w[1] = (1.5 * f - 2.5) * f * f + 1.0
    w[2] = ((-1.5 * f + 2.0) * f + 0.5) * f
    w[3] = (0.5 * f - 0.5) * f * f


@njit(nogil=True)
def deform_nearest(labels, rows, cols, down, across, nodes, out, inside):
    """As `deform` for labels (H, W): the nearest pixel; inside[i, j] is False where it lies beyond the border."""
    H, W = labels.shape
    along = np.empty((2, 3))
    for i in range(rows.size):
        _bend(down[i], nodes, along)
        for j in range(cols.size):
            y, x = _source(rows[i], cols[j], along, across[j])
            p = int(np.floor(y + 0.5))
            q = int(np.floor(x + 0.5))
            inside[i, j] = 0 <= p < H and 0 <= q < W
            out[i, j] = labels[reflect(p, H), reflect(q, W)]
