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


def softmax_cross_entropy(device, sums, logits, target, weight_map=None, class_weight=None, *, ignore_index):
    *pixels, classes = logits.shape
    n, lanes = prod(pixels), lanes_of(classes)
    partial = _partial(device, n * lanes, sums)
    arguments = (partial, logits, target, weight_map, class_weight, n, classes, lanes, ignore_index)
    launch(device, FILE, "softmax_cross_entropy_partial", logits.dtype, len(partial), THREADS, *arguments)
    _finish(device, sums, partial)


def softmax_cross_entropy_grad(
    device, dlogits, logits, target, weight_map=None, class_weight=None, *, ignore_index, scale
):
    inputs = (logits, target, weight_map, class_weight)
    _rows(device, "softmax_cross_entropy_grad", dlogits, inputs, (ignore_index, scale))


def pixel_cross_entropy(device, loss, logits, target, *, ignore_index):
    _rows(device, "pixel_cross_entropy", loss, (logits, target), (ignore_index,))


def _partial(device: Device, threads: int, sums: Any) -> Any:
    """A workspace (blocks, sums) for as many blocks as `threads` threads need, up to MOST_PARTS."""
    return device.empty((max(1, min(MOST_PARTS, ceil_div(threads, THREADS))), sums.size), F64)


def _finish(device: Device, sums: Any, partial: Any) -> None:
    launch(device, SUMS, "sums_finish", F64, 1, THREADS, sums, partial, *partial.shape)


def _sums(device: Device, kernel: str, sums: Any, inputs: tuple, numbers: tuple = ()) -> None:
    """sums, by a kernel (partial, inputs..., n, numbers...) that leaves each block's."""
    n = inputs[0].size
    partial = _partial(device, n, sums)
    launch(device, SUMS, kernel, inputs[0].dtype, len(partial), THREADS, partial, *inputs, n, *numbers)
    _finish(device, sums, partial)


def _elements(device: Device, kernel: str, dx: Any, inputs: tuple, numbers: tuple) -> None:
    launch(device, SUMS, kernel, dx.dtype, flat_grid(dx.size), THREADS, dx, *inputs, dx.size, *numbers)


def sigmoid_cross_entropy(device, sums, logits, target, weight_map=None, *, ignore_index):
    _sums(device, "sigmoid_cross_entropy_partial", sums, (logits, target, weight_map), (ignore_index,))


def sigmoid_cross_entropy_grad(device, dlogits, logits, target, weight_map=None, *, ignore_index, scale):
    _elements(device, "sigmoid_cross_entropy_grad", dlogits, (logits, target, weight_map), (ignore_index, scale))


def focal_loss(device, sums, logits, target, *, gamma, alpha, ignore_index):
    _sums(device, "focal_loss_partial", sums, (logits, target), (gamma, alpha, ignore_index))


def focal_loss_grad(device, dlogits, logits, target, *, gamma, alpha, ignore_index, scale):
    _elements(device, "focal_loss_grad", dlogits, (logits, target), (gamma, alpha, ignore_index, scale))


def overlap(device, sums, p, target):
    _sums(device, "overlap_partial", sums, (p, target))


def overlap_grad(device, dp, target, *, a, b):
    _elements(device, "overlap_grad", dp, (target,), (vectors(device, dp.size, dp, target), a, b))


def distance(device, sums, x, target, *, kind):
    _sums(device, "distance_partial", sums, (x, target), (DISTANCES[kind],))


def distance_grad(device, dx, x, target, *, kind, scale):
    wide = vectors(device, dx.size, dx, x, target)
    _elements(device, "distance_grad", dx, (x, target), (wide, DISTANCES[kind], scale))
