"""Batch normalisation on the CPU, in rows of lanes (see `loops.layout`).

Sums: eight rows are added in registers, in the array's dtype; the result is added to one float64 per lane. At the
end of a chunk the lanes of a channel are folded, and the chunks are joined in the order of memory. No sum depends on
the number of threads. The arithmetic per channel is compiled too: in NumPy it took longer than small maps.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minunet.backends.cpu.loops import ENTRY, GROUP, SERIAL, SPLIT, THREADED, layout, repeated
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


@njit(**ENTRY)
def _channel_moments(mean, var, x, repeat, chunk, chunks):
    """Chan, Golub & LeVeque's merge, for all chunks at once: M2 = sum M2_k + sum n_k (mean_k - mean)^2."""
    c = mean.size
    means, m2 = np.empty((chunks, c)), np.empty((chunks, c))
    _moments(x, repeat, chunk, means, m2)
    pixels, most = x.size // c, chunk // c
    for k in range(c):
        total = distances = 0.0
        for i in range(chunks):
            total += min(most, pixels - i * most) * means[i, k]
        total /= pixels
        for i in range(chunks):
            d = means[i, k] - total
            distances += m2[i, k] + min(most, pixels - i * most) * (d * d)
        mean[k] = total
        var[k] = distances / pixels


def channel_moments(mean, var, x):
    _channel_moments(mean, var, x.reshape(-1), *layout(x.size, x.shape[-1]))


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


@njit(**ENTRY)
def _normalize(y, x, mean, var, gamma, beta, eps, lowest, repeat, chunk):
    c = mean.size
    lanes = np.empty((3, repeat * c), x.dtype)
    for l in range(repeat * c):
        k = l % c
        lanes[0, l] = mean[k]
        lanes[1, l] = gamma[k] / np.sqrt(np.float64(var[k]) + eps)
        lanes[2, l] = beta[k]
    _batch_norm(y, x, lanes[0], lanes[1], lanes[2], lowest, chunk)


def batch_norm(y, x, mean, var, gamma, beta, *, eps, activation):
    repeat, chunk, _ = layout(x.size, x.shape[-1])
    lowest = x.dtype.type(-np.inf if activation is None else 0)
    _normalize(y.reshape(-1), x.reshape(-1), mean, var, gamma, beta, eps, lowest, repeat, chunk)


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


@njit(**ENTRY)
def _gradients(dx, dgamma, dbeta, dy, x, mean, var, gamma, eps, training, repeat, chunk, chunks):
    """dx = factor (dy - a - (x - mean) b): a = mean(dy) and b from z mean(dy z), z = (x - mean) inverse."""
    c = mean.size
    width, pixels = repeat * c, x.size // c
    lanes = np.empty((4, width), x.dtype)  # mean, factor, a, b
    first, second = np.zeros((chunks, width)), np.zeros((chunks, width))
    for l in range(width):
        lanes[0, l] = mean[l % c]
    _products(dy, x, lanes[0], chunk, first, second)
    for i in range(1, chunks):
        for l in range(width):
            first[0, l] += first[i, l]
            second[0, l] += second[i, l]
    total, product = np.empty(c), np.empty(c)  # sum dy, sum dy (x - mean)
    _fold(first[0], total)
    _fold(second[0], product)
    for k in range(c):
        inverse = 1.0 / np.sqrt(np.float64(var[k]) + eps)
        dbeta[k] = total[k]
        dgamma[k] = product[k] * inverse
        for l in range(k, width, c):
            lanes[1, l] = gamma[k] * inverse
            lanes[2, l] = total[k] / pixels if training else 0.0
            lanes[3, l] = product[k] * (inverse * inverse) / pixels if training else 0.0
    _batch_norm_grad(dx, dy, x, lanes[0], lanes[1], lanes[2], lanes[3], chunk)


def batch_norm_grad(dx, dgamma, dbeta, dy, x, mean, var, gamma, *, eps, training):
    flat = (a.reshape(-1) for a in (dy, x))
    sizes = layout(x.size, x.shape[-1])
    _gradients(dx.reshape(-1), dgamma, dbeta, *flat, mean, var, gamma, eps, bool(training), *sizes)


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


@njit(**ENTRY)
def _fold_vectors(factor, b_folded, shift, var, gamma, beta, eps):
    for k in range(gamma.size):
        f = gamma[k] / np.sqrt(np.float64(var[k]) + eps)
        factor[k] = f
        b_folded[k] = beta[k] - f * shift[k]


def fold_batch_norm(w_folded, b_folded, w, mean, var, gamma, beta, b=None, *, eps, axis):
    factor = np.empty(gamma.size, w.dtype)
    _fold_vectors(factor, b_folded, mean if b is None else mean - b, var, gamma, beta, eps)
    if axis == 0:
        _scale_rows(w_folded.reshape(factor.size, -1), w.reshape(factor.size, -1), factor)
        return
    repeat, chunk, _ = layout(w.size, factor.size)
    zero = np.zeros(repeat * factor.size, w.dtype)
    _batch_norm(w_folded.reshape(-1), w.reshape(-1), zero, repeated(factor, repeat), zero, w.dtype.type(-np.inf), chunk)
