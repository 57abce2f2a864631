"""Losses of two classes on the CPU: cross-entropy and focal loss on logits, overlap of probabilities.

One pass over memory, in chunks that depend on the size alone. Element i of a chunk is added to sum i mod `LANES`: the
loop over neighbours vectorises, and the sums have the same bits for any number of threads. Arithmetic is float64.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from minunet.backends.cpu.exponential import exp_parts
from minunet.backends.cpu.loops import CHUNK, SERIAL, SPLIT, THREADED
from minunet.jit import njit

LANES = 256  # three rows of sums are 6 KiB, beside 256 elements of each input: they stay in the L1 cache
_LN2 = math.log(2.0)
_ATANH = tuple(1.0 / (2 * n + 1) for n in range(11, -1, -1))


@njit(**SERIAL)
def _log1p(e):
    """log(1 + e) for 0 <= e <= 1, without a branch or a call, as exp_parts: loops around it vectorise.

    2 artanh(s) = 2 s (1 + s^2 / 3 + s^4 / 5 + ...), s = u / (2 + u), with u = e, or 1 + u = (1 + e) / 2 where e > 0.4:
    s^2 < 0.032, so that the term of s^24 is below the last digit.
    """
    upper = e > 0.4
    u = 0.5 * (e - 1.0) if upper else e
    s = u / (2.0 + u)
    square = s * s
    q = _ATANH[0]
    for n in range(1, 12):
        q = q * square + _ATANH[n]
    return (_LN2 if upper else 0.0) + 2.0 * s * q


@njit(**SERIAL)
def _exp(x):
    """exp(x) for x <= 0."""
    s, q = exp_parts(x)
    return s + s * q


@njit(**SERIAL)
def _cross_entropy_chunk(sums, x, target, weight_map, ignored):
    lanes, ones = np.zeros((3, LANES)), np.ones(LANES, x.dtype)
    loss, weight, counted = lanes[0], lanes[1], lanes[2]
    for a in range(0, x.size, LANES):
        xs, ts = x[a : a + LANES], target[a : a + LANES]
        ws = weight_map[a : a + LANES] if weight_map.size else ones
        for i in range(xs.size):
            v, t = np.float64(xs[i]), np.float64(ts[i])
            l = ws[i] * ((v if v > 0.0 else 0.0) - v * t + _log1p(_exp(-abs(v))))
            loss[i] += l if t != ignored else 0.0
        for i in range(ts.size):
            counts = ts[i] != ignored
            weight[i] += np.float64(ws[i]) if counts else 0.0
            counted[i] += 1.0 if counts else 0.0
    for k in range(3):
        sums[k] = lanes[k].sum()


@njit(**THREADED)
def _cross_entropy(sums, x, target, weight_map, ignored):
    if x.size < SPLIT:
        for k in range(sums.shape[0]):
            a, b = k * CHUNK, (k + 1) * CHUNK
            _cross_entropy_chunk(sums[k], x[a:b], target[a:b], weight_map[a:b], ignored)
    else:
        for k in prange(sums.shape[0]):
            a, b = k * CHUNK, (k + 1) * CHUNK
            _cross_entropy_chunk(sums[k], x[a:b], target[a:b], weight_map[a:b], ignored)


def _flat(x: np.ndarray, weight_map: np.ndarray | None) -> np.ndarray:
    """The weight map in one row; empty where missing."""
    return np.empty(0, x.dtype) if weight_map is None else weight_map.reshape(-1)


def parts(x: np.ndarray, n: int) -> np.ndarray:
    """Room for n sums of each chunk of x."""
    return np.empty((-(-x.size // CHUNK), n))


def reduce(loss: np.ndarray, factor: np.ndarray, total: float, divisor: float) -> None:
    """factor = 1 / divisor, or 0 where that is not positive; loss = factor total."""
    inverse = 1.0 / divisor if divisor > 0 else 0.0
    factor[...] = inverse
    loss[...] = total * inverse


def sigmoid_cross_entropy(loss, factor, logits, target, weight_map, *, ignore_index, reduction):
    each = parts(logits, 3)
    weights = _flat(logits, weight_map)
    _cross_entropy(each, logits.reshape(-1), target.reshape(-1), weights, float(ignore_index))
    total, weighted, counted = each.sum(axis=0)
    reduce(loss, factor, total, {"mean": counted, "sum": 1.0, "weighted": weighted}[reduction])


@njit(**SERIAL)
def _cross_entropy_grad_chunk(dx, x, target, weight_map, ignored, scale):
    ones = np.ones(LANES, x.dtype)
    for a in range(0, x.size, LANES):
        out, xs, ts = dx[a : a + LANES], x[a : a + LANES], target[a : a + LANES]
        ws = weight_map[a : a + LANES] if weight_map.size else ones
        for i in range(xs.size):
            v, t = np.float64(xs[i]), np.float64(ts[i])
            e = _exp(-abs(v))
            g = scale * ws[i] * ((1.0 if v >= 0.0 else e) / (1.0 + e) - t)
            out[i] = g if t != ignored else 0.0


@njit(**THREADED)
def _cross_entropy_grad(dx, x, target, weight_map, ignored, scale):
    n = x.size
    if n < SPLIT:
        _cross_entropy_grad_chunk(dx, x, target, weight_map, ignored, scale)
    else:
        for k in prange((n + CHUNK - 1) // CHUNK):
            a, b = k * CHUNK, (k + 1) * CHUNK
            _cross_entropy_grad_chunk(dx[a:b], x[a:b], target[a:b], weight_map[a:b], ignored, scale)


def sigmoid_cross_entropy_grad(dlogits, logits, target, dy, factor, weight_map, *, ignore_index):
    arrays = dlogits.reshape(-1), logits.reshape(-1), target.reshape(-1), _flat(logits, weight_map)
    _cross_entropy_grad(*arrays, float(ignore_index), dy.item() * factor.item())


@njit(**SERIAL)
def _focal_chunk(sums, x, target, gamma, alpha, ignored):
    """q^gamma is exp(-gamma log(1 + exp(z))), which shares its logarithm with log p_t: no power function."""
    lanes = np.zeros((2, LANES))
    loss, counted = lanes[0], lanes[1]
    for first in range(0, x.size, LANES):
        xs, ts = x[first : first + LANES], target[first : first + LANES]
        for i in range(xs.size):
            t = np.float64(ts[i])
            z = (2.0 * t - 1.0) * xs[i]
            log_sum = _log1p(_exp(-abs(z)))
            a = t * alpha + (1.0 - t) * (1.0 - alpha)
            power = _exp(-gamma * ((z if z > 0.0 else 0.0) + log_sum))
            l = a * power * ((0.0 if z > 0.0 else -z) + log_sum)
            counts = t != ignored
            loss[i] += l if counts else 0.0
            counted[i] += 1.0 if counts else 0.0
    for k in range(2):
        sums[k] = lanes[k].sum()


@njit(**THREADED)
def _focal(sums, x, target, gamma, alpha, ignored):
    if x.size < SPLIT:
        for k in range(sums.shape[0]):
            a, b = k * CHUNK, (k + 1) * CHUNK
            _focal_chunk(sums[k], x[a:b], target[a:b], gamma, alpha, ignored)
    else:
        for k in prange(sums.shape[0]):
            a, b = k * CHUNK, (k + 1) * CHUNK
            _focal_chunk(sums[k], x[a:b], target[a:b], gamma, alpha, ignored)


def focal_loss(loss, factor, logits, target, *, gamma, alpha, ignore_index, reduction):
    each = parts(logits, 2)
    _focal(each, logits.reshape(-1), target.reshape(-1), float(gamma), float(alpha), float(ignore_index))
    total, counted = each.sum(axis=0)
    reduce(loss, factor, total, counted if reduction == "mean" else 1.0)


@njit(**SERIAL)
def _focal_grad_chunk(dx, x, target, gamma, alpha, ignored, scale):
    for i in range(x.size):
        t = np.float64(target[i])
        s = 2.0 * t - 1.0
        z = s * x[i]
        e = _exp(-abs(z))
        log_sum, p, q = _log1p(e), (1.0 if z >= 0.0 else e) / (1.0 + e), (e if z >= 0.0 else 1.0) / (1.0 + e)
        a = t * alpha + (1.0 - t) * (1.0 - alpha)
        power = _exp(-gamma * ((z if z > 0.0 else 0.0) + log_sum))
        g = -scale * s * a * power * (gamma * p * ((0.0 if z > 0.0 else -z) + log_sum) + q)
        dx[i] = g if t != ignored else 0.0


@njit(**THREADED)
def _focal_grad(dx, x, target, gamma, alpha, ignored, scale):
    n = x.size
    if n < SPLIT:
        _focal_grad_chunk(dx, x, target, gamma, alpha, ignored, scale)
    else:
        for k in prange((n + CHUNK - 1) // CHUNK):
            a, b = k * CHUNK, (k + 1) * CHUNK
            _focal_grad_chunk(dx[a:b], x[a:b], target[a:b], gamma, alpha, ignored, scale)


def focal_loss_grad(dlogits, logits, target, dy, factor, *, gamma, alpha, ignore_index):
    arrays = dlogits.reshape(-1), logits.reshape(-1), target.reshape(-1)
    _focal_grad(*arrays, float(gamma), float(alpha), float(ignore_index), dy.item() * factor.item())


@njit(**SERIAL)
def _overlap_chunk(sums, p, target):
    lanes = np.zeros((3, LANES))
    both, first, second = lanes[0], lanes[1], lanes[2]
    for a in range(0, p.size, LANES):
        ps, ts = p[a : a + LANES], target[a : a + LANES]
        for i in range(ps.size):
            v, t = np.float64(ps[i]), np.float64(ts[i])
            both[i] += v * t
            first[i] += v
            second[i] += t
    for k in range(3):
        sums[k] = lanes[k].sum()


@njit(**THREADED)
def _overlap(sums, p, target):
    if p.size < SPLIT:
        for k in range(sums.shape[0]):
            _overlap_chunk(sums[k], p[k * CHUNK : (k + 1) * CHUNK], target[k * CHUNK : (k + 1) * CHUNK])
    else:
        for k in prange(sums.shape[0]):
            _overlap_chunk(sums[k], p[k * CHUNK : (k + 1) * CHUNK], target[k * CHUNK : (k + 1) * CHUNK])


def overlap(loss, slopes, p, target, *, kind, smooth):
    each = parts(p, 3)
    _overlap(each, p.reshape(-1), target.reshape(-1))
    both, first, second = each.sum(axis=0).tolist()
    dice = kind == "dice"
    u, v = ((2 * both if dice else both) + smooth), ((first + second if dice else first + second - both) + smooth)
    if v == 0:  # nothing there and nothing found
        loss[...], slopes[...] = 0.0, 0.0
    else:
        loss[...] = 1.0 - u / v
        slopes[...] = (-2.0 / v if dice else -(u + v) / v**2), u / v**2


@njit(**SERIAL)
def _overlap_grad_chunk(dp, target, a, b):
    for i in range(dp.size):
        dp[i] = a * target[i] + b


@njit(**THREADED)
def _overlap_grad(dp, target, a, b):
    n = dp.size
    if n < SPLIT:
        _overlap_grad_chunk(dp, target, a, b)
    else:
        for k in prange((n + CHUNK - 1) // CHUNK):
            i, j = k * CHUNK, (k + 1) * CHUNK
            _overlap_grad_chunk(dp[i:j], target[i:j], a, b)


def overlap_grad(dp, target, dy, slopes):
    scale, (a, b) = dy.item(), slopes.tolist()
    _overlap_grad(dp.reshape(-1), target.reshape(-1), scale * a, scale * b)
