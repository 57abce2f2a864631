"""Products of matrices: kernels/numba_cuda/matmul.py."""

from __future__ import annotations

from minunet.backends.numba_cuda.launch import ceil_div, launch
from minunet.backends.numba_cuda.library import sizes


def matmul(device, y, a, b, *, transpose_a, transpose_b):
    side = sizes().MATMUL
    n, m, p = y.shape
    grid = (ceil_div(p, side), ceil_div(m, side), n)
    launch(device, "matmul", "matmul", grid, (side, side), y, a, b, bool(transpose_a), bool(transpose_b))
