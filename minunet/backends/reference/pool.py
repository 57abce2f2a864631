"""Max-pooling by index, its scatter and gather, and global averaging."""

from __future__ import annotations

import numpy as np


def max_pool2d(y, indices, x, *, kernel, stride, padding):
    """y = maximum over each window; indices = h W + w of the first maximum in row-major order. Padding never wins."""
    (n, h, w, c), (_, oh, ow, _) = x.shape, y.shape
    for i in range(oh):
        for j in range(ow):
            # The part of the window that lies on the image, (N, KH, KW, C).
            i0, j0 = i * stride[0] - padding[0], j * stride[1] - padding[1]
            rows = slice(max(i0, 0), min(i0 + kernel[0], h))
            columns = slice(max(j0, 0), min(j0 + kernel[1], w))
            window = x[:, rows, columns, :]
            first = window.reshape(n, -1, c).argmax(axis=1)  # (N, C), argmax takes the first of equals
            u, v = np.divmod(first, window.shape[2])
            y[:, i, j, :] = window.max(axis=(1, 2))
            indices[:, i, j, :] = (rows.start + u) * w + columns.start + v


def scatter_by_index(out, values, indices):
    """out[n, indices[n,i,j,c], c] += values[n,i,j,c] on a plane of zeros."""
    (n, h, w, c), flat = out.shape, (values.shape[0], -1, values.shape[3])
    _check(indices, h * w)
    plane = np.zeros((n, h * w, c))
    batch, channel = np.arange(n)[:, None, None], np.arange(c)
    np.add.at(plane, (batch, indices.reshape(flat), channel), values.reshape(flat))
    out[...] = plane.reshape(out.shape)


def gather_by_index(out, plane, indices):
    """out[n,i,j,c] = plane[n, indices[n,i,j,c], c]."""
    n, h, w, c = plane.shape
    _check(indices, h * w)
    batch, channel = np.arange(n)[:, None, None, None], np.arange(c)
    out[...] = plane.reshape(n, h * w, c)[batch, indices, channel]


def global_avg_pool(y, x):
    """y[n,0,0,c] = mean_{i,j} x[n,i,j,c]."""
    y[...] = x.mean(axis=(1, 2), keepdims=True)


def global_avg_pool_grad(dx, dy):
    """dx[n,i,j,c] = dy[n,0,0,c] / (H W)."""
    _, h, w, _ = dx.shape
    dx[...] = dy / (h * w)


def _check(indices, pixels):
    """Raise ValueError unless all indices lie in the plane. NumPy alone would read -1 as the last pixel."""
    if indices.size and not 0 <= indices.min() <= indices.max() < pixels:
        raise ValueError(f"indices run from {indices.min()} to {indices.max()}; a plane of {pixels} pixels has no such")
