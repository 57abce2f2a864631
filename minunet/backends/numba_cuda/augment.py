"""Training tiles: kernels/numba_cuda/augment.py (windows), relight.py (grey values), border.py (weights)."""

from __future__ import annotations

import math

import numpy as np

from minunet.backends.numba_cuda.launch import ceil_div, flat, launch, over_map, real
from minunet.backends.numba_cuda.library import sizes


def deform(device, y, x, places, nodes, *, cubic):
    if nodes is None:
        over_map(device, "augment", "cut", y, x, places)
    else:
        over_map(device, "augment", "deform", y, x, places, nodes, bool(cubic))


def deform_nearest(device, y, labels, places, nodes, *, outside):
    pixels = y.reshape(*y.shape, 1)
    if nodes is None:
        over_map(device, "augment", "cut_labels", pixels, labels, places, np.int32(outside))
    else:
        over_map(device, "augment", "deform_labels", pixels, labels, places, nodes, np.int32(outside))


def border_weights(device, y, cells, *, w0, sigma, reach, everywhere):
    arguments = (y.reshape(*y.shape, 1), cells, np.int64(reach), float(w0), float(sigma), bool(everywhere))
    over_map(device, "border", "border_weights", *arguments)


def stretch(device, y, x, factor, shift):
    over_map(device, "relight", "stretch", y, x, factor, shift)


def gamma_curve(device, y, x, powers):
    s = sizes()
    tiles = (x.shape[0], x.size // max(x.shape[0], 1))
    grid = (max(1, min(s.MOST_PARTS, ceil_div(tiles[1], 8 * s.THREADS))), tiles[0])
    ranges = device.empty((*tiles[:1], grid[0], 2), x.dtype)
    launch(device, "relight", "gamma_range", grid, s.THREADS, ranges, x.reshape(tiles))
    launch(device, "relight", "gamma_curve", grid, s.THREADS, y.reshape(tiles), x.reshape(tiles), ranges, powers)


def add_noise(device, y, x, sd, *, seed):
    tiles = (x.shape[0], x.size // max(x.shape[0], 1))
    numbers = (np.uint64(seed), *real(x, 2.0**-24, 2 * math.pi))
    flat(device, "relight", "add_noise", x.size, y.reshape(tiles), x.reshape(tiles), sd, *numbers)
