"""Products of matrices, one for each sample, tiled in shared memory and in registers.

Math     y[n,m,p] = sum_k A[n,m,k] B[n,k,p]; A and B are a and b, or their transposes
Layout   row-major, the last axis contiguous; stages (depth, side + 1) of both factors in shared memory
Threads  a block makes GEMM_M x GEMM_N of the product, a thread PER_THREAD x PER_THREAD of it; blockIdx.z the sample
Memory   a stage: GEMM_K (GEMM_M + GEMM_N) numbers for GEMM_K GEMM_M GEMM_N multiply-adds: 64 x 64 is 1/32 load for
         each; shared: 8.3 KB in float64; registers: 16 sums
Limit    issue rate: 8 shared loads for 16 multiply-adds; small products: too few blocks to fill the device
Step     a thread's 16 sums share what it reads; each factor is loaded along its contiguous axis, transposed or not
Needs    nothing: edges are filled with zeros
Twin     kernels/cuda/matmul.cu, where a thread has 4 sums of one column
"""

from __future__ import annotations

from numba import cuda

from minunet.kernels.numba_cuda.register_tile import multiply
from minunet.kernels.numba_cuda.sizes import (
    GEMM_DEEP,
    GEMM_K,
    GEMM_M,
    GEMM_N,
    GEMM_ROWS,
    GEMM_THREADS,
    PER_THREAD,
    PITCH_M,
    PITCH_N,
)


@cuda.jit
def matmul(y, a, b, transpose_a, transpose_b):
    left = cuda.shared.array((GEMM_K, PITCH_M), y.dtype)
    right = cuda.shared.array((GEMM_K, PITCH_N), y.dtype)
    total = cuda.local.array((PER_THREAD, PER_THREAD), y.dtype)
    t, n = cuda.threadIdx.y * GEMM_THREADS + cuda.threadIdx.x, cuda.blockIdx.z
    p0, m0 = cuda.blockIdx.x * GEMM_N, cuda.blockIdx.y * GEMM_M
    M, P = y.shape[1], y.shape[2]
    K = a.shape[1] if transpose_a else a.shape[2]
    zero = y.dtype.type(0)
    for r in range(PER_THREAD):
        for e in range(PER_THREAD):
            total[r, e] = 0
    for k0 in range(0, K, GEMM_K):
        # Neighbouring threads load neighbours in memory: along k, or where that is the outer axis along m or p.
        if transpose_a:  # a[n, k, m]
            m = t % GEMM_M
            for k in range(t // GEMM_M, GEMM_K, GEMM_DEEP):
                left[k, m] = a[n, k0 + k, m0 + m] if k0 + k < K and m0 + m < M else zero
        else:  # a[n, m, k]
            k = t % GEMM_K
            for m in range(t // GEMM_K, GEMM_M, GEMM_ROWS):
                left[k, m] = a[n, m0 + m, k0 + k] if k0 + k < K and m0 + m < M else zero
        if transpose_b:  # b[n, p, k]
            k = t % GEMM_K
            for p in range(t // GEMM_K, GEMM_N, GEMM_ROWS):
                right[k, p] = b[n, p0 + p, k0 + k] if k0 + k < K and p0 + p < P else zero
        else:  # b[n, k, p]
            p = t % GEMM_N
            for k in range(t // GEMM_N, GEMM_K, GEMM_DEEP):
                right[k, p] = b[n, k0 + k, p0 + p] if k0 + k < K and p0 + p < P else zero
        cuda.syncthreads()
        multiply(left, right, total)
        cuda.syncthreads()
    for r in range(PER_THREAD):
        m = m0 + cuda.threadIdx.y * PER_THREAD + r
        for e in range(PER_THREAD):
            p = p0 + cuda.threadIdx.x + e * GEMM_THREADS
            if m < M and p < P:
                y[n, m, p] = total[r, e]
