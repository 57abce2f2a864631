"""Step 1 of the convolution ladder: kernels/cuda/conv/1_naive.cu."""

from __future__ import annotations

from minunet.backends.cuda.conv_problem import Problem
from minunet.backends.cuda.launch import Device, ceil_div, launch

FILE = "conv/1_naive.cu"
BLOCK = 128


def forward(device: Device, p: Problem) -> None:
    grid = (ceil_div(p.N * p.OH * p.OW, BLOCK), p.O)
    launch(device, FILE, "conv2d", p.dtype, grid, BLOCK, p.y, p.x, p.w, p.b, *p.sizes, p.activation)


def grad_x(device: Device, p: Problem) -> None:
    grid = (ceil_div(p.N * p.H * p.W, BLOCK), p.C)
    launch(device, FILE, "conv2d_grad_x", p.dtype, grid, BLOCK, p.x, p.y, p.w, p.b, *p.sizes, p.activation)


def grad_w(device: Device, p: Problem) -> None:
    grid = (ceil_div(p.KH * p.KW * p.C, BLOCK), p.O)
    launch(device, FILE, "conv2d_grad_w", p.dtype, grid, BLOCK, p.w, p.x, p.y, *p.sizes)
