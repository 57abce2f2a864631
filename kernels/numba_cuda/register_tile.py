"""The heart of a product of matrices: a thread's PER_THREAD x PER_THREAD sums, fed from two tiles in shared memory.

A thread reads 2 PER_THREAD numbers from shared memory for PER_THREAD^2 multiply-adds: 8 for 16. The twin is the
product loop of kernels/cuda/conv/4_register_tile.cu, which reads four numbers at once.
"""

from __future__ import annotations

from numba import cuda

from minunet.kernels.numba_cuda.sizes import GEMM_K, GEMM_THREADS, PER_THREAD


@cuda.jit(device=True)
def multiply(left, right, total):
    """total[a, b] += sum_k left[k, row a] right[k, column b] for the thread's rows and columns.

    left (GEMM_K, PITCH_M), right (GEMM_K, PITCH_N) : shared; total (PER_THREAD, PER_THREAD) : registers

    Columns lie GEMM_THREADS apart, so that a warp's reads of `right` are neighbours; those of `left` are broadcasts.
    """
    row, column = cuda.threadIdx.y * PER_THREAD, cuda.threadIdx.x
    for k in range(GEMM_K):
        for a in range(PER_THREAD):
            l = left[k, row + a]
            for b in range(PER_THREAD):
                total[a, b] += l * right[k, column + b * GEMM_THREADS]
