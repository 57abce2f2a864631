"""Depthwise convolution on the CPU: each channel by itself, the inner loop over the channels of a pixel.

Weights are turned to (taps, O) first, so that they lie as the channels do. Every output row is one task.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minunet.backends.cpu.loops import SERIAL, SPLIT, THREADED
from minunet.jit import njit


@njit(**SERIAL)
def _forward_row(y, x, w, b, kernel, stride, padding, dilation, lowest, t):
    """Row t of y (N OH, OW, O) from x (N, H, W, C) and w (KH KW, O)."""
    oh = y.shape[0] // x.shape[0]
    plane, out, m = x[t // oh], y[t], y.shape[2] // x.shape[3]
    h0 = t % oh * stride[0] - padding[0]
    for j in range(out.shape[0]):
        w0 = j * stride[1] - padding[2]
        for o in range(out.shape[1]):
            out[j, o] = b[o]
        for u in range(kernel[0]):
            for v in range(kernel[1]):
                h, k = h0 + u * dilation[0], w0 + v * dilation[1]
                if 0 <= h < plane.shape[0] and 0 <= k < plane.shape[1]:
                    for o in range(out.shape[1]):
                        out[j, o] += plane[h, k, o // m] * w[u * kernel[1] + v, o]
        for o in range(out.shape[1]):
            out[j, o] = lowest if out[j, o] < lowest else out[j, o]


@njit(**THREADED)
def _forward(y, x, w, b, kernel, stride, padding, dilation, lowest):
    if y.size < SPLIT:
        for t in range(y.shape[0]):
            _forward_row(y, x, w, b, kernel, stride, padding, dilation, lowest, t)
    else:
        for t in prange(y.shape[0]):
            _forward_row(y, x, w, b, kernel, stride, padding, dilation, lowest, t)


def depthwise_conv2d(y, x, w, b, *, stride, padding, dilation, activation):
    o, kh, kw, _ = w.shape
    taps = np.ascontiguousarray(w.reshape(o, kh * kw).T)
    bias = np.zeros(o, w.dtype) if b is None else b
    lowest = x.dtype.type(-np.inf if activation is None else 0)
    _forward(_rows(y), x, taps, bias, (kh, kw), stride, padding, dilation, lowest)


@njit(**SERIAL)
def _grad_x_row(dx, dy, w, kernel, stride, padding, dilation, t):
    """Row t of dx (N H, W, C) from dy (N, OH, OW, O) and w (KH KW, O)."""
    h = dx.shape[0] // dy.shape[0]
    plane, out, m = dy[t // h], dx[t], dy.shape[3] // dx.shape[2]
    for k in range(out.size):
        out.reshape(-1)[k] = 0
    for u in range(kernel[0]):
        i = t % h + padding[0] - u * dilation[0]
        if i % stride[0] or not 0 <= i // stride[0] < plane.shape[0]:
            continue
        for j in range(plane.shape[1]):
            for v in range(kernel[1]):
                k = j * stride[1] - padding[2] + v * dilation[1]
                if 0 <= k < out.shape[0]:
                    for o in range(plane.shape[2]):
                        out[k, o // m] += plane[i // stride[0], j, o] * w[u * kernel[1] + v, o]


@njit(**THREADED)
def _grad_x(dx, dy, w, kernel, stride, padding, dilation):
    if dx.size < SPLIT:
        for t in range(dx.shape[0]):
            _grad_x_row(dx, dy, w, kernel, stride, padding, dilation, t)
    else:
        for t in prange(dx.shape[0]):
            _grad_x_row(dx, dy, w, kernel, stride, padding, dilation, t)


def depthwise_conv2d_grad_x(dx, dy, w, *, stride, padding, dilation):
    o, kh, kw, _ = w.shape
    taps = np.ascontiguousarray(w.reshape(o, kh * kw).T)
    _grad_x(_rows(dx), dy, taps, (kh, kw), stride, padding, dilation)


@njit(**SERIAL)
def _grad_w_row(sums, x, dy, kernel, stride, padding, dilation, t):
    """sums[tap, o] = the part of output row t; x (N, H, W, C), dy (N OH, OW, O)."""
    oh = dy.shape[0] // x.shape[0]
    plane, row, m = x[t // oh], dy[t], dy.shape[2] // x.shape[3]
    for u in range(kernel[0]):
        for v in range(kernel[1]):
            h = t % oh * stride[0] - padding[0] + u * dilation[0]
            out = sums[u * kernel[1] + v]
            for o in range(out.size):
                out[o] = 0
            if not 0 <= h < plane.shape[0]:
                continue
            for j in range(row.shape[0]):
                k = j * stride[1] - padding[2] + v * dilation[1]
                if 0 <= k < plane.shape[1]:
                    for o in range(out.size):
                        out[o] += row[j, o] * plane[h, k, o // m]


@njit(**THREADED)
def _grad_w(sums, x, dy, kernel, stride, padding, dilation):
    if dy.size < SPLIT:
        for t in range(dy.shape[0]):
            _grad_w_row(sums[t], x, dy, kernel, stride, padding, dilation, t)
    else:
        for t in prange(dy.shape[0]):
            _grad_w_row(sums[t], x, dy, kernel, stride, padding, dilation, t)


def depthwise_conv2d_grad_w(dw, x, dy, *, stride, padding, dilation):
    o, kh, kw, _ = dw.shape
    rows = _rows(dy)
    sums = np.empty((rows.shape[0], kh * kw, o), dw.dtype)
    _grad_w(sums, x, rows, (kh, kw), stride, padding, dilation)
    np.copyto(dw.reshape(o, kh * kw), sums.sum(axis=0, dtype=np.float64).T)


def _rows(a: np.ndarray) -> np.ndarray:
    """(N, H, W, C) as (N H, W, C)."""
    return a.reshape(-1, *a.shape[2:])
