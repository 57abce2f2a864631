"""The ends of a network, steps 9 and 10 beside the convolution ladder: 9_few_in.cu and 10_few_out.cu."""

from __future__ import annotations

from typing import Any

from minunet.backends.cuda.conv_phases import THREADS, Phase, pack_by_k
from minunet.backends.cuda.conv_problem import Problem
from minunet.backends.cuda.conv_split import split_sum, splits
from minunet.backends.cuda.launch import Device, aligned, ceil_div, launch

IN, OUT = "conv/9_few_in.cu", "conv/10_few_out.cu"
MOST = 8  # channels
MOST_SHARED = 48 * 1024  # bytes
PIXELS, COLUMNS, TERMS, ROWS_W, WARPS = 8, 32, 9, 4, 8  # of 9_few_in.cu
LANES = {4: 16, 8: 8}  # of 10_few_out.cu, by bytes of a number


def lanes(channels: int) -> int:
    """Threads side by side, four channels each: 4, 8 or 16."""
    return min(16, max(4, 1 << (ceil_div(channels, 4) - 1).bit_length()))


def few(channels: int) -> int:
    """Channels of the result, rounded up to what 10_few_out.cu is compiled for."""
    return max(2, 1 << (channels - 1).bit_length())


def halo(results: int, taps: tuple[int, int], stride: tuple[int, int], step: tuple[int, int], channels: int) -> int:
    """Numbers of a tile of x for `results` x COLUMNS results."""
    rows, columns = (
        (count - 1) * s + (t - 1) * d + 1 for count, t, s, d in zip((results, COLUMNS), taps, stride, step)
    )
    return rows * columns * channels if all(taps) else 0


def shared_in(phase: Phase) -> int:
    """Bytes of dynamic shared memory of 9_few_in.cu's conv2d: filter and tile."""
    r, c, width = phase.rows, phase.columns, lanes(phase.F)
    results = THREADS // width * PIXELS // COLUMNS
    tile = halo(results, (r.taps, c.taps), (r.stride, c.stride), (r.step, c.step), phase.K)
    return (phase.taps * phase.K * 4 * width + tile) * phase.dtype.itemsize


def shared_in_w(p: Problem) -> int:
    """And of its conv2d_grad_w_partial: the tile, then the warps' sums."""
    tile = halo(ROWS_W, (p.KH, p.KW), p.stride, p.dilation, p.C)
    return max(tile, WARPS * TERMS * 4 * lanes(p.O)) * p.dtype.itemsize


def shared_first(kernel: str, tile: tuple[int, int]) -> int:
    """Of 3 x 3 from 1 to 64 channels, in float32."""
    numbers = halo(ROWS_W, (3, 3), (1, 1), (1, 1), 1)
    return 4 * (9 * 64 + numbers if kernel == "conv2d" else max(WARPS * TERMS * 64, numbers))


def fits_in(phase: Phase) -> bool:
    return phase.K <= MOST and shared_in(phase) <= MOST_SHARED


def pays_in(phase: Phase) -> bool:
    """Few channels, or so few terms that bytes bind: 36 are 3 x 3 of 4 channels, or 2 x 2 of 8 and some."""
    return phase.K <= 4 or phase.taps * phase.K <= 36


def fits_in_w(p: Problem) -> bool:
    return p.C <= MOST and shared_in_w(p) <= MOST_SHARED


def fits_out(phase: Phase) -> bool:
    return phase.F <= MOST


def fits_out_w(p: Problem) -> bool:
    return p.O <= MOST


def convolve_in(device: Device, phase: Phase) -> None:
    across = lanes(phase.F)
    block = (across, THREADS // across)
    results = block[1] * PIXELS // COLUMNS
    w = pack_by_k(device, phase, 1, 4 * across)
    tiles = phase.x.shape[0] * ceil_div(phase.rows.count, results) * ceil_div(phase.columns.count, COLUMNS)
    grid = (tiles, w.shape[2] // (4 * across))
    wide = phase.F % 4 == 0 and aligned(device, phase.y)
    arguments = (phase.y, phase.x, w, phase.b, *phase.sizes, w.shape[2], wide)
    launch(device, IN, "conv2d", phase.dtype, grid, block, *arguments, shared=shared_in(phase))


def grad_w_in(device: Device, p: Problem) -> None:
    across, terms = lanes(p.O), p.KH * p.KW * p.C
    groups = min(WARPS, 1 << (ceil_div(terms, TERMS) - 1).bit_length())
    grid = (ceil_div(p.O, 4 * across), ceil_div(terms, groups * TERMS))
    tiles = p.N * ceil_div(p.OH, ROWS_W) * ceil_div(p.OW, COLUMNS)
    count, each = splits(grid[0] * grid[1], tiles, 1, p.w.nbytes)

    def partial_sums(array: Any) -> None:
        wide = p.O % 4 == 0 and aligned(device, p.y)
        arguments = (array, p.x, p.y, *p.sizes, each, across, groups, wide)
        kernel, nbytes = "conv2d_grad_w_partial", shared_in_w(p)
        launch(device, IN, kernel, p.dtype, (*grid, count), THREADS, *arguments, shared=nbytes)

    split_sum(device, p, count, partial_sums)


def convolve_out(device: Device, phase: Phase) -> None:
    channels, across = few(phase.F), LANES[phase.dtype.itemsize]
    w = pack_by_k(device, phase, 4 * across, channels)
    grid = ceil_div(ceil_div(phase.pixels, across // channels) * across, THREADS)
    wide = phase.K % 4 == 0 and aligned(device, phase.x)
    arguments = (phase.y, phase.x, w, phase.b, *phase.sizes, w.shape[1], wide)
    launch(device, OUT, "conv2d", phase.dtype, grid, THREADS, *arguments, FEW=channels)


def grad_w_out(device: Device, p: Problem) -> None:
    across = LANES[p.dtype.itemsize]
    rows = THREADS // across
    grid = (ceil_div(p.C, 4 * across), p.KH * p.KW)
    count, pixels = splits(grid[0] * grid[1], p.N * p.OH * p.OW, 4 * rows, p.w.nbytes)

    def partial_sums(array: Any) -> None:
        wide = p.C % 4 == 0 and aligned(device, p.x)
        arguments = (array, p.x, p.y, *p.sizes, pixels, pixels // rows, wide)
        launch(device, OUT, "conv2d_grad_w_partial", p.dtype, (*grid, count), THREADS, *arguments, FEW=few(p.O))

    split_sum(device, p, count, partial_sums)
