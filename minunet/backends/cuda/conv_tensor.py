"""Steps 7 and 8 of the convolution ladder, on tensor cores: 7_tensor_tf32.cu and 8_tensor_half.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet import backends
from minunet.backends.cuda import conv_parts, conv_phases, conv_tiles
from minunet.backends.cuda.conv_phases import PACK, THREADS, Phase, keep_filter
from minunet.backends.cuda.conv_problem import Problem
from minunet.backends.cuda.conv_split import split_sum, splits
from minunet.backends.cuda.launch import Device, aligned, ceil_div, flat_grid, launch

TF32, HALF = "conv/7_tensor_tf32.cu", "conv/8_tensor_half.cu"
STAGES, ROW_BYTES = 3, 80  # of kernels/cuda/conv/mma_tile.cuh
BK = {TF32: 16, HALF: 32}  # channels, or pixels of grad_w, at a time
RATE = {TF32: 600, HALF: 1200}  # multiply-adds of a multiprocessor in a clock, by mma.sync on Hopper
BYTES = {TF32: 4, HALF: 2}  # of a number in shared memory


def shared(file: str, kernel: str, tile: tuple[int, int]) -> int:
    """Bytes of dynamic shared memory."""
    if kernel == "conv2d":
        return STAGES * sum(tile) * ROW_BYTES
    return STAGES * BK[file] * (sum(tile) + 16) * BYTES[file]


def pack_by_n(device: Device, file: str, phase: Phase, across: int, *fp16: int) -> tuple[Any, int]:
    """The filter as (Fp, taps, Kp), rounded, zeros up to whole tiles; and Kp."""
    kp, fp = ceil_div(phase.K, BK[file]) * BK[file], ceil_div(phase.F, across) * across
    kernel = "pack_by_n_tf32" if file == TF32 else "pack_by_n_half"

    def pack() -> Any:
        packed = device.empty((fp, phase.taps, kp), np.float32 if file == TF32 else np.uint16)
        sizes = (packed.size, phase.taps, phase.columns.taps, phase.K, kp, phase.F)
        grid = flat_grid(packed.size)
        launch(device, PACK, kernel, phase.dtype, grid, THREADS, packed, phase.w, *sizes, *phase.filter, *fp16)
        return packed

    return keep_filter(device, phase, (kernel, kp, fp, *fp16), pack), kp


def to_half(device: Device, x: Any, bf16: int) -> Any:
    """x in 16 bits, its channels padded with zeros to a multiple of 8."""
    *pixels, c = x.shape
    half = device.empty((*pixels, ceil_div(c, 8) * 8), np.uint16)
    launch(device, PACK, "to_half", x.dtype, flat_grid(half.size), THREADS, half, x, half.size, c, half.shape[-1], bf16)
    return half


def bf16() -> int:
    """Whether 16-bit numbers are bf16: unless fp16 was asked for."""
    return int(backends.asked_precision() != "fp16")


def tf32_convolve(device: Device, phase: Phase) -> None:
    plan = _plan(TF32, phase)
    w, kp = pack_by_n(device, TF32, phase, plan.tile[1])
    wide = phase.K % 4 == 0 and aligned(device, phase.x)
    _convolve(device, TF32, phase, plan, phase.x, w, (kp, wide))


def half_forward(device: Device, p: Problem) -> None:
    _half_phases(device, conv_phases.forward(p))


def half_grad_x(device: Device, p: Problem) -> None:
    _half_phases(device, conv_phases.grad_x(p))


def _half_phases(device: Device, phases: list[Phase]) -> None:
    """All phases of one source, which is brought to 16 bits once."""
    kind = bf16()
    x = to_half(device, phases[0].x, kind)
    for phase in phases:
        _half_convolve(device, phase, x, kind)


def _half_convolve(device: Device, phase: Phase, x: Any, kind: int) -> None:
    plan = _plan(HALF, phase)
    w, kp = pack_by_n(device, HALF, phase, plan.tile[1], kind)
    _convolve(device, HALF, phase, plan, x, w, (kp,), HALF=1 - kind)


def _plan(file: str, phase: Phase) -> conv_parts.Plan:
    return conv_parts.plan(phase.pixels, phase.F, _chunks(file, phase), BK[file], RATE[file], phase.dtype)


def _chunks(file: str, phase: Phase) -> int:
    return phase.taps * ceil_div(phase.K, BK[file])


def _convolve(
    device: Device, file: str, phase: Phase, plan: conv_parts.Plan, x: Any, w: Any, last: tuple, **defines: int
) -> None:
    """x, w : of the phase, as the kernel wants them; last : its arguments behind the sizes"""
    down, across = plan.tile
    defines |= {"TILE_M": down, "TILE_N": across}
    nbytes = shared(file, "conv2d", plan.tile)

    def run(grid, y, b, sizes, each):
        n, h, width, _, *rest = sizes
        arguments = (y, x, w, b, n, h, width, x.shape[3], *rest, *last, each)
        launch(device, file, "conv2d", phase.dtype, grid, THREADS, *arguments, shared=nbytes, **defines)

    conv_parts.convolve(device, phase, plan, _chunks(file, phase), run)


def tf32_grad_w(device: Device, p: Problem) -> None:
    def last(array: Any) -> tuple[int, ...]:
        return (p.C % 4 == 0 and aligned(device, p.x, array), p.O % 4 == 0 and aligned(device, p.y))

    _grad_w(device, TF32, p, p.x, p.y, last)


def half_grad_w(device: Device, p: Problem) -> None:
    kind = bf16()
    x, dy = to_half(device, p.x, kind), to_half(device, p.y, kind)
    _grad_w(device, HALF, p, x, dy, lambda array: (x.shape[3], dy.shape[3]), HALF=1 - kind)


def _grad_w(device: Device, file: str, p: Problem, x: Any, dy: Any, last: Any, **defines: int) -> None:
    tile = down, across = conv_tiles.tile(p.O, p.C, p.dtype, splittable=True)
    grid = (p.KH * p.KW * ceil_div(p.C, across), ceil_div(p.O, down))
    count, pixels = splits(grid[0] * grid[1], p.N * p.OH * p.OW, 16 * BK[file], p.w.nbytes)
    kernel, defines = "conv2d_grad_w_partial", defines | {"TILE_M": down, "TILE_N": across}
    nbytes = shared(file, kernel, tile)

    def partial_sums(array: Any) -> None:
        arguments = (array, x, dy, *p.sizes, pixels, *last(array))
        launch(device, file, kernel, p.dtype, (*grid, count), THREADS, *arguments, shared=nbytes, **defines)

    split_sum(device, p, count, partial_sums)
