"""Convolution and its two adjoints, of all channels or each by itself: one product for each tap (u, v) of the kernel.

Tap (u, v) meets the pixels x[n, i sh + u dh - top, j sw + v dw - left, :] of every output (i, j) at once: in the
padded array they are the strided window that starts at (u dh, v dw).
"""

from __future__ import annotations

import numpy as np

from minunet.backends.reference.pointwise import activate


def conv2d(y, x, w, b=None, *, stride, padding, dilation, activation):
    """y[n,i,j,o] = act(b[o] + sum_{u,v,c} x[n, i sh + u dh - top, j sw + v dw - left, c] w[o,u,v,c])."""
    padded = _pad(x, padding)  # (N, H + top + bottom, W + left + right, C)
    y[...] = 0 if b is None else b
    for u, v, window in _taps(padded, w.shape[1:3], y.shape[1:3], stride, dilation):
        y += np.einsum("nijc,oc->nijo", window, w[:, u, v, :], optimize=True)
    y[...] = activate(y, activation)


def conv2d_grad_x(dx, dy, w, b=None, *, stride, padding, dilation, activation):
    """dx = act(b + sum over taps of dy[n,i,j,o] w[o,u,v,c], each added where its tap read x)."""
    top, _, left, _ = padding
    padded = _pad(np.zeros_like(dx), padding)
    for u, v, window in _taps(padded, w.shape[1:3], dy.shape[1:3], stride, dilation):
        window += np.einsum("nijo,oc->nijc", dy, w[:, u, v, :], optimize=True)
    dx[...] = padded[:, top : top + dx.shape[1], left : left + dx.shape[2], :]
    if b is not None:
        dx += b
    dx[...] = activate(dx, activation)


def conv2d_grad_w(dw, x, dy, *, stride, padding, dilation):
    """dw[o,u,v,c] = sum_{n,i,j} dy[n,i,j,o] x[n, i sh + u dh - top, j sw + v dw - left, c]."""
    for u, v, window in _taps(_pad(x, padding), dw.shape[1:3], dy.shape[1:3], stride, dilation):
        dw[:, u, v, :] = np.einsum("nijo,nijc->oc", dy, window, optimize=True)


def channel_sum(db, dy):
    """db[c] = sum_{n,i,j} dy[n,i,j,c]."""
    db[...] = dy.reshape(-1, dy.shape[-1]).sum(axis=0)


def depthwise_conv2d(y, x, w, b=None, *, stride, padding, dilation, activation):
    """y[n,i,j,o] = act(b[o] + sum_{u,v} x[n, i sh + u dh - top, j sw + v dw - left, o // m] w[o,u,v,0])."""
    repeated = np.repeat(_pad(x, padding), w.shape[0] // x.shape[3], axis=3)  # channel o // m at o
    y[...] = 0 if b is None else b
    for u, v, window in _taps(repeated, w.shape[1:3], y.shape[1:3], stride, dilation):
        y += window * w[:, u, v, 0]
    y[...] = activate(y, activation)


def depthwise_conv2d_grad_x(dx, dy, w, *, stride, padding, dilation):
    """dx = sum over taps of dy[n,i,j,o] w[o,u,v,0], each added at channel o // m where its tap read x."""
    _, h, wd, c = dx.shape
    top, _, left, _ = padding
    padded = _pad(np.zeros_like(dx), padding)
    for u, v, window in _taps(padded, w.shape[1:3], dy.shape[1:3], stride, dilation):
        window += (dy * w[:, u, v, 0]).reshape(*dy.shape[:3], c, -1).sum(axis=4)
    dx[...] = padded[:, top : top + h, left : left + wd, :]


def depthwise_conv2d_grad_w(dw, x, dy, *, stride, padding, dilation):
    """dw[o,u,v,0] = sum_{n,i,j} dy[n,i,j,o] x[n, i sh + u dh - top, j sw + v dw - left, o // m]."""
    repeated = np.repeat(_pad(x, padding), dw.shape[0] // x.shape[3], axis=3)
    for u, v, window in _taps(repeated, dw.shape[1:3], dy.shape[1:3], stride, dilation):
        dw[:, u, v, 0] = (dy * window).sum(axis=(0, 1, 2))


def _pad(x, padding):
    top, bottom, left, right = padding
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def _taps(padded, kernel, output, stride, dilation):
    """For each tap: u, v and the view of `padded` that it meets, (N, OH, OW, C)."""
    (kh, kw), (oh, ow), (sh, sw), (dh, dw) = kernel, output, stride, dilation
    for u in range(kh):
        for v in range(kw):
            rows = slice(u * dh, u * dh + (oh - 1) * sh + 1, sh)
            columns = slice(v * dw, v * dw + (ow - 1) * sw + 1, sw)
            yield u, v, padded[:, rows, columns, :]
