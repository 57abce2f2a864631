"""Pooling, and scatter and gather by index: kernels/numba_cuda/pool.py, scatter.py."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from minunet.backends.numba_cuda.channel_sum import pixel_sum
from minunet.backends.numba_cuda.launch import Device, ceil_div, launch, over_map, real
from minunet.backends.numba_cuda.library import sizes

FILE = "pool"


def max_pool2d(device, y, indices, x, *, kernel, stride, padding):
    over_map(device, FILE, "max_pool2d", y, indices, x, kernel, stride, padding)


def avg_pool2d(device, y, x, *, kernel, stride, padding):
    over_map(device, FILE, "avg_pool2d", y, x, kernel, stride, padding, *real(x, 1 / prod(kernel)))


def avg_pool2d_grad(device, dx, dy, *, kernel, stride, padding):
    over_map(device, FILE, "avg_pool2d_grad", dx, dy, kernel, stride, padding, *real(dy, 1 / prod(kernel)))


def gather_by_index(device, out, plane, indices):
    over_map(device, FILE, "gather_by_index", out, plane, indices)


def scatter_by_index(device: Device, out: Any, values: Any, indices: Any) -> None:
    s = sizes()
    (n, h, w, c), (_, oh, ow, _) = out.shape, values.shape
    bounds = device.empty((n, oh, ceil_div(ow, s.SEGMENT) + 1, 4), np.int32)
    launch(device, "scatter", "index_bounds", n * oh, s.THREADS, bounds, indices, w)
    grid = (ceil_div(w, s.COLUMNS) * ceil_div(c, s.LANES), ceil_div(h, s.ROWS), n)
    launch(device, "scatter", "scatter_by_index", grid, (s.LANES, s.GROUPS), out, values, indices, bounds)


def global_avg_pool(device, y, x):
    pixel_sum(device, y, x, 1 / (x.shape[1] * x.shape[2]))


def global_avg_pool_grad(device, dx, dy):
    over_map(device, FILE, "global_avg_pool_grad", dx, dy, *real(dy, 1 / (dx.shape[1] * dx.shape[2])))
