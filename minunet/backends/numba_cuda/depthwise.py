"""Convolution of each channel by itself: kernels/numba_cuda/depthwise.py."""

from __future__ import annotations

from minunet.backends.numba_cuda.launch import columns, finish, launch, optional, over_map

FILE = "depthwise"


def depthwise_conv2d(device, y, x, w, b=None, *, stride, padding, dilation, activation):
    sizes = (stride, padding, dilation, activation == "relu")
    over_map(device, FILE, "depthwise_conv2d", y, x, w.reshape(w.shape[:3]), *optional(b, w), *sizes)


def depthwise_conv2d_grad_x(device, dx, dy, w, *, stride, padding, dilation):
    over_map(device, FILE, "depthwise_conv2d_grad_x", dx, dy, w.reshape(w.shape[:3]), stride, padding, dilation)


def depthwise_conv2d_grad_w(device, dw, x, dy, *, stride, padding, dilation):
    o, kh, kw, _ = dw.shape
    grid, block = columns(dy.size // o, o, kh * kw)
    partial = device.empty((kh * kw, grid[1], o), x.dtype)
    arguments = (partial, x, dy, kw, stride, padding, dilation)
    launch(device, FILE, "depthwise_conv2d_grad_w_partial", grid, block, *arguments)
    finish(device, dw, partial, steps=(1, kh * kw))
