"""Losses: kernels/numba_cuda/loss.py, and loss_sums.py for those that are sums over elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.backends.numba_cuda.launch import Device, ceil_div, flat, launch, matrix, optional, real
from minunet.backends.numba_cuda.library import sizes

FILE, SUMS = "loss", "loss_sums"
DISTANCES = {"mse": 0, "mae": 1, "smooth_l1": 2}  # MSE, MAE, SMOOTH_L1 of loss_sums.py


def softmax(device, y, x):
    flat(device, FILE, "softmax", x.size // x.shape[-1], matrix(y), matrix(x))


def softmax_grad(device, dx, dy, y):
    flat(device, FILE, "softmax_grad", y.size // y.shape[-1], matrix(dx), matrix(dy), matrix(y))


def _weighted(logits: Any, target: Any, weight_map: Any, class_weight: Any) -> tuple[Any, ...]:
    """logits, target, weight map, class weights, and whether each of those is there."""
    weights, mapped = optional(weight_map, logits)
    classes, classed = optional(class_weight, logits)
    return matrix(logits), target.reshape(-1), weights.reshape(-1), classes, mapped, classed


def softmax_cross_entropy(device, sums, logits, target, weight_map=None, class_weight=None, *, ignore_index):
    arguments = (*_weighted(logits, target, weight_map, class_weight), ignore_index)
    _sums(device, FILE, "softmax_cross_entropy_partial", sums, target.size, *arguments)


def softmax_cross_entropy_grad(
    device, dlogits, logits, target, weight_map=None, class_weight=None, *, ignore_index, scale
):
    arguments = (*_weighted(logits, target, weight_map, class_weight), ignore_index, *real(logits, scale))
    flat(device, FILE, "softmax_cross_entropy_grad", target.size, matrix(dlogits), *arguments)


def pixel_cross_entropy(device, loss, logits, target, *, ignore_index):
    arguments = (loss.reshape(-1), matrix(logits), target.reshape(-1), ignore_index)
    flat(device, FILE, "pixel_cross_entropy", target.size, *arguments)


def _sums(device: Device, stem: str, kernel: str, sums: Any, n: int, *arguments: Any) -> None:
    """sums, by a kernel (partial, ...) over n elements that leaves each block's, and one that adds those."""
    s = sizes()
    blocks = max(1, min(s.MOST_PARTS, ceil_div(n, s.THREADS)))
    partial = device.empty((blocks, sums.size), np.float64)
    launch(device, stem, kernel, blocks, s.THREADS, partial, *arguments)
    launch(device, SUMS, "sums_finish", 1, s.THREADS, sums, partial)


def _flat(*arrays: Any) -> tuple[Any, ...]:
    return tuple(a.reshape(-1) for a in arrays)


def sigmoid_cross_entropy(device, sums, logits, target, weight_map=None, *, ignore_index):
    weights, mapped = optional(weight_map, logits)
    arguments = (*_flat(logits, target, weights), mapped, *real(logits, ignore_index))
    _sums(device, SUMS, "sigmoid_cross_entropy_partial", sums, logits.size, *arguments)


def sigmoid_cross_entropy_grad(device, dlogits, logits, target, weight_map=None, *, ignore_index, scale):
    weights, mapped = optional(weight_map, logits)
    arguments = (*_flat(dlogits, logits, target, weights), mapped, *real(logits, ignore_index, scale))
    flat(device, SUMS, "sigmoid_cross_entropy_grad", logits.size, *arguments)


def focal_loss(device, sums, logits, target, *, gamma, alpha, ignore_index):
    arguments = (*_flat(logits, target), *real(logits, gamma, alpha, ignore_index))
    _sums(device, SUMS, "focal_loss_partial", sums, logits.size, *arguments)


def focal_loss_grad(device, dlogits, logits, target, *, gamma, alpha, ignore_index, scale):
    arguments = (*_flat(dlogits, logits, target), *real(logits, gamma, alpha, ignore_index, scale))
    flat(device, SUMS, "focal_loss_grad", logits.size, *arguments)


def overlap(device, sums, p, target):
    _sums(device, SUMS, "overlap_partial", sums, p.size, *_flat(p, target))


def overlap_grad(device, dp, target, *, a, b):
    flat(device, SUMS, "overlap_grad", dp.size, *_flat(dp, target), *real(dp, a, b))


def distance(device, sums, x, target, *, kind):
    _sums(device, SUMS, "distance_partial", sums, x.size, *_flat(x, target), DISTANCES[kind])


def distance_grad(device, dx, x, target, *, kind, scale):
    flat(device, SUMS, "distance_grad", dx.size, *_flat(dx, x, target), DISTANCES[kind], *real(dx, scale))
