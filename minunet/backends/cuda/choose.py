"""Which step of the ladder kernels/cuda/conv runs a convolution: the one place where that is decided.

`LADDER` is the table of steps, `rule` the choice by pass, shape, dtype, precision and architecture. A step that cannot
do a shape is never chosen; another one, lower on the ladder, always can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

import numpy as np

from minunet import backends
from minunet.backends.cuda import (
    conv_coalesced,
    conv_naive,
    conv_phases,
    conv_shared_tile,
    conv_tensor,
    conv_tiles,
    conv_winograd,
)
from minunet.backends.cuda.conv_phases import Phase
from minunet.backends.cuda.conv_problem import Problem
from minunet.backends.cuda.launch import Device

Pass = Callable[[Device, Problem], None]
F32 = np.dtype(np.float32)
FULL = ("default", "strict")  # precisions whose products are of the arrays' own numbers


@dataclass(frozen=True)
class Step:
    """One rung: what it runs, and what it needs.

    forward, grad_x, grad_w : None where its idea does not apply
    fits       : whether a problem's phases (conv_phases.py) can be done, for forward and grad_x
    precisions : under which of `minunet.precision` its result is what was asked for
    least      : the oldest architecture, 10 major + minor
    double     : whether it is meant for float64 as well
    tiled      : whether its kernels are compiled for a tile, TILE_M x TILE_N
    shared     : bytes of dynamic shared memory of a kernel, with a tile of (rows, columns)
    """

    name: str
    forward: Pass | None
    grad_x: Pass | None
    grad_w: Pass | None
    fits: Callable[[Phase], bool] = lambda phase: True
    precisions: tuple[str, ...] = FULL
    least: int = 75
    double: bool = True
    tiled: bool = False
    shared: Callable[[str, tuple[int, int]], int] = lambda kernel, tile: 0

    @property
    def file(self) -> str:
        return f"conv/{self.name}.cu"

    def passes(self) -> dict[str, Pass]:
        """{row: function}"""
        rows = {"conv2d": self.forward, "conv2d_grad_x": self.grad_x, "conv2d_grad_w": self.grad_w}
        return {row: run for row, run in rows.items() if run is not None}

    def can(self, row: str, p: Problem, architecture: int = 1000) -> bool:
        if row not in self.passes() or architecture < self.least or (p.dtype != F32 and not self.double):
            return False
        return row == "conv2d_grad_w" or all(map(self.fits, phases(row, p)))


def phases(row: str, p: Problem) -> list[Phase]:
    return conv_phases.forward(p) if row == "conv2d" else conv_phases.grad_x(p)


def _each(convolve: Callable[[Device, Phase], None]) -> tuple[Pass, Pass]:
    """(forward, grad_x) of a step whose one kernel does a phase."""

    def run(row: str) -> Pass:
        def every_phase(device: Device, p: Problem) -> None:
            for phase in phases(row, p):
                convolve(device, phase)

        return every_phase

    return run("conv2d"), run("conv2d_grad_x")


STEPS = (
    Step("1_naive", conv_naive.forward, conv_naive.grad_x, conv_naive.grad_w),
    Step("2_coalesced", *_each(conv_coalesced.convolve), conv_coalesced.grad_w),
    Step("3_shared_tile", *_each(conv_shared_tile.convolve), conv_shared_tile.grad_w, fits=conv_shared_tile.fits),
    Step("4_register_tile", *_each(conv_tiles.register_convolve), conv_tiles.register_grad_w, tiled=True),
    Step(
        "5_double_buffer",
        *_each(conv_tiles.double_convolve),
        conv_tiles.double_grad_w,
        least=80,
        double=False,
        tiled=True,
    ),
    Step(
        "6_winograd",
        *_each(conv_winograd.convolve),
        None,
        fits=conv_winograd.fits,
        precisions=("default",),
        least=80,
        double=False,
        tiled=True,
    ),
    Step(
        "7_tensor_tf32",
        *_each(conv_tensor.tf32_convolve),
        conv_tensor.tf32_grad_w,
        precisions=("tf32",),
        least=80,
        double=False,
        tiled=True,
        shared=partial(conv_tensor.shared, conv_tensor.TF32),
    ),
    Step(
        "8_tensor_half",
        conv_tensor.half_forward,
        conv_tensor.half_grad_x,
        conv_tensor.half_grad_w,
        precisions=("bf16", "fp16"),
        least=80,
        double=False,
        tiled=True,
        shared=partial(conv_tensor.shared, conv_tensor.HALF),
    ),
)
LADDER: dict[str, Step] = {step.name: step for step in STEPS}
FEW = 8  # channels summed over, below which a tile of 16 would be mostly zeros
_step: ContextVar[str | None] = ContextVar("minunet_conv_step", default=None)


@contextmanager
def use_step(name: str) -> Iterator[None]:
    """Run every convolution inside the block by this step, whatever the rule says, in the passes that it has.

    Raises ValueError for a step that does not exist; a call inside of the block does for a shape, dtype or
    architecture that the step cannot do.
    """
    if name not in LADDER:
        raise ValueError(f"convolution step {name!r} is unknown; it is one of {', '.join(LADDER)}")
    token = _step.set(name)
    try:
        yield
    finally:
        _step.reset(token)


def rule(row: str, p: Problem, precision: str, architecture: int) -> str:
    """The name of the step for this pass, shape, dtype, precision and architecture."""
    summed = {"conv2d": p.C, "conv2d_grad_x": p.O, "conv2d_grad_w": p.C}[row]
    if row == "conv2d_grad_w":
        wanted = ["2_coalesced"] if p.KH * p.KW * p.C <= 32 else []
    else:
        wanted = ["3_shared_tile", "2_coalesced"] if summed < FEW else []
    wanted += [step.name for step in STEPS if precision in step.precisions and precision not in FULL]
    if precision == "default" and row != "conv2d_grad_w" and all(map(conv_winograd.pays, phases(row, p))):
        wanted.append("6_winograd")
    wanted += ["5_double_buffer", "4_register_tile"]
    return next(name for name in wanted if LADDER[name].can(row, p, architecture))


def choose(device: Device, row: str, p: Problem) -> Pass:
    """The function that does this row for this problem: by `use_step`, else by `rule`."""
    architecture, forced = device.architecture(), _step.get()
    if forced is not None and row in LADDER[forced].passes():
        if not LADDER[forced].can(row, p, architecture):
            sizes = f"x {p.x.shape}, w {p.w.shape}, {p.dtype}, stride {p.stride}, dilation {p.dilation}"
            raise ValueError(f"{row}: step {forced} cannot do {sizes} on sm_{architecture}")
        return LADDER[forced].passes()[row]
    return LADDER[rule(row, p, backends.asked_precision(), architecture)].passes()[row]
