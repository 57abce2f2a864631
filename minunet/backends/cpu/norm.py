"""Batch normalisation on the CPU, in rows of lanes (see `loops.layout`).

Sums: eight rows are added in registers, in the array's dtype; the result is added to one float64 per lane. At the
end of a chunk the lanes of a channel are folded, and NumPy joins the chunks, in the order of memory. No sum depends
on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minunet.backends.cpu.loops import GROUP, SERIAL, SPLIT, THREADED, layout, repeated
from minunet.backends.cpu.pixel_norm import l2_normalize, l2_normalize_grad, lrn, lrn_grad
from minunet.jit import njit

__all__ = [
    "batch_norm",
    "batch_norm_grad",
    "channel_moments",
    "fold_batch_norm",
    "l2_normalize",
    "l2_normalize_grad",
    "lrn",
    "lrn_grad",
]


@njit(**SERIAL)
def _add_powers(x, shift, first, second):
    """first[l] += sum (x - shift), second[l] += sum (x - shift)^2 over the rows of x, which starts at lane 0."""
    width = shift.size
    done = x.size // (GROUP * width) * (GROUP * width)
    for a in range(0, done, GROUP * width):
        rows = x[a : a + GROUP * width].reshape(GROUP, width)
        for l in range(width):
            s = q = x.dtype.type(0)
            for r in range(GROUP):
                d = rows[r, l] - shift[l]
                s += d
                q += d * d
            first[l] += s
            second[l] += q
    for a in range(done, x.size, width):
        row = x[a : a + width]  # the last one may be short
        for l in range(row.size):
            d = row[l] - shift[l]
            first[l] += d
            second[l] += d * d


@njit(**SERIAL)
def _fold(lanes, out):
    """out[c] = sum of the lanes of channel c."""
    c = out.size
    for k in range(c):
        out[k] = 0.0
    for a in range(0, lanes.size, c):
        row = lanes[a : a + c]
        for k in range(row.size):
            out[k] += row[k]


@njit(**SERIAL)
def _moments_chunk(x, repeat, mean, m2):
    """Mean and sum of squared distances from it, per channel, of one chunk: the corrected two-pass algorithm.

    The first pass looks at one group of rows: any number near the mean will do as a shift, for
    sum (x - mean)^2 = sum (x - shift)^2 - (sum (x - shift))^2 / n holds exactly, and near the mean nothing cancels.
    Chan, Golub & LeVeque 1983.
    """
    c = mean.size
    width = repeat * c
    shift = np.zeros(width, x.dtype)
    first, second = np.empty(width), np.empty(width)
    for stop in (GROUP * width, x.size):
        part = x[:stop]
        for l in range(width):
            first[l] = second[l] = 0.0
        _add_powers(part, shift, first, second)
        _fold(first, mean)
        _fold(second, m2)
        n = part.size // c
        for k in range(c):
            m2[k] -= mean[k] * mean[k] / n
            mean[k] = shift[k] + mean[k] / n
        for l in range(width):
            shift[l] = mean[l % c]


@njit(**THREADED)
def _moments(x, repeat, chunk, mean, m2):
    if x.size < SPLIT:
        for k in range(mean.shape[0]):
            _moments_chunk(x[k * chunk : (k + 1) * chunk], repeat, mean[k], m2[k])
    else:
        for k in prange(mean.shape[0]):
            _moments_chunk(x[k * chunk : (k + 1) * chunk], repeat, mean[k], m2[k])


def channel_moments(mean, var, x):
    c = x.shape[-1]
    repeat, chunk, chunks = layout(x.size, c)
    means, m2 = np.empty((2, chunks, c))
    _moments(x.reshape(-1), repeat, chunk, means, m2)
    # Chan, Golub & LeVeque's merge, for all chunks at once: M2 = sum M2_k + sum n_k (mean_k - mean)^2.
    pixels = x.size // c
    count = np.minimum(chunk // c, pixels - np.arange(chunks) * (chunk // c))[:, None]  # (chunks, 1)
    total = (count * means).sum(axis=0) / pixels
    mean[...] = total
    var[...] = (m2 + count * (means - total) ** 2).sum(axis=0) / pixels


@njit(**SERIAL)
def _batch_norm_chunk(y, x, mean, factor, beta, lowest):
    width = mean.size
    for a in range(0, x.size, width):
        row, out = x[a : a + width], y[a : a + width]
        for l in range(row.size):
            v = (row[l] - mean[l]) * factor[l] + beta[l]  # mean first: with mean 1000, std 1 nothing cancels
            out[l] = lowest if v < lowest else v


@njit(**THREADED)
def _batch_norm(y, x, mean, factor, beta, lowest, chunk):
    if x.size < SPLIT:
        _batch_norm_chunk(y, x, mean, factor, beta, lowest)
    else:
        for k in prange((x.size + chunk - 1) // chunk):
            a, b = k * chunk, (k + 1) * chunk
            _batch_norm_chunk(y[a:b], x[a:b], mean, factor, beta, lowest)


def batch_norm(y, x, mean, var, gamma, beta, *, eps, activation):
    repeat, chunk, _ = layout(x.size, x.shape[-1])
    factor = (gamma / np.sqrt(var.astype(np.float64) + eps)).astype(x.dtype)
    lowest = x.dtype.type(-np.inf if activation is None else 0)
    vectors = (repeated(v, repeat) for v in (mean, factor, beta))
    _batch_norm(y.reshape(-1), x.reshape(-1), *vectors, lowest, chunk)


@njit(**SERIAL)
def _add_products(dy, x, mean, first, second):
    """first[l] += sum dy, second[l] += sum dy (x - mean) over the rows."""
    width = mean.size
    done = x.size // (GROUP * width) * (GROUP * width)
    for a in range(0, done, GROUP * width):
        rows = x[a : a + GROUP * width].reshape(GROUP, width)
        grads = dy[a : a + GROUP * width].reshape(GROUP, width)
        for l in range(width):
            s = q = x.dtype.type(0)
            for r in range(GROUP):
                s += grads[r, l]
                q += grads[r, l] * (rows[r, l] - mean[l])
            first[l] += s
            second[l] += q
    for a in range(done, x.size, width):
        row, grad = x[a : a + width], dy[a : a + width]
        for l in range(row.size):
            first[l] += grad[l]
            second[l] += grad[l] * (row[l] - mean[l])


@njit(**THREADED)
def _products(dy, x, mean, chunk, first, second):
    if x.size < SPLIT:
        for k in range(first.shape[0]):
            a, b = k * chunk, (k + 1) * chunk
            _add_products(dy[a:b], x[a:b], mean, first[k], second[k])
    else:
        for k in prange(first.shape[0]):
            a, b = k * chunk, (k + 1) * chunk
            _add_products(dy[a:b], x[a:b], mean, first[k], second[k])


@njit(**SERIAL)
def _batch_norm_grad_chunk(dx, dy, x, mean, factor, a, b):
    width = mean.size
    for i in range(0, x.size, width):
        out, grad, row = dx[i : i + width], dy[i : i + width], x[i : i + width]
        for l in range(row.size):
            out[l] = factor[l] * (grad[l] - a[l] - (row[l] - mean[l]) * b[l])


@njit(**THREADED)
def _batch_norm_grad(dx, dy, x, mean, factor, a, b, chunk):
    if x.size < SPLIT:
        _batch_norm_grad_chunk(dx, dy, x, mean, factor, a, b)
    else:
        for k in prange((x.size + chunk - 1) // chunk):
            i, j = k * chunk, (k + 1) * chunk
            _batch_norm_grad_chunk(dx[i:j], dy[i:j], x[i:j], mean, factor, a, b)


def batch_norm_grad(dx, dgamma, dbeta, dy, x, mean, var, gamma, *, eps, training):
    c = x.shape[-1]
    repeat, chunk, chunks = layout(x.size, c)
    dx, dy, x = dx.reshape(-1), dy.reshape(-1), x.reshape(-1)
    lanes = repeated(mean, repeat)
    sums = np.zeros((2, chunks, lanes.size))
    _products(dy, x, lanes, chunk, sums[0], sums[1])
    total, product = sums.sum(axis=1).reshape(2, repeat, c).sum(axis=1)  # sum dy, sum dy (x - mean), float64
    inverse = 1.0 / np.sqrt(var.astype(np.float64) + eps)
    dbeta[...] = total
    dgamma[...] = product * inverse
    # dx = factor (dy - a - (x - mean) b): mean(dy) and z mean(dy z) with z = (x - mean) inverse.
    pixels = x.size // c if training else np.inf
    vectors = gamma * inverse, total / pixels, product * inverse**2 / pixels
    factor, a, b = (repeated(v.astype(x.dtype), repeat) for v in vectors)
    _batch_norm_grad(dx, dy, x, lanes, factor, a, b, chunk)


@njit(**SERIAL)
def _scale_row(out, row, factor):
    for k in range(row.size):
        out[k] = factor * row[k]


@njit(**THREADED)
def _scale_rows(out, w, factor):
    if w.size < SPLIT:
        for o in range(factor.size):
            _scale_row(out[o], w[o], factor[o])
    else:
        for o in prange(factor.size):
            _scale_row(out[o], w[o], factor[o])


def fold_batch_norm(w_folded, b_folded, w, mean, var, gamma, beta, b=None, *, eps, axis):
    factor = gamma / np.sqrt(var.astype(np.float64) + eps)
    b_folded[...] = factor * (-mean if b is None else b - mean) + beta
    factor = factor.astype(w.dtype)  # NumPy's product of two dtypes, on one thread, took a tenth of an inference
    if axis == 0:
        _scale_rows(w_folded.reshape(factor.size, -1), w.reshape(factor.size, -1), factor)
        return
    repeat, chunk, _ = layout(w.size, factor.size)
    zero = np.zeros(repeat * factor.size, w.dtype)
    _batch_norm(w_folded.reshape(-1), w.reshape(-1), zero, repeated(factor, repeat), zero, w.dtype.type(-np.inf), chunk)
