"""Step 1 of the convolution ladder: kernels/numba_cuda/conv_1_naive.py."""

from __future__ import annotations

from minunet.backends.numba_cuda.conv_problem import Problem
from minunet.backends.numba_cuda.launch import Device, flat

FILE = "conv_1_naive"


def forward(device: Device, p: Problem) -> None:
    flat(device, FILE, "conv2d", p.y.size, p.y, p.x, p.w, *p.epilogue, *p.geometry, p.relu)


def grad_x(device: Device, p: Problem) -> None:
    flat(device, FILE, "conv2d_grad_x", p.x.size, p.x, p.y, p.w, *p.epilogue, *p.geometry, p.relu)


def grad_w(device: Device, p: Problem) -> None:
    flat(device, FILE, "conv2d_grad_w", p.w.size, p.w, p.x, p.y, *p.geometry)
