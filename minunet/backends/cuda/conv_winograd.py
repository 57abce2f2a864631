"""Step 6 of the convolution ladder: kernels/cuda/conv/6_winograd.cu."""

from __future__ import annotations

from typing import Any

from minunet.backends.cuda import conv_tiles
from minunet.backends.cuda.conv_phases import THREADS, Phase, keep_filter
from minunet.backends.cuda.launch import Device, ceil_div, launch

FILE = "conv/6_winograd.cu"
TILE, PRODUCTS, BK = 4, 36, 16  # of 6_winograd.cu
LANES = 32
WORKSPACE = 2**28  # bytes of transformed tiles and products at a time


def fits(phase: Phase) -> bool:
    """3 x 3 with stride 1 and dilation 1."""
    axes = (phase.rows, phase.columns)
    return all((a.taps, a.stride, a.step, a.target, a.first) == (3, 1, 1, 1, 0) for a in axes)


def pays(phase: Phase) -> bool:
    """Whether the transforms are worth it: they touch 2.25 times x and y, the products shrink with the channels."""
    return min(phase.K, phase.F) >= 32 and phase.K + phase.F >= 128


def convolve(device: Device, phase: Phase) -> None:
    down, across = (ceil_div(a.count, TILE) for a in (phase.rows, phase.columns))
    tiles = phase.x.shape[0] * down * across
    rows, columns = conv_tiles.tile(tiles * PRODUCTS, phase.F, phase.dtype)
    kp, fp = ceil_div(phase.K, BK) * BK, ceil_div(phase.F, columns) * columns

    def transform() -> Any:
        filters = device.empty((PRODUCTS, kp, fp), phase.dtype)
        arguments = (filters, phase.w, phase.K, kp, phase.F, fp, *phase.filter)
        launch(device, FILE, "winograd_filters", phase.dtype, ceil_div(kp * fp, THREADS), THREADS, *arguments)
        return filters

    filters = keep_filter(device, phase, ("winograd_filters", kp, fp), transform)

    most = max(1, WORKSPACE // (PRODUCTS * (kp + fp) * phase.dtype.itemsize * rows)) * rows
    padded = min(most, ceil_div(tiles, rows) * rows)
    images = device.empty((PRODUCTS, padded, kp), phase.dtype)
    products = device.empty((PRODUCTS, padded, fp), phase.dtype)
    for first in range(0, tiles, padded):
        here = (down, across, first, min(padded, tiles - first), padded)
        _chunk(device, phase, images, products, filters, here, (rows, columns))


def _chunk(device: Device, phase: Phase, images, products, filters, here: tuple, tile: tuple[int, int]) -> None:
    """Transform, multiply and transform back some of the tiles."""
    *_, tiles, padded = here
    (_, h, w, c), (_, kp, fp) = phase.x.shape, filters.shape
    block = (LANES, THREADS // LANES)

    def grid(channels: int) -> tuple[int, int]:
        return ceil_div(tiles, block[1]), ceil_div(channels, LANES)

    before = (phase.rows.before, phase.columns.before)
    arguments = (images, phase.x, h, w, c, kp, *before, *here)
    launch(device, FILE, "winograd_images", phase.dtype, grid(kp), block, *arguments)
    blocks = (ceil_div(tiles, tile[0]), fp // tile[1], PRODUCTS)
    sizes = {"TILE_M": tile[0], "TILE_N": tile[1]}
    launch(device, FILE, "winograd_multiply", phase.dtype, blocks, THREADS, products, images, filters, padded, kp, fp,
           **sizes)  # fmt: skip
    result = (phase.rows.count, phase.columns.count, phase.F, fp, *here, phase.activation)
    launch(device, FILE, "winograd_results", phase.dtype, grid(phase.F), block, phase.y, products, phase.b, *result)
