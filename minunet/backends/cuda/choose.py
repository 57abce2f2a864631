"""Which step of the ladder kernels/cuda/conv runs a convolution: the one place where that is decided.

`LADDER` is the table of steps, `rule` the choice by pass, shape, dtype, precision and architecture. A step that cannot
do a shape is never chosen; another one, lower on the ladder, always can.

Why `rule` chooses as it does; computed for an H100 or H200 and float32, not measured. Plain multiply-adds: 128 a clock
and multiprocessor; mma.sync: about 600 in tf32, 1200 in 16 bits; a result written at 4.3 TB/s leaves time for 31.
- 9_few_in, few channels summed over: other steps cut the sum into chunks of 16 (32) channels, mostly zeros then: 1
  channel would use 1/16 of tf32's 600. Up to 36 terms a result the arrays' bytes bind anyway, whatever multiplies.
- 10_few_out, few results: a tile is 64 columns wide, 2 classes are 1/32 of it, 8 are 1/8: of tf32's 600, 75. Lanes that
  split the sum reach about 80 of the 128.
- grad_w of few x few channels: the same for tiles of 64 x 64; 9_few_in and 10_few_out read the large array once.
- Winograd from 32 channels: a quarter of the multiply-adds pays for the transforms' traffic.
- Few pixels and long sums: conv_parts.py splits the sum where that takes fewer clocks.
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
    conv_few,
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
    fits_w     : whether a problem can be done, for grad_w
    precisions : under which of `minunet.precision` its result is what was asked for
    least      : the oldest architecture, 10 major + minor
    double     : whether it is meant for float64 as well
    tiled      : whether its kernels are compiled for a tile, TILE_M x TILE_N
    shared     : bytes of dynamic shared memory of a kernel, with a tile of (rows, columns); where a step has none,
                 of U-Net's first layer
    """

    name: str
    forward: Pass | None
    grad_x: Pass | None
    grad_w: Pass | None
    fits: Callable[[Phase], bool] = lambda phase: True
    fits_w: Callable[[Problem], bool] = lambda problem: True
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
        return self.fits_w(p) if row == "conv2d_grad_w" else all(map(self.fits, phases(row, p)))


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
    Step(
        "9_few_in",
        *_each(conv_few.convolve_in),
        conv_few.grad_w_in,
        fits=conv_few.fits_in,
        fits_w=conv_few.fits_in_w,
        shared=conv_few.shared_first,
    ),
    Step(
        "10_few_out",
        *_each(conv_few.convolve_out),
        conv_few.grad_w_out,
        fits=conv_few.fits_out,
        fits_w=conv_few.fits_out_w,
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
    if row == "conv2d_grad_w":
        wanted = ["9_few_in", "10_few_out"]
        wanted += ["2_coalesced"] if p.KH * p.KW * p.C <= 32 else []
    else:
        wanted = ["9_few_in"] if all(map(conv_few.pays_in, phases(row, p))) else []
        wanted += ["10_few_out"]
        wanted += ["3_shared_tile", "2_coalesced"] if (p.C if row == "conv2d" else p.O) < FEW else []
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
