"""Training tiles: kernels/cuda/augment.cu (windows), relight.cu (grey values), border.cu (weights between cells)."""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.backends.cuda.launch import THREADS, Device, ceil_div, flat_grid, launch
from minunet.backends.cuda.maps import Maps, maps

MOST_PARTS = 64  # blocks of a tile: every one of them joins the extremes that so many left
F32 = np.dtype(np.float32)


def deform(device, y, x, places, nodes, *, cubic):
    g = _each_channel(device, y)
    arguments = (y, x, places, nodes, *y.shape, *x.shape[1:3], cubic)
    launch(device, "augment.cu", "deform", y.dtype, g.grid, g.block, *arguments)


def deform_nearest(device, y, labels, places, nodes, *, outside):
    g = _each_channel(device, y)
    arguments = (y, labels, places, nodes, *y.shape, *labels.shape[1:], outside)
    launch(device, "augment.cu", "deform_nearest", F32, g.grid, g.block, *arguments)


def border_weights(device, y, cells, *, w0, sigma, reach, everywhere):
    g = _each_channel(device, y)
    arguments = (y, cells, *y.shape, *cells.shape[1:], reach, w0, sigma, everywhere)
    launch(device, "border.cu", "border_weights", F32, g.grid, g.block, *arguments)


def stretch(device, y, x, factor, shift):
    g = _each_channel(device, y)
    launch(device, "relight.cu", "stretch", x.dtype, g.grid, g.block, y, x, factor, shift, *x.shape)


def gamma_curve(device, y, x, powers):
    tiles = x.shape[0]
    size = x.size // max(tiles, 1)
    grid = (min(MOST_PARTS, ceil_div(size, 8 * THREADS)), tiles)
    ranges = device.empty((tiles, grid[0], 2), x.dtype)
    launch(device, "relight.cu", "gamma_range", x.dtype, grid, THREADS, ranges, x, size)
    launch(device, "relight.cu", "gamma_curve", x.dtype, grid, THREADS, y, x, ranges, powers, size)


def add_noise(device, y, x, sd, *, seed):
    size = x.size // max(x.shape[0], 1)
    launch(device, "relight.cu", "add_noise", x.dtype, flat_grid(x.size), THREADS, y, x, sd, x.size, size, seed)


def _each_channel(device: Device, y: Any) -> Maps:
    """The geometry for y (N, H, W, C) or (N, H, W), an element a thread."""
    return maps(device, y if y.ndim == 4 else y.reshape(*y.shape, 1), parts=(1,))
