"""Step 3 of the convolution ladder: kernels/cuda/conv/3_shared_tile.cu."""

from __future__ import annotations

from minunet.backends.cuda.conv_phases import Phase, pack_by_k
from minunet.backends.cuda.conv_problem import Problem
from minunet.backends.cuda.conv_split import split_sum, splits
from minunet.backends.cuda.launch import Device, ceil_div, launch

FILE = "conv/3_shared_tile.cu"
TILE, SLICE, LANES, SIDE = 4, 16, 32, 16  # of 3_shared_tile.cu; SIDE: grad_w's block
MOST_SHARED = 48 * 1024


def shared(phase: Phase) -> int:
    """Bytes of the tile of x with its halo."""
    sides = [(TILE - 1) * a.stride + (a.taps - 1) * a.step + 1 for a in (phase.rows, phase.columns)]
    return sides[0] * sides[1] * SLICE * phase.dtype.itemsize if phase.taps else 0


def fits(phase: Phase) -> bool:
    return shared(phase) <= MOST_SHARED


def convolve(device: Device, phase: Phase) -> None:
    tiles = phase.x.shape[0] * ceil_div(phase.rows.count, TILE) * ceil_div(phase.columns.count, TILE)
    grid = (tiles, ceil_div(phase.F, LANES))
    arguments = (phase.y, phase.x, pack_by_k(device, phase), phase.b, *phase.sizes)
    launch(device, FILE, "conv2d", phase.dtype, grid, (LANES, TILE * TILE), *arguments, shared=shared(phase))


def grad_w(device: Device, p: Problem) -> None:
    across, down = p.KH * p.KW * ceil_div(p.C, SIDE), ceil_div(p.O, SIDE)
    count, pixels = splits(across * down, p.N * p.OH * p.OW, SIDE * 16, p.w.nbytes)

    def partial_sums(partial):
        grid = (across, down, count)
        arguments = (partial, p.x, p.y, *p.sizes, pixels)
        launch(device, FILE, "conv2d_grad_w_partial", p.dtype, grid, (SIDE, SIDE), *arguments)

    split_sum(device, p, count, partial_sums)
