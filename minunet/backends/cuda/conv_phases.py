"""Forward and gradient in x as one kind of work: convolutions of stride-1 phases, see kernels/cuda/conv/geometry.cuh.

Steps from the second on have one kernel for both. What differs is which array is the source, how its filter is
read, and where the results lie; a `Phase` says that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np

from minunet.backends.cuda.conv_problem import Problem
from minunet.backends.cuda.launch import Device, ceil_div, flat_grid, launch
from minunet.backends.kept import keep

PACK = "conv/pack.cu"
THREADS = 256


@dataclass(frozen=True)
class Axis:
    """One of the two axes of a phase: result k, of `count`, reads source k stride + tap step - before for each tap.

    count, taps        : results and taps; either may be 0
    stride, step, before
    target, first      : result k lies at k target + first
    filter, direction  : tap t is tap filter + t direction of the filter as it lies
    """

    count: int
    taps: int
    stride: int
    step: int
    before: int
    target: int = 1
    first: int = 0
    filter: int = 0
    direction: int = 1


@dataclass(frozen=True)
class Phase:
    """One convolution of `x` (N, H, W, K) into pixels of `y` (N, YH, YW, F).

    by_channel, by_result : how far apart the filter's numbers lie for neighbouring K and F
    by_row, by_column     : and for neighbouring taps
    """

    x: Any
    w: Any
    y: Any
    b: Any
    rows: Axis
    columns: Axis
    by_channel: int
    by_result: int
    by_row: int
    by_column: int
    activation: int

    @property
    def K(self) -> int:
        return self.x.shape[3]

    @property
    def F(self) -> int:
        return self.y.shape[3]

    @property
    def dtype(self) -> np.dtype:
        return self.x.dtype

    @property
    def pixels(self) -> int:
        return self.x.shape[0] * self.rows.count * self.columns.count

    @property
    def taps(self) -> int:
        return self.rows.taps * self.columns.taps

    @property
    def sizes(self) -> tuple[int, ...]:
        """N, H, W, C, O, KH, ... j0, activation: the integers that the kernels take, see 2_coalesced.cu."""
        i, j = self.rows, self.columns
        return (*self._source, *self.y.shape[1:3], i.target, j.target, i.first, j.first, self.activation)

    @property
    def sizes_of_parts(self) -> tuple[int, ...]:
        """`sizes` for results that go, pixel by pixel, into a workspace: no gaps, no activation."""
        return (*self._source, self.rows.count, self.columns.count, 1, 1, 0, 0, 0)

    @property
    def _source(self) -> tuple[int, ...]:
        i, j = self.rows, self.columns
        pairs = ((i.taps, j.taps), (i.count, j.count), (i.stride, j.stride), (i.before, j.before), (i.step, j.step))
        return (*self.x.shape, self.F, *sum(pairs, ()))

    @property
    def filter(self) -> tuple[int, int, int, int, int]:
        """first, step_q, step_r, step_k, step_n of kernels/cuda/conv/pack.cu."""
        first = self.rows.filter * self.by_row + self.columns.filter * self.by_column
        steps = (self.rows.direction * self.by_row, self.columns.direction * self.by_column)
        return (first, *steps, self.by_channel, self.by_result)


def forward(p: Problem) -> list[Phase]:
    """The convolution itself: one phase."""
    top, _, left, _ = p.padding
    rows = Axis(p.OH, p.KH, p.stride[0], p.dilation[0], top)
    columns = Axis(p.OW, p.KW, p.stride[1], p.dilation[1], left)
    steps = (1, p.KH * p.KW * p.C, p.KW * p.C, p.C)
    return [Phase(p.x, p.w, p.y, p.b, rows, columns, *steps, p.activation)]


def grad_x(p: Problem) -> list[Phase]:
    """The gradient in x, or a transposed convolution: stride x stride phases, those without pixels left out."""
    top, _, left, _ = p.padding
    steps = (p.KH * p.KW * p.C, 1, p.KW * p.C, p.C)
    return [
        Phase(p.y, p.w, p.x, p.b, rows, columns, *steps, p.activation)
        for rows in turned(p.H, p.KH, p.stride[0], top, p.dilation[0])
        for columns in turned(p.W, p.KW, p.stride[1], left, p.dilation[1])
    ]


def turned(size: int, kernel: int, stride: int, before: int, dilation: int) -> list[Axis]:
    """The phases of one axis of dx, `size` long.

    dx[h] is the sum over taps u of dy[(h + before - u dilation) / stride] where that is whole: h and u belong to one
    phase if h + before = u dilation modulo stride. Phase taps are u0, u0 + m, ..., m = stride / gcd; they are turned,
    so that the source moves forward with them.
    """
    common = gcd(dilation, stride)
    found = []
    for phase in range(stride):
        first = (phase - before) % stride
        count = max(0, ceil_div(size - first, stride))
        taps = [u for u in range(kernel) if u * dilation % stride == phase]
        if count and taps:
            step = dilation // common
            nearest = (first + before - taps[0] * dilation) // stride  # the source of result 0 at the first tap
            start = (len(taps) - 1) * step - nearest
            found.append(Axis(count, len(taps), 1, step, start, stride, first, taps[-1], -stride // common))
        elif count:
            found.append(Axis(count, 0, 1, 1, 0, stride, first))
    return found


def pack_by_k(device: Device, phase: Phase, k_multiple: int = 1, f_multiple: int = 1) -> Any:
    """The filter as (taps, Kp, Fp), zeros up to these multiples."""
    kp, fp = ceil_div(phase.K, k_multiple) * k_multiple, ceil_div(phase.F, f_multiple) * f_multiple

    def pack() -> Any:
        packed = device.empty((phase.taps, kp, fp), phase.dtype)
        arguments = (packed, phase.w, packed.size, phase.columns.taps, phase.K, kp, phase.F, fp, *phase.filter)
        launch(device, PACK, "pack_by_k", phase.dtype, flat_grid(packed.size), THREADS, *arguments)
        return packed

    return keep_filter(device, phase, ("pack_by_k", kp, fp), pack)


def keep_filter(device: Device, phase: Phase, form: tuple, make: Callable[[], Any]) -> Any:
    """make(): what a step makes of the phase's filter, from the last call where weights are fixed (`kept.py`).

    form : the step's name for it, and its sizes
    """
    taps = (phase.rows.taps, phase.columns.taps)
    return keep(phase.w, (device.name, *taps, phase.filter, *form), make)
