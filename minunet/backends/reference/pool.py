"""Max-pooling by index, its scatter and gather, and averages over windows and over whole maps."""

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


def avg_pool2d(y, x, *, kernel, stride, padding):
    """y[n,i,j,c] = sum_{u,v} x[n, i sh + u - ph, j sw + v - pw, c] / (KH KW), x being 0 outside."""
    for i, rows in enumerate(_windows(y.shape[1], x.shape[1], kernel[0], stride[0], padding[0])):
        for j, columns in enumerate(_windows(y.shape[2], x.shape[2], kernel[1], stride[1], padding[1])):
            y[:, i, j, :] = x[:, rows, columns, :].sum(axis=(1, 2)) / (kernel[0] * kernel[1])


def avg_pool2d_grad(dx, dy, *, kernel, stride, padding):
    """dx[n,h,w,c] = sum of dy[n,i,j,c] / (KH KW) over the windows (i, j) that hold (h, w)."""
    dx[...] = 0
    for i, rows in enumerate(_windows(dy.shape[1], dx.shape[1], kernel[0], stride[0], padding[0])):
        for j, columns in enumerate(_windows(dy.shape[2], dx.shape[2], kernel[1], stride[1], padding[1])):
            dx[:, rows, columns, :] += dy[:, i : i + 1, j : j + 1, :] / (kernel[0] * kernel[1])


def _windows(count, size, kernel, stride, pad):
    """The part of each window along one axis that lies on the image."""
    for i in range(count):
        start = i * stride - pad
        yield slice(max(start, 0), min(start + kernel, size))


def _check(indices, pixels):
    """Raise ValueError unless all indices lie in the plane. NumPy alone would read -1 as the last pixel."""
    if indices.size and not 0 <= indices.min() <= indices.max() < pixels:
        raise ValueError(f"indices run from {indices.min()} to {indices.max()}; a plane of {pixels} pixels has no such")
