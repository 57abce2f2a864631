"""Up-sampling: along each axis a matrix of interpolation weights, and its transpose for the gradient."""

from __future__ import annotations

import numpy as np


def upsample_nearest(y, x):
    """y[n,i,j,c] = x[n, i H // OH, j W // OW, c]."""
    (_, h, w, _), (_, oh, ow, _) = x.shape, y.shape
    y[...] = _apply(_nearest(oh, h), _nearest(ow, w), x)


def upsample_nearest_grad(dx, dy):
    """dx[n,h,w,c] = sum of dy over the pixels that upsample_nearest fills with x[n,h,w,c]."""
    (_, h, w, _), (_, oh, ow, _) = dx.shape, dy.shape
    dx[...] = _apply(_nearest(oh, h).T, _nearest(ow, w).T, dy)


def upsample_bilinear(y, x, *, align_corners):
    """y = x at src = i (H-1)/(OH-1) (align_corners) or max((i + 1/2) H/OH - 1/2, 0), linear between pixels."""
    (_, h, w, _), (_, oh, ow, _) = x.shape, y.shape
    y[...] = _apply(_linear(oh, h, align_corners), _linear(ow, w, align_corners), x)


def upsample_bilinear_grad(dx, dy, *, align_corners):
    """Adjoint of upsample_bilinear."""
    (_, h, w, _), (_, oh, ow, _) = dx.shape, dy.shape
    dx[...] = _apply(_linear(oh, h, align_corners).T, _linear(ow, w, align_corners).T, dy)


def _apply(rows, columns, x):
    """sum_{h,w} rows[i,h] columns[j,w] x[n,h,w,c]."""
    return np.einsum("ih,jw,nhwc->nijc", rows, columns, x, optimize=True)


def _nearest(out, size):
    """(out, size): a one where pixel i takes its value."""
    i = np.arange(out)
    weights = np.zeros((out, size))
    weights[i, i * size // out] = 1
    return weights


def _linear(out, size, align_corners):
    """(out, size): the weights of the two pixels around src(i). The last pixel continues beyond the edge."""
    i = np.arange(out)
    if align_corners:
        src = i * (size - 1) / max(out - 1, 1)  # a single output pixel takes the first input pixel
    else:
        src = np.maximum((i + 0.5) * size / out - 0.5, 0)
    low = np.floor(src).astype(int)
    high = np.minimum(low + 1, size - 1)
    weights = np.zeros((out, size))
    weights[i, low] += 1 - (src - low)
    weights[i, high] += src - low
    return weights
