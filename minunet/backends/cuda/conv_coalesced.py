"""Step 2 of the convolution ladder: kernels/cuda/conv/2_coalesced.cu."""

from __future__ import annotations

from minunet.backends.cuda.conv_phases import Phase, pack_by_k
from minunet.backends.cuda.conv_problem import Problem
from minunet.backends.cuda.conv_split import split_sum, splits
from minunet.backends.cuda.launch import Device, ceil_div, launch

FILE = "conv/2_coalesced.cu"
LANES, PIXELS = 32, 8  # channels, pixels of a block


def convolve(device: Device, phase: Phase) -> None:
    grid = (ceil_div(phase.pixels, PIXELS), ceil_div(phase.F, LANES))
    arguments = (phase.y, phase.x, pack_by_k(device, phase), phase.b, *phase.sizes)
    launch(device, FILE, "conv2d", phase.dtype, grid, (LANES, PIXELS), *arguments)


def grad_w(device: Device, p: Problem) -> None:
    taps = p.KH * p.KW * p.C
    block = min(256, ceil_div(taps, 32) * 32)
    blocks = ceil_div(taps, block) * p.O
    count, rows = splits(blocks, p.N * p.OH, 1, p.w.nbytes)

    def partial_sums(partial):
        grid = (ceil_div(taps, block), p.O, count)
        launch(device, FILE, "conv2d_grad_w_partial", p.dtype, grid, block, partial, p.x, p.y, *p.sizes, rows)

    split_sum(device, p, count, partial_sums)
