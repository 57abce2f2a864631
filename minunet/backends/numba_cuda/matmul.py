"""Products of matrices: kernels/numba_cuda/matmul.py."""

from __future__ import annotations

from minunet.backends.numba_cuda.launch import ceil_div, launch
from minunet.backends.numba_cuda.library import sizes


def matmul(device, y, a, b, *, transpose_a, transpose_b):
    s = sizes()
    n, m, p = y.shape
    grid = (ceil_div(p, s.GEMM_N), ceil_div(m, s.GEMM_M), n)
    block = (s.GEMM_THREADS, s.GEMM_THREADS)
    launch(device, "matmul", "matmul", grid, block, y, a, b, bool(transpose_a), bool(transpose_b))
