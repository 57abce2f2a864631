"""Convolution: which step of the ladder kernels/numba_cuda/conv_*.py runs a row. The one place where that is chosen.

`LADDER` lists the steps of each row by name, from the naive one up; `choose` picks by shape; `use_step` overrides it,
for tests and benches. Which step wins where was not measured: the rule follows from what each reads (their cards).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from minunet.backends.numba_cuda import conv_gemm, conv_naive, conv_tile
from minunet.backends.numba_cuda.channel_sum import channel_sum
from minunet.backends.numba_cuda.conv_problem import Problem
from minunet.backends.numba_cuda.depthwise import depthwise_conv2d, depthwise_conv2d_grad_w, depthwise_conv2d_grad_x
from minunet.backends.numba_cuda.launch import Device

__all__ = [
    "LADDER",
    "channel_sum",
    "choose",
    "conv2d",
    "conv2d_grad_w",
    "conv2d_grad_x",
    "depthwise_conv2d",
    "depthwise_conv2d_grad_w",
    "depthwise_conv2d_grad_x",
    "use_step",
]

NAIVE, TILE, GEMM = "1_naive", "2_shared_tile", "3_register_gemm"
LADDER: dict[str, dict[str, Callable[[Device, Problem], None]]] = {
    "conv2d": {NAIVE: conv_naive.forward, TILE: conv_tile.forward, GEMM: conv_gemm.forward},
    "conv2d_grad_x": {NAIVE: conv_naive.grad_x, TILE: conv_tile.grad_x, GEMM: conv_gemm.grad_x},
    "conv2d_grad_w": {NAIVE: conv_naive.grad_w, TILE: conv_tile.grad_w, GEMM: conv_gemm.grad_w},
}
FEW = 16  # channels of the result: below, three quarters of step 3's block would multiply zeros
_step: ContextVar[str | None] = ContextVar("minunet_numba_conv_step", default=None)


@contextmanager
def use_step(name: str) -> Iterator[None]:
    """Run every convolution inside the block by this step, whatever its shape.

    Raises ValueError for an unknown step, and, at the call, where the step cannot do a shape.
    """
    known = LADDER["conv2d"]
    if name not in known:
        raise ValueError(f"convolution step {name!r} is unknown; it is one of {', '.join(known)}")
    token = _step.set(name)
    try:
        yield
    finally:
        _step.reset(token)


def choose(row: str, problem: Problem) -> str:
    """The step for this row and these sizes."""
    if _step.get() is not None:
        if _step.get() == TILE and not conv_tile.fits(row, problem):
            raise ValueError(f"{row}: step {TILE} has no room for a halo tile of these sizes; use another step")
        return _step.get()
    across = {"conv2d": problem.O, "conv2d_grad_x": problem.C, "conv2d_grad_w": problem.O}[row]
    if across >= FEW and problem.C * problem.KH * problem.KW >= FEW:
        return GEMM
    return TILE if conv_tile.fits(row, problem) else NAIVE


def _run(device: Device, row: str, problem: Problem) -> None:
    LADDER[row][choose(row, problem)](device, problem)


def conv2d(device: Device, y: Any, x: Any, w: Any, b: Any = None, *, stride, padding, dilation, activation) -> None:
    _run(device, "conv2d", Problem(x, w, y, stride, padding, dilation, b, activation))


def conv2d_grad_x(device: Device, dx: Any, dy: Any, w: Any, b: Any = None, *, stride, padding, dilation, activation):
    _run(device, "conv2d_grad_x", Problem(dx, w, dy, stride, padding, dilation, b, activation))


def conv2d_grad_w(device: Device, dw: Any, x: Any, dy: Any, *, stride, padding, dilation) -> None:
    _run(device, "conv2d_grad_w", Problem(x, dw, dy, stride, padding, dilation))
