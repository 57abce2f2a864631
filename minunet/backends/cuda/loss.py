"""Losses: kernels/cuda/loss.cu, and loss_sums.cu for those that are sums over elements."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from minunet.backends.cuda.columns import lanes_of
from minunet.backends.cuda.launch import THREADS, Device, ceil_div, flat_grid, launch, vectors

FILE, SUMS = "loss.cu", "loss_sums.cu"
MOST_PARTS = 1024  # blocks that leave partial sums for a last block to add
DISTANCES = {"mse": 0, "mae": 1, "smooth_l1": 2}  # codes of distance_partial
OVERLAPS = {"dice": 0, "jaccard": 1}  # codes of overlap_finish
F64 = np.dtype(np.float64)


def _rows(device: Device, kernel: str, output: Any, inputs: tuple, numbers: tuple = ()) -> None:
    """A kernel on the pixels of inputs[0] (..., classes): (output, inputs..., pixels, classes, lanes, numbers...)."""
    *pixels, classes = inputs[0].shape
    n, lanes = prod(pixels), lanes_of(classes)
    arguments = (output, *inputs, n, classes, lanes, *numbers)
    launch(device, FILE, kernel, inputs[0].dtype, flat_grid(n * lanes), THREADS, *arguments)


def softmax(device, y, x):
    _rows(device, "softmax", y, (x,))


def softmax_grad(device, dx, dy, y):
    _rows(device, "softmax_grad", dx, (dy, y))


REDUCTION = {"mean": 2, "sum": -1, "weighted": 1}  # which sum divides, -1: none


def softmax_cross_entropy(
    device, loss, factor, logits, target, weight_map=None, class_weight=None, *, ignore_index, reduction
):
    *pixels, classes = logits.shape
    n, lanes = prod(pixels), lanes_of(classes)
    partial = _partial(device, n * lanes, 3)
    arguments = (partial, logits, target, weight_map, class_weight, n, classes, lanes, ignore_index)
    launch(device, FILE, "softmax_cross_entropy_partial", logits.dtype, len(partial), THREADS, *arguments)
    _reduce(device, loss, factor, partial, REDUCTION[reduction])


def softmax_cross_entropy_grad(
    device, dlogits, logits, target, dy, factor, weight_map=None, class_weight=None, *, ignore_index
):
    inputs = (logits, target, dy, factor, weight_map, class_weight)
    _rows(device, "softmax_cross_entropy_grad", dlogits, inputs, (ignore_index,))


def pixel_cross_entropy(device, loss, logits, target, *, ignore_index):
    _rows(device, "pixel_cross_entropy", loss, (logits, target), (ignore_index,))


def _partial(device: Device, threads: int, sums: int) -> Any:
    """A workspace (blocks, sums) for as many blocks as `threads` threads need, up to MOST_PARTS."""
    return device.empty((max(1, min(MOST_PARTS, ceil_div(threads, THREADS))), sums), F64)


def _reduce(device: Device, loss: Any, factor: Any, partial: Any, divisor: int, count: int = 1) -> None:
    """loss = factor times the first sum, factor = 1 / sum number `divisor`; 1 / count where that is -1."""
    launch(device, SUMS, "loss_finish", loss.dtype, 1, THREADS, loss, factor, partial, *partial.shape, divisor, count)


def _sums(device: Device, kernel: str, sums: int, inputs: tuple, numbers: tuple = ()) -> Any:
    """(blocks, sums), by a kernel (partial, inputs..., n, numbers...) that leaves each block's."""
    n = inputs[0].size
    partial = _partial(device, n, sums)
    launch(device, SUMS, kernel, inputs[0].dtype, len(partial), THREADS, partial, *inputs, n, *numbers)
    return partial


def _elements(device: Device, kernel: str, dx: Any, inputs: tuple, numbers: tuple) -> None:
    launch(device, SUMS, kernel, dx.dtype, flat_grid(dx.size), THREADS, dx, *inputs, dx.size, *numbers)


def sigmoid_cross_entropy(device, loss, factor, logits, target, weight_map=None, *, ignore_index, reduction):
    partial = _sums(device, "sigmoid_cross_entropy_partial", 3, (logits, target, weight_map), (ignore_index,))
    _reduce(device, loss, factor, partial, REDUCTION[reduction])


def sigmoid_cross_entropy_grad(device, dlogits, logits, target, dy, factor, weight_map=None, *, ignore_index):
    inputs = (logits, target, dy, factor, weight_map)
    _elements(device, "sigmoid_cross_entropy_grad", dlogits, inputs, (ignore_index,))


def focal_loss(device, loss, factor, logits, target, *, gamma, alpha, ignore_index, reduction):
    partial = _sums(device, "focal_loss_partial", 2, (logits, target), (gamma, alpha, ignore_index))
    _reduce(device, loss, factor, partial, 1 if reduction == "mean" else -1)


def focal_loss_grad(device, dlogits, logits, target, dy, factor, *, gamma, alpha, ignore_index):
    _elements(device, "focal_loss_grad", dlogits, (logits, target, dy, factor), (gamma, alpha, ignore_index))


def overlap(device, loss, slopes, p, target, *, kind, smooth):
    partial = _sums(device, "overlap_partial", 3, (p, target))
    arguments = (loss, slopes, partial, len(partial), OVERLAPS[kind], smooth)
    launch(device, SUMS, "overlap_finish", loss.dtype, 1, THREADS, *arguments)


def overlap_grad(device, dp, target, dy, slopes):
    _elements(device, "overlap_grad", dp, (target, dy, slopes), (vectors(device, dp.size, dp, target),))


def distance(device, loss, x, target, *, kind):
    partial = _sums(device, "distance_partial", 1, (x, target), (DISTANCES[kind],))
    _reduce(device, loss, None, partial, -1, x.size)


def distance_grad(device, dx, x, target, dy, *, kind):
    wide = vectors(device, dx.size, dx, x, target)
    _elements(device, "distance_grad", dx, (x, target, dy), (wide, DISTANCES[kind]))
