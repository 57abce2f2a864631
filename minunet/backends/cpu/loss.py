"""Softmax and cross-entropy on the CPU. The other losses: loss_binary, loss_regression.

A pixel has 2 to some ten classes, too few for a vector loop and an awkward number besides. So `TILE` pixels are
taken at a time and turned to (K, TILE): every step (maximum, exp, sum) is a loop over pixels, and vectorises.
The arithmetic is float64 throughout; the logits are read once, and no probability is stored for the backward pass.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minunet.backends.cpu.exponential import exp_parts
from minunet.backends.cpu.loops import SERIAL, SPLIT, THREADED
from minunet.backends.cpu.loss_binary import (
    focal_loss,
    focal_loss_grad,
    overlap,
    overlap_grad,
    reduce,
    sigmoid_cross_entropy,
    sigmoid_cross_entropy_grad,
)
from minunet.backends.cpu.loss_regression import distance, distance_grad
from minunet.jit import njit

__all__ = [
    "distance",
    "distance_grad",
    "focal_loss",
    "focal_loss_grad",
    "overlap",
    "overlap_grad",
    "pixel_cross_entropy",
    "sigmoid_cross_entropy",
    "sigmoid_cross_entropy_grad",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_grad",
    "softmax_grad",
]

TILE = 128  # 21 classes: 21 KiB of scratch, within the L1 cache
PIXELS = 1 << 11  # pixels in a task: 9 tasks for 132 x 132; sums of tasks are added in the order of memory


@njit(**SERIAL)
def _exp_tile(x, e, top, total):
    """e[k, i] = exp(x[i, k] - top[i]), top[i] = max_k x[i, k], total[i] = sum_k e[k, i]; x (up to TILE, K)."""
    pixels, classes = x.shape
    for k in range(classes):
        column = e[k]
        for i in range(pixels):
            column[i] = x[i, k]
    first = e[0]
    for i in range(pixels):
        top[i] = first[i]
        total[i] = 0.0
    for k in range(1, classes):
        column = e[k]
        for i in range(pixels):
            top[i] = column[i] if column[i] > top[i] else top[i]
    for k in range(classes):
        column = e[k]
        for i in range(pixels):
            s, q = exp_parts(column[i] - top[i])
            v = s + s * q
            column[i] = v
            total[i] += v


@njit(**SERIAL)
def _softmax_task(y, x, t):
    classes = x.shape[1]
    e, top, total = np.empty((classes, TILE)), np.empty(TILE), np.empty(TILE)
    for a in range(t * PIXELS, min((t + 1) * PIXELS, x.shape[0]), TILE):
        tile, out = x[a : a + TILE], y[a : a + TILE]
        _exp_tile(tile, e, top, total)
        for i in range(out.shape[0]):
            total[i] = 1.0 / total[i]
        for k in range(classes):
            column = e[k]
            for i in range(out.shape[0]):
                out[i, k] = column[i] * total[i]


@njit(**THREADED)
def _softmax(y, x, tasks):
    if x.size < SPLIT:
        for t in range(tasks):
            _softmax_task(y, x, t)
    else:
        for t in prange(tasks):
            _softmax_task(y, x, t)


def _pixels(x: np.ndarray) -> tuple[np.ndarray, int]:
    """x as (pixels, K), and the number of tasks."""
    flat = x.reshape(-1, x.shape[-1])
    return flat, -(-flat.shape[0] // PIXELS)


def softmax(y, x):
    flat, tasks = _pixels(x)
    _softmax(y.reshape(flat.shape), flat, tasks)


@njit(**SERIAL)
def _softmax_grad_task(dx, dy, y, t):
    for i in range(t * PIXELS, min((t + 1) * PIXELS, y.shape[0])):
        out, g, p = dx[i], dy[i], y[i]
        mean = 0.0
        for k in range(p.size):
            mean += np.float64(g[k]) * p[k]
        for k in range(p.size):
            out[k] = p[k] * (g[k] - mean)


@njit(**THREADED)
def _softmax_grad(dx, dy, y, tasks):
    if y.size < SPLIT:
        for t in range(tasks):
            _softmax_grad_task(dx, dy, y, t)
    else:
        for t in prange(tasks):
            _softmax_grad_task(dx, dy, y, t)


def softmax_grad(dx, dy, y):
    flat, tasks = _pixels(y)
    _softmax_grad(dx.reshape(flat.shape), dy.reshape(flat.shape), flat, tasks)


@njit(**SERIAL)
def _weight(target, weight_map, class_weight, p):
    """w_p of a counted pixel; an empty weight map is a map of ones."""
    w = np.float64(class_weight[target[p]])
    return w * weight_map[p] if weight_map.size else w


@njit(**SERIAL)
def _loss_task(sums, x, target, weight_map, class_weight, ignore_index, t):
    """sums[t] = (sum w l, sum w, pixels counted, pixels whose target is no class)."""
    classes = x.shape[1]
    e, top, total = np.empty((classes, TILE)), np.empty(TILE), np.empty(TILE)
    loss = weight = counted = wrong = 0.0
    for a in range(t * PIXELS, min((t + 1) * PIXELS, x.shape[0]), TILE):
        tile = x[a : a + TILE]
        _exp_tile(tile, e, top, total)
        for i in range(tile.shape[0]):
            k = target[a + i]
            if k == ignore_index:
                continue
            if k < 0 or k >= classes:
                wrong += 1.0
                continue
            w = _weight(target, weight_map, class_weight, a + i)
            loss += w * (np.log(total[i]) + (top[i] - tile[i, k]))
            weight += w
            counted += 1.0
    out = sums[t]
    out[0], out[1], out[2], out[3] = loss, weight, counted, wrong


@njit(**THREADED)
def _loss(sums, x, target, weight_map, class_weight, ignore_index):
    if x.size < SPLIT:
        for t in range(sums.shape[0]):
            _loss_task(sums, x, target, weight_map, class_weight, ignore_index, t)
    else:
        for t in prange(sums.shape[0]):
            _loss_task(sums, x, target, weight_map, class_weight, ignore_index, t)


def _weights(logits, weight_map, class_weight) -> tuple[np.ndarray, np.ndarray]:
    """The weight map, flat (empty where missing), and one weight per class."""
    if class_weight is None:
        class_weight = np.ones(logits.shape[-1], logits.dtype)
    return np.empty(0, logits.dtype) if weight_map is None else weight_map.reshape(-1), class_weight


def _check_targets(wrong: float, target: np.ndarray, classes: int, ignore_index: int) -> None:
    if wrong:
        odd = target[(target != ignore_index) & ((target < 0) | (target >= classes))]
        raise ValueError(
            f"softmax_cross_entropy: {odd.size} targets are no class of 0..{classes - 1} and not ignore_index"
            f" ({ignore_index}), for example {odd[0]}"
        )


def softmax_cross_entropy(loss, factor, logits, target, weight_map, class_weight, *, ignore_index, reduction):
    flat, tasks = _pixels(logits)
    parts = np.empty((tasks, 4))
    _loss(parts, flat, target.reshape(-1), *_weights(logits, weight_map, class_weight), ignore_index)
    total, weighted, counted, wrong = parts.sum(axis=0)
    _check_targets(wrong, target, flat.shape[1], ignore_index)
    reduce(loss, factor, total, {"mean": counted, "sum": 1.0, "weighted": weighted}[reduction])


@njit(**SERIAL)
def _loss_grad_task(dx, x, target, weight_map, class_weight, ignore_index, scale, wrong, t):
    classes = x.shape[1]
    e, top, total = np.empty((classes, TILE)), np.empty(TILE), np.empty(TILE)
    wrong[t] = 0
    for a in range(t * PIXELS, min((t + 1) * PIXELS, x.shape[0]), TILE):
        tile, out = x[a : a + TILE], dx[a : a + TILE]
        _exp_tile(tile, e, top, total)
        for i in range(out.shape[0]):
            k = target[a + i]
            if 0 <= k < classes and k != ignore_index:
                w = scale * _weight(target, weight_map, class_weight, a + i)
                top[i] = w
                total[i] = w / total[i]
            else:
                wrong[t] += k != ignore_index
                top[i] = 0.0  # its logits may be infinite or NaN: the gradient is 0 all the same
                total[i] = 0.0
        for k in range(classes):
            column = e[k]
            for i in range(out.shape[0]):
                v = column[i] * total[i] - (top[i] if target[a + i] == k else 0.0)
                out[i, k] = v if top[i] != 0.0 else 0.0


@njit(**THREADED)
def _loss_grad(dx, x, target, weight_map, class_weight, ignore_index, scale, wrong):
    if x.size < SPLIT:
        for t in range(wrong.size):
            _loss_grad_task(dx, x, target, weight_map, class_weight, ignore_index, scale, wrong, t)
    else:
        for t in prange(wrong.size):
            _loss_grad_task(dx, x, target, weight_map, class_weight, ignore_index, scale, wrong, t)


def softmax_cross_entropy_grad(dlogits, logits, target, dy, factor, weight_map, class_weight, *, ignore_index):
    flat, tasks = _pixels(logits)
    wrong = np.empty(tasks, np.int64)
    weights = _weights(logits, weight_map, class_weight)
    scale = dy.item() * factor.item()
    _loss_grad(dlogits.reshape(flat.shape), flat, target.reshape(-1), *weights, ignore_index, scale, wrong)
    _check_targets(wrong.any(), target, flat.shape[1], ignore_index)


@njit(**SERIAL)
def _pixel_loss_task(loss, x, target, ignore_index, wrong, t):
    classes = x.shape[1]
    e, top, total = np.empty((classes, TILE)), np.empty(TILE), np.empty(TILE)
    wrong[t] = 0
    for a in range(t * PIXELS, min((t + 1) * PIXELS, x.shape[0]), TILE):
        tile = x[a : a + TILE]
        _exp_tile(tile, e, top, total)
        for i in range(tile.shape[0]):
            k = target[a + i]
            if 0 <= k < classes and k != ignore_index:
                loss[a + i] = np.log(total[i]) + (top[i] - tile[i, k])
            else:
                wrong[t] += k != ignore_index
                loss[a + i] = -1.0


@njit(**THREADED)
def _pixel_loss(loss, x, target, ignore_index, wrong):
    if x.size < SPLIT:
        for t in range(wrong.size):
            _pixel_loss_task(loss, x, target, ignore_index, wrong, t)
    else:
        for t in prange(wrong.size):
            _pixel_loss_task(loss, x, target, ignore_index, wrong, t)


def pixel_cross_entropy(loss, logits, target, *, ignore_index):
    flat, tasks = _pixels(logits)
    wrong = np.empty(tasks, np.int64)
    _pixel_loss(loss.reshape(-1), flat, target.reshape(-1), ignore_index, wrong)
    _check_targets(wrong.any(), target, flat.shape[1], ignore_index)
