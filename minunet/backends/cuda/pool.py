"""Pooling, and scatter and gather by index: kernels/cuda/pool.cu, scatter.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.backends.cuda.channel_sum import pixel_sum
from minunet.backends.cuda.launch import Device, ceil_div, launch
from minunet.backends.cuda.maps import maps

FILE = "pool.cu"
SEGMENT, ROWS, COLUMNS, LANES = 16, 2, 64, 32  # of scatter.cu


def max_pool2d(device, y, indices, x, *, kernel, stride, padding):
    _windows(device, "max_pool2d", (y, indices, x), x.shape, (*kernel, *stride, *padding))


def avg_pool2d(device, y, x, *, kernel, stride, padding):
    _windows(device, "avg_pool2d", (y, x), x.shape, (*kernel, *stride, *padding))


def avg_pool2d_grad(device, dx, dy, *, kernel, stride, padding):
    _windows(device, "avg_pool2d_grad", (dx, dy), dy.shape, (*kernel, *stride, *padding))


def _windows(device: Device, kernel: str, arrays: tuple, other: tuple[int, ...], options: tuple[int, ...]) -> None:
    y = arrays[0]
    g = maps(device, *arrays)
    launch(device, FILE, kernel, y.dtype, g.grid, g.block, *arrays, *y.shape, *other[1:3], *options, g.wide)


def gather_by_index(device, out, plane, indices):
    g = maps(device, out, parts=(1,))
    sizes = (*out.shape, plane.shape[1] * plane.shape[2])
    launch(device, FILE, "gather_by_index", out.dtype, g.grid, g.block, out, plane, indices, *sizes)


def scatter_by_index(device: Device, out: Any, values: Any, indices: Any) -> None:
    (n, h, w, c), (_, oh, ow, _) = out.shape, values.shape
    bounds = device.empty((n * oh, ceil_div(ow, SEGMENT) + 1, 4), np.int32)
    own = device.empty((n * oh,), np.int32)
    launch(device, "scatter.cu", "index_bounds", out.dtype, n * oh, 256, bounds, own, indices, oh, ow, c, h, w)
    grid = (ceil_div(w, COLUMNS) * ceil_div(c, LANES), ceil_div(h, ROWS), n)
    arguments = (out, values, indices, bounds, own, h, w, c, oh, ow)
    launch(device, "scatter.cu", "scatter_by_index", out.dtype, grid, (32, 8), *arguments)


def global_avg_pool(device, y, x):
    n, h, w, _ = x.shape
    pixel_sum(device, y, x, n, 1 / (h * w))


def global_avg_pool_grad(device, dx, dy):
    g = maps(device, dx, dy)
    _, h, w, _ = dx.shape
    launch(device, FILE, "global_avg_pool_grad", dx.dtype, g.grid, g.block, dx, dy, *dx.shape, 1 / (h * w), g.wide)
