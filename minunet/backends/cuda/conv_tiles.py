"""Steps 4 and 5 of the convolution ladder, the implicit GEMMs: 4_register_tile.cu and 5_double_buffer.cu."""

from __future__ import annotations

from functools import partial

import numpy as np

from minunet.backends.cuda import conv_parts
from minunet.backends.cuda.conv_phases import Phase, pack_by_k
from minunet.backends.cuda.conv_problem import Problem
from minunet.backends.cuda.conv_split import split_sum, splits
from minunet.backends.cuda.launch import Device, aligned, ceil_div, launch

REGISTER, DOUBLE = "conv/4_register_tile.cu", "conv/5_double_buffer.cu"
BK = 16  # of both files: channels, or pixels of grad_w, at a time
THREADS = 256
RATE = {4: 128, 8: 64}  # multiply-adds of a multiprocessor in a clock, by bytes of a number
ENOUGH = 264  # blocks that keep 132 multiprocessors busy with two each; fewer: smaller tiles


def tile(rows: int, columns: int, dtype: np.dtype, splittable: bool = False) -> tuple[int, int]:
    """Rows and columns of a block's results: 64 or 128 each.

    128 x 128 floats need a quarter of the loads of 64 x 64 for a product, and the registers of half a multiprocessor;
    doubles have not enough registers. `splittable`: idle multiprocessors can be had by splitting the sum instead.
    """
    if dtype == np.float64:
        return 64, 64
    across = 128 if columns > 64 else 64
    down = 128 if rows > 64 else 64
    if not splittable:
        if down == 128 and ceil_div(rows, down) * ceil_div(columns, across) < ENOUGH:
            down = 64
        if across == 128 and ceil_div(rows, down) * ceil_div(columns, across) < ENOUGH:
            across = 64
    return down, across


def convolve(file: str, device: Device, phase: Phase) -> None:
    chunks = phase.taps * ceil_div(phase.K, BK)
    plan = conv_parts.plan(phase.pixels, phase.F, chunks, BK, RATE[phase.dtype.itemsize], phase.dtype)
    down, across = plan.tile
    w = pack_by_k(device, phase, BK, across)
    wide_x = phase.K % 4 == 0 and aligned(device, phase.x)

    def run(grid, y, b, sizes, each):
        wide_y = phase.F % 4 == 0 and aligned(device, y)
        arguments = (y, phase.x, w, b, *sizes, *w.shape[1:], wide_x, wide_y, each)
        launch(device, file, "conv2d", phase.dtype, grid, THREADS, *arguments, TILE_M=down, TILE_N=across)

    conv_parts.convolve(device, phase, plan, chunks, run)


def grad_w(file: str, device: Device, p: Problem) -> None:
    down, across = tile(p.O, p.C, p.dtype, splittable=True)
    grid = (p.KH * p.KW * ceil_div(p.C, across), ceil_div(p.O, down))
    count, pixels = splits(grid[0] * grid[1], p.N * p.OH * p.OW, 16 * BK, p.w.nbytes)

    def partial_sums(array):
        wide_x = p.C % 4 == 0 and aligned(device, p.x, array)
        wide_dy = p.O % 4 == 0 and aligned(device, p.y)
        arguments = (array, p.x, p.y, *p.sizes, pixels, wide_x, wide_dy)
        kernel = "conv2d_grad_w_partial"
        launch(device, file, kernel, p.dtype, (*grid, count), THREADS, *arguments, TILE_M=down, TILE_N=across)

    split_sum(device, p, count, partial_sums)


register_convolve, register_grad_w = partial(convolve, REGISTER), partial(grad_w, REGISTER)
double_convolve, double_grad_w = partial(convolve, DOUBLE), partial(grad_w, DOUBLE)
