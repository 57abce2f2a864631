"""Sums over pixels: kernels/numba_cuda/channel_sum.py."""

from __future__ import annotations

from math import prod
from typing import Any

from minunet.backends.numba_cuda.launch import Device, columns, finish, launch

FILE = "channel_sum"


def _sum(device: Device, kernel: str, out: Any, arrays: tuple, samples: int, factor: float) -> None:
    """out (samples, channels) = factor times the sum over the pixels of each sample."""
    *pixels, channels = arrays[0].shape
    shape = (samples, prod(pixels) // samples, channels)
    grid, block = columns(shape[1], channels, samples)
    partial = device.empty((samples, grid[1], channels), out.dtype)
    launch(device, FILE, kernel, grid, block, partial, *(a.reshape(shape) for a in arrays))
    finish(device, out, partial, factor)


def channel_sum(device, db, dy):
    _sum(device, "channel_sum_partial", db, (dy,), 1, 1.0)


def pixel_sum(device: Device, y: Any, x: Any, factor: float) -> None:
    """y[n, c] = factor sum over pixels of x[n]."""
    _sum(device, "channel_sum_partial", y, (x,), x.shape[0], factor)


def product_sum(device: Device, y: Any, a: Any, b: Any) -> None:
    """y[n, c] = sum over pixels of a[n] b[n]."""
    _sum(device, "product_sum_partial", y, (a, b), a.shape[0], 1.0)
