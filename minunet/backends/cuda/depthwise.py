"""Convolution of each channel by itself: kernels/cuda/depthwise.cu."""

from __future__ import annotations

from minunet.backends.cuda.columns import columns, finish
from minunet.backends.cuda.conv_problem import Problem
from minunet.backends.cuda.launch import launch
from minunet.backends.cuda.maps import maps

FILE = "depthwise.cu"


def depthwise_conv2d(device, y, x, w, b=None, *, stride, padding, dilation, activation):
    p = Problem.of(x, w, y, stride, padding, dilation, b, activation)
    g = maps(device, y, parts=(1,))
    launch(device, FILE, "depthwise_conv2d", y.dtype, g.grid, g.block, y, x, w, b, *p.sizes, p.activation)


def depthwise_conv2d_grad_x(device, dx, dy, w, *, stride, padding, dilation):
    p = Problem.of(dx, w, dy, stride, padding, dilation)
    g = maps(device, dx, parts=(1,))
    launch(device, FILE, "depthwise_conv2d_grad_x", dx.dtype, g.grid, g.block, dx, dy, w, *p.sizes)


def depthwise_conv2d_grad_w(device, dw, x, dy, *, stride, padding, dilation):
    p = Problem.of(x, dw, dy, stride, padding, dilation)
    taps = p.KH * p.KW
    g = columns(device, dy, narrow=True)
    partial = device.empty((taps, g.grid[1], p.O), x.dtype)
    grid = (*g.grid[:2], taps)
    launch(device, FILE, "depthwise_conv2d_grad_w_partial", x.dtype, grid, g.block, partial, x, dy, *p.sizes)
    finish(device, dw, partial, steps=(1, taps))  # dw (O, taps)
