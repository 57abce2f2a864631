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
def _repeat(lanes, v):
    """lanes[l] = v[l % v.size], without the divisions, which took a quarter of the time of a chunk."""
    for a in range(0, lanes.size, v.size):
        row = lanes[a : a + v.size]
        for k in range(v.size):
            row[k] = v[k]


@njit(**SERIAL)
def _factors(out, gamma, var, eps):
    """out[c] = gamma[c] / sqrt(var[c] + eps)."""
    for k in range(gamma.size):
        out[k] = gamma[k] / np.sqrt(np.float64(var[k]) + eps)


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
        _repeat(shift, mean)


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
    factor, lanes = np.empty(c, x.dtype), np.empty((3, repeat * c), x.dtype)
    _factors(factor, gamma, var, eps)
    _repeat(lanes[0], mean)
    _repeat(lanes[1], factor)
    _repeat(lanes[2], beta)
    _batch_norm(y, x, lanes[0], lanes[1], lanes[2], lowest, chunk)


def batch_norm(y, x, mean, var, gamma, beta, *, eps, activation):
    repeat, chunk, _ = layout(x.size, x.shape[-1])
    lowest = x.dtype.type(-np.inf if activation is None else 0)
    _normalize(y.reshape(-1), x.reshape(-1), mean, var, gamma, beta, eps, lowest, repeat, chunk)


@njit(**SERIAL)
def _passed(dy, d, l, factor, beta):
    """dy of lane l behind a ReLU of factor d + beta, d = x - mean, the number that `_batch_norm_chunk` had.

    To compute it again costs less than y, a third array that would come from memory. Without a ReLU beta is None,
    which Numba knows when it compiles: then nothing is left of this.
    """
    if beta is None:
        return dy
    return dy if d * factor[l] + beta[l] > 0 else type(dy)(0)


@njit(**SERIAL)
def _add_products(dy, x, mean, factor, beta, first, second):
    """first[l] += sum dy, second[l] += sum dy (x - mean) over the rows, dy being `_passed`."""
    width = mean.size
    done = x.size // (GROUP * width) * (GROUP * width)
    for a in range(0, done, GROUP * width):
        rows = x[a : a + GROUP * width].reshape(GROUP, width)
        grads = dy[a : a + GROUP * width].reshape(GROUP, width)
        for l in range(width):
            s = q = x.dtype.type(0)
            for r in range(GROUP):
                d = rows[r, l] - mean[l]
                g = _passed(grads[r, l], d, l, factor, beta)
                s += g
                q += g * d
            first[l] += s
            second[l] += q
    for a in range(done, x.size, width):
        row, grad = x[a : a + width], dy[a : a + width]
        for l in range(row.size):
            d = row[l] - mean[l]
            g = _passed(grad[l], d, l, factor, beta)
            first[l] += g
            second[l] += g * d


@njit(**SERIAL)
def _products_chunk(dy, x, mean, factor, beta, total, product):
    """total[c] = sum dy, product[c] = sum dy (x - mean) of one chunk."""
    first, second = np.zeros(mean.size), np.zeros(mean.size)
    _add_products(dy, x, mean, factor, beta, first, second)
    _fold(first, total)
    _fold(second, product)


@njit(**THREADED)
def _products(dy, x, mean, factor, beta, chunk, total, product):
    if x.size < SPLIT:
        for k in range(total.shape[0]):
            a, b = k * chunk, (k + 1) * chunk
            _products_chunk(dy[a:b], x[a:b], mean, factor, beta, total[k], product[k])
    else:
        for k in prange(total.shape[0]):
            a, b = k * chunk, (k + 1) * chunk
            _products_chunk(dy[a:b], x[a:b], mean, factor, beta, total[k], product[k])


@njit(**SERIAL)
def _batch_norm_grad_chunk(dx, dy, x, mean, factor, beta, a, b):
    width = mean.size
    for i in range(0, x.size, width):
        out, grad, row = dx[i : i + width], dy[i : i + width], x[i : i + width]
        for l in range(row.size):
            d = row[l] - mean[l]
            out[l] = factor[l] * (_passed(grad[l], d, l, factor, beta) - a[l] - d * b[l])


@njit(**THREADED)
def _batch_norm_grad(dx, dy, x, mean, factor, beta, a, b, chunk):
    if x.size < SPLIT:
        _batch_norm_grad_chunk(dx, dy, x, mean, factor, beta, a, b)
    else:
        for k in prange((x.size + chunk - 1) // chunk):
            i, j = k * chunk, (k + 1) * chunk
            _batch_norm_grad_chunk(dx[i:j], dy[i:j], x[i:j], mean, factor, beta, a, b)


@njit(**ENTRY)
def _gradients(dx, dgamma, dbeta, dy, x, mean, var, gamma, beta, eps, training, repeat, chunk, chunks):
    """dx = factor (dy - a - (x - mean) b): a = mean(dy) and b from z mean(dy z), z = (x - mean) inverse."""
    c = mean.size
    width, pixels = repeat * c, x.size // c
    lanes = np.empty((4, width), x.dtype)  # mean, factor, a, b
    rows = np.empty((3, c), x.dtype)  # factor, a, b
    _factors(rows[0], gamma, var, eps)
    _repeat(lanes[0], mean)
    _repeat(lanes[1], rows[0])
    if beta is None:
        shift = None
    else:
        shift = np.empty(width, x.dtype)
        _repeat(shift, beta)
    total, product = np.empty((chunks, c)), np.empty((chunks, c))  # sum dy, sum dy (x - mean)
    _products(dy, x, lanes[0], lanes[1], shift, chunk, total, product)
    for k in range(c):
        for i in range(1, chunks):
            total[0, k] += total[i, k]
            product[0, k] += product[i, k]
        inverse = 1.0 / np.sqrt(np.float64(var[k]) + eps)
        dbeta[k] = total[0, k]
        dgamma[k] = product[0, k] * inverse
        rows[1, k] = total[0, k] / pixels if training else 0.0
        rows[2, k] = product[0, k] * (inverse * inverse) / pixels if training else 0.0
    _repeat(lanes[2], rows[1])
    _repeat(lanes[3], rows[2])
    _batch_norm_grad(dx, dy, x, lanes[0], lanes[1], shift, lanes[2], lanes[3], chunk)


def batch_norm_grad(dx, dgamma, dbeta, dy, x, mean, var, gamma, beta=None, *, eps, training):
    arrays = (dx.reshape(-1), dgamma, dbeta, dy.reshape(-1), x.reshape(-1), mean, var, gamma, beta)
    _gradients(*arrays, eps, bool(training), *layout(x.size, x.shape[-1]))


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
