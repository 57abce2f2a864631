"""Products of matrices: kernels/cuda/matmul.cu."""

from __future__ import annotations

from minunet.backends.cuda.launch import ceil_div, launch

TILE, ROWS = 32, 8  # of matmul.cu: numbers of y along each axis, rows of threads


def matmul(device, y, a, b, *, transpose_a, transpose_b):
    n, m, p = y.shape
    k = a.shape[1] if transpose_a else a.shape[2]
    grid = (ceil_div(p, TILE), ceil_div(m, TILE), n)
    arguments = (y, a, b, m, k, p, transpose_a, transpose_b)
    launch(device, "matmul.cu", "matmul", y.dtype, grid, (TILE, ROWS), *arguments)
