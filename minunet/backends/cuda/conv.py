"""Convolution: which step of the ladder kernels/cuda/conv runs a row. The one place where that is chosen.

A step is a function of a device and of a `Problem` (arrays and sizes); it launches its kernels. `LADDER` lists the
steps of each row by name, from the naive one up; `choose` picks by shape and precision; `use_step` overrides it, for
tests and benches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from minunet.backends.cuda import conv_naive
from minunet.backends.cuda.channel_sum import channel_sum
from minunet.backends.cuda.conv_problem import Problem
from minunet.backends.cuda.depthwise import depthwise_conv2d, depthwise_conv2d_grad_w, depthwise_conv2d_grad_x
from minunet.backends.cuda.launch import Device

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

Step = Callable[[Device, Problem], None]
LADDER: dict[str, dict[str, Step]] = {
    "conv2d": {"1_naive": conv_naive.forward},
    "conv2d_grad_x": {"1_naive": conv_naive.grad_x},
    "conv2d_grad_w": {"1_naive": conv_naive.grad_w},
}
_step: ContextVar[str | None] = ContextVar("minunet_conv_step", default=None)


@contextmanager
def use_step(name: str) -> Iterator[None]:
    """Run every convolution inside the block by this step, whatever its shape, where its row has the step.

    Raises ValueError for a step that no row has, or that cannot do a call's shape.
    """
    known = sorted({step for steps in LADDER.values() for step in steps})
    if name not in known:
        raise ValueError(f"convolution step {name!r} is unknown; it is one of {', '.join(known)}")
    token = _step.set(name)
    try:
        yield
    finally:
        _step.reset(token)


def choose(row: str, problem: Problem) -> Step:
    """The step for this row and these sizes."""
    steps = LADDER[row]
    return steps.get(_step.get() or "", steps["1_naive"])


def conv2d(device: Device, y: Any, x: Any, w: Any, b: Any = None, *, stride, padding, dilation, activation) -> None:
    problem = Problem.of(x, w, y, stride, padding, dilation, b, activation)
    choose("conv2d", problem)(device, problem)


def conv2d_grad_x(device: Device, dx: Any, dy: Any, w: Any, b: Any = None, *, stride, padding, dilation, activation):
    problem = Problem.of(dx, w, dy, stride, padding, dilation, b, activation)
    choose("conv2d_grad_x", problem)(device, problem)


def conv2d_grad_w(device: Device, dw: Any, x: Any, dy: Any, *, stride, padding, dilation) -> None:
    problem = Problem.of(x, dw, dy, stride, padding, dilation)
    choose("conv2d_grad_w", problem)(device, problem)
