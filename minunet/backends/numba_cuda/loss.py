"""Losses: kernels/numba_cuda/loss.py, and loss_sums.py for those that are sums over elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.backends.numba_cuda.launch import Device, ceil_div, flat, launch, matrix, optional, real
from minunet.backends.numba_cuda.library import sizes

FILE, SUMS = "loss", "loss_sums"
DISTANCES = {"mse": 0, "mae": 1, "smooth_l1": 2}  # MSE, MAE, SMOOTH_L1 of loss_sums.py
OVERLAPS = {"dice": 0, "jaccard": 1}  # DICE, JACCARD of loss_sums.py


def softmax(device, y, x):
    flat(device, FILE, "softmax", x.size // x.shape[-1], matrix(y), matrix(x))


def softmax_grad(device, dx, dy, y):
    flat(device, FILE, "softmax_grad", y.size // y.shape[-1], matrix(dx), matrix(dy), matrix(y))


def _weighted(logits: Any, target: Any, weight_map: Any, class_weight: Any) -> tuple[Any, ...]:
    """logits, target, weight map, class weights, and whether each of those is there."""
    weights, mapped = optional(weight_map, logits)
    classes, classed = optional(class_weight, logits)
    return matrix(logits), target.reshape(-1), weights.reshape(-1), classes, mapped, classed


REDUCTION = {"mean": 2, "sum": -1, "weighted": 1}  # which sum divides, -1: none


def softmax_cross_entropy(
    device, loss, factor, logits, target, weight_map=None, class_weight=None, *, ignore_index, reduction
):
    arguments = (*_weighted(logits, target, weight_map, class_weight), ignore_index)
    partial = _sums(device, FILE, "softmax_cross_entropy_partial", 3, target.size, *arguments)
    _reduce(device, loss, factor, partial, REDUCTION[reduction])


def softmax_cross_entropy_grad(
    device, dlogits, logits, target, dy, factor, weight_map=None, class_weight=None, *, ignore_index
):
    x, t, *weights = _weighted(logits, target, weight_map, class_weight)
    arguments = (matrix(dlogits), x, t, *_flat(dy, factor), *weights, ignore_index)
    flat(device, FILE, "softmax_cross_entropy_grad", target.size, *arguments)


def pixel_cross_entropy(device, loss, logits, target, *, ignore_index):
    arguments = (loss.reshape(-1), matrix(logits), target.reshape(-1), ignore_index)
    flat(device, FILE, "pixel_cross_entropy", target.size, *arguments)


def _sums(device: Device, stem: str, kernel: str, sums: int, n: int, *arguments: Any) -> Any:
    """(blocks, sums), by a kernel (partial, ...) over n elements that leaves each block's."""
    s = sizes()
    blocks = max(1, min(s.MOST_PARTS, ceil_div(n, s.THREADS)))
    partial = device.empty((blocks, sums), np.float64)
    launch(device, stem, kernel, blocks, s.THREADS, partial, *arguments)
    return partial


def _reduce(device: Device, loss: Any, factor: Any, partial: Any, divisor: int, count: int = 1) -> None:
    """loss = factor times the first sum, factor = 1 / sum number `divisor`; 1 / count where that is -1."""
    launch(device, SUMS, "loss_finish", 1, sizes().THREADS, *_flat(loss, factor), partial, divisor, count)


def _flat(*arrays: Any) -> tuple[Any, ...]:
    return tuple(a.reshape(-1) for a in arrays)


def sigmoid_cross_entropy(device, loss, factor, logits, target, weight_map=None, *, ignore_index, reduction):
    weights, mapped = optional(weight_map, logits)
    arguments = (*_flat(logits, target, weights), mapped, *real(logits, ignore_index))
    partial = _sums(device, SUMS, "sigmoid_cross_entropy_partial", 3, logits.size, *arguments)
    _reduce(device, loss, factor, partial, REDUCTION[reduction])


def sigmoid_cross_entropy_grad(device, dlogits, logits, target, dy, factor, weight_map=None, *, ignore_index):
    weights, mapped = optional(weight_map, logits)
    arguments = (*_flat(dlogits, logits, target, dy, factor, weights), mapped, *real(logits, ignore_index))
    flat(device, SUMS, "sigmoid_cross_entropy_grad", logits.size, *arguments)


def focal_loss(device, loss, factor, logits, target, *, gamma, alpha, ignore_index, reduction):
    arguments = (*_flat(logits, target), *real(logits, gamma, alpha, ignore_index))
    partial = _sums(device, SUMS, "focal_loss_partial", 2, logits.size, *arguments)
    _reduce(device, loss, factor, partial, 1 if reduction == "mean" else -1)


def focal_loss_grad(device, dlogits, logits, target, dy, factor, *, gamma, alpha, ignore_index):
    arguments = (*_flat(dlogits, logits, target, dy, factor), *real(logits, gamma, alpha, ignore_index))
    flat(device, SUMS, "focal_loss_grad", logits.size, *arguments)


def overlap(device, loss, slopes, p, target, *, kind, smooth):
    partial = _sums(device, SUMS, "overlap_partial", 3, p.size, *_flat(p, target))
    arguments = (*_flat(loss, slopes), partial, OVERLAPS[kind], np.float64(smooth))
    launch(device, SUMS, "overlap_finish", 1, sizes().THREADS, *arguments)


def overlap_grad(device, dp, target, dy, slopes):
    flat(device, SUMS, "overlap_grad", dp.size, *_flat(dp, target, dy, slopes))


def distance(device, loss, x, target, *, kind):
    partial = _sums(device, SUMS, "distance_partial", 1, x.size, *_flat(x, target), DISTANCES[kind])
    _reduce(device, loss, device.empty((1,), loss.dtype), partial, -1, x.size)


def distance_grad(device, dx, x, target, dy, *, kind):
    flat(device, SUMS, "distance_grad", dx.size, *_flat(dx, x, target, dy), DISTANCES[kind], *real(dx, 1 / x.size))
