"""Cells near a pixel: exact distance transforms, one cell after the other."""

from __future__ import annotations

import numpy as np

from minunet.jit import njit

FAR = np.int32(2**30)  # a squared distance that no image reaches


def border_weights(y, cells, *, w0, sigma, reach, everywhere):
    rim = (cells.shape[1] - y.shape[1]) // 2
    for n, section in enumerate(cells):
        first, second = two_nearest(*_numbered(section), reach)
        inner = tuple(slice(rim, rim + side) for side in y.shape[1:])
        section, first, second = section[inner], first[inner], second[inner]
        reached = second < FAR
        if not everywhere:
            reached &= section == 0
        total = np.sqrt(first[reached].astype(np.float64)) + np.sqrt(second[reached].astype(np.float64))
        y[n] = 0
        y[n][reached] = w0 * np.exp(-(total**2) / (2 * sigma**2))


def _numbered(section: np.ndarray) -> tuple[np.ndarray, int]:
    """The cells with numbers small enough to index a table, and the largest of these."""
    most = int(section.max(initial=0))
    if most <= section.size:
        return section, most
    used, index = np.unique(section, return_inverse=True)
    section = (index.reshape(section.shape) + (used[0] != 0)).astype(np.int32)
    return section, int(section.max(initial=0))


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
