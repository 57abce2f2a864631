"""Convolution: the rows' launchers. Which step of the ladder kernels/cuda/conv runs is decided in choose.py."""

from __future__ import annotations

from typing import Any

from minunet.backends.cuda.channel_sum import channel_sum
from minunet.backends.cuda.choose import choose
from minunet.backends.cuda.conv_problem import Problem
from minunet.backends.cuda.depthwise import depthwise_conv2d, depthwise_conv2d_grad_w, depthwise_conv2d_grad_x
from minunet.backends.cuda.launch import Device

__all__ = [
    "channel_sum",
    "conv2d",
    "conv2d_grad_w",
    "conv2d_grad_x",
    "depthwise_conv2d",
    "depthwise_conv2d_grad_w",
    "depthwise_conv2d_grad_x",
]


def conv2d(device: Device, y: Any, x: Any, w: Any, b: Any = None, *, stride, padding, dilation, activation) -> None:
    problem = Problem.of(x, w, y, stride, padding, dilation, b, activation)
    choose(device, "conv2d", problem)(device, problem)


def conv2d_grad_x(device: Device, dx: Any, dy: Any, w: Any, b: Any = None, *, stride, padding, dilation, activation):
    problem = Problem.of(dx, w, dy, stride, padding, dilation, b, activation)
    choose(device, "conv2d_grad_x", problem)(device, problem)


def conv2d_grad_w(device: Device, dw: Any, x: Any, dy: Any, *, stride, padding, dilation) -> None:
    problem = Problem.of(x, dw, dy, stride, padding, dilation)
    choose(device, "conv2d_grad_w", problem)(device, problem)
