"""Step 3 of the convolution ladder: kernels/numba_cuda/conv_3_register_gemm.py."""

from __future__ import annotations

from typing import Any

from minunet.backends.numba_cuda.conv_problem import Problem
from minunet.backends.numba_cuda.launch import Device, ceil_div, finish, launch, matrix
from minunet.backends.numba_cuda.library import sizes

FILE = "conv_3_register_gemm"
BLOCKS = 1024  # of grad_w in all
STAGES = 8  # of pixels, at least, before another block is worth its partial sums


def _product(device: Device, kernel: str, p: Problem, out: Any, other: Any) -> None:
    s = sizes()
    grid = (ceil_div(out.size // out.shape[3], s.GEMM_M), ceil_div(out.shape[3], s.GEMM_N))
    arguments = (matrix(out), other, p.w, *p.epilogue, *out.shape[1:3], *p.geometry, p.relu)
    launch(device, FILE, kernel, grid, (s.GEMM_THREADS, s.GEMM_THREADS), *arguments)


def forward(device: Device, p: Problem) -> None:
    _product(device, "conv2d", p, p.y, p.x)


def grad_x(device: Device, p: Problem) -> None:
    _product(device, "conv2d_grad_x", p, p.x, p.y)


def grad_w(device: Device, p: Problem) -> None:
    s = sizes()
    width, pixels = p.KH * p.KW * p.C, p.N * p.OH * p.OW
    tiles = (ceil_div(p.O, s.GEMM_M), ceil_div(width, s.GEMM_N))
    splits = max(1, min(ceil_div(pixels, STAGES * s.GEMM_K), s.MOST_PARTS, BLOCKS // (tiles[0] * tiles[1])))
    partial = device.empty((splits, p.O, width), p.x.dtype)
    arguments = (partial, p.x, p.y, p.KH, p.KW, *p.geometry)
    grid, block = (*tiles, splits), (s.GEMM_THREADS, s.GEMM_THREADS)
    launch(device, FILE, "conv2d_grad_w_partial", grid, block, *arguments)
    finish(device, p.w, partial.reshape(1, splits, -1))
