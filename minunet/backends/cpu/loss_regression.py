"""Losses of a difference on the CPU. How sums are added: loss_binary."""

from __future__ import annotations

import numpy as np
from numba import prange

from minunet.backends.cpu.loops import CHUNK, SERIAL, SPLIT, THREADED
from minunet.backends.cpu.loss_binary import LANES, parts
from minunet.jit import njit

MSE, MAE, SMOOTH_L1 = range(3)
KINDS = {"mse": MSE, "mae": MAE, "smooth_l1": SMOOTH_L1}


@njit(**SERIAL)
def _distance_chunk(kind, x, target):
    sums = np.zeros(LANES)
    for a in range(0, x.size, LANES):
        xs, ts = x[a : a + LANES], target[a : a + LANES]
        if kind == MSE:
            for i in range(xs.size):
                d = np.float64(xs[i]) - ts[i]
                sums[i] += d * d
        elif kind == MAE:
            for i in range(xs.size):
                sums[i] += abs(np.float64(xs[i]) - ts[i])
        else:
            for i in range(xs.size):
                d = abs(np.float64(xs[i]) - ts[i])
                sums[i] += 0.5 * d * d if d < 1.0 else d - 0.5
    return sums.sum()


@njit(**THREADED)
def _distance(sums, kind, x, target):
    if x.size < SPLIT:
        for k in range(sums.shape[0]):
            a, b = k * CHUNK, (k + 1) * CHUNK
            sums[k, 0] = _distance_chunk(kind, x[a:b], target[a:b])
    else:
        for k in prange(sums.shape[0]):
            a, b = k * CHUNK, (k + 1) * CHUNK
            sums[k, 0] = _distance_chunk(kind, x[a:b], target[a:b])


def distance(loss, x, target, *, kind):
    each = parts(x, 1)
    _distance(each, KINDS[kind], x.reshape(-1), target.reshape(-1))
    loss[...] = each.sum() * (1.0 / x.size)


@njit(**SERIAL)
def _distance_grad_chunk(kind, dx, x, target, scale):
    if kind == MSE:
        for i in range(dx.size):
            dx[i] = 2.0 * scale * (np.float64(x[i]) - target[i])
    elif kind == MAE:
        for i in range(dx.size):
            d = np.float64(x[i]) - target[i]
            dx[i] = scale if d > 0.0 else -scale if d < 0.0 else scale * d  # 0, or NaN
    else:
        for i in range(dx.size):
            d = np.float64(x[i]) - target[i]
            dx[i] = scale * (1.0 if d > 1.0 else -1.0 if d < -1.0 else d)


@njit(**THREADED)
def _distance_grad(kind, dx, x, target, scale):
    n = dx.size
    if n < SPLIT:
        _distance_grad_chunk(kind, dx, x, target, scale)
    else:
        for k in prange((n + CHUNK - 1) // CHUNK):
            a, b = k * CHUNK, (k + 1) * CHUNK
            _distance_grad_chunk(kind, dx[a:b], x[a:b], target[a:b], scale)


def distance_grad(dx, x, target, dy, *, kind):
    _distance_grad(KINDS[kind], dx.reshape(-1), x.reshape(-1), target.reshape(-1), dy.item() / x.size)
