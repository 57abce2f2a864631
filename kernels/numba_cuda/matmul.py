"""Products of matrices, one for each sample, tile by tile.

Math     y[n,m,p] = sum_k A[n,m,k] B[n,k,p]; A and B are a and b, or their transposes
Layout   row-major, the last axis contiguous
Threads  x columns p, y rows m, z samples: a block makes MATMUL x MATMUL of the product, a thread one number
Memory   A and B each K / MATMUL tiles a block: 1/16 of what a thread for each number alone would read; shared: 2 tiles
Limit    shared-memory reads: two for each multiply-add
Step     tiles in shared memory; a transposed tile is read along its rows and turned while it is stored
Needs    nothing: edges are filled with zeros
Twin     kernels/cuda/matmul.cu
"""

from __future__ import annotations

from numba import cuda

from minunet.kernels.numba_cuda.sizes import MATMUL, MATMUL_PITCH


@cuda.jit
def matmul(y, a, b, transpose_a, transpose_b):
    left = cuda.shared.array((MATMUL, MATMUL_PITCH), y.dtype)  # (m, k)
    right = cuda.shared.array((MATMUL, MATMUL_PITCH), y.dtype)  # (k, p)
    tx, ty, n = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.z
    p0, m0 = cuda.blockIdx.x * MATMUL, cuda.blockIdx.y * MATMUL
    M, P = y.shape[1], y.shape[2]
    K = a.shape[1] if transpose_a else a.shape[2]
    zero = y.dtype.type(0)
    total = zero
    for k0 in range(0, K, MATMUL):
        if transpose_a:  # a[n, k, m]
            left[tx, ty] = a[n, k0 + ty, m0 + tx] if k0 + ty < K and m0 + tx < M else zero
        else:
            left[ty, tx] = a[n, m0 + ty, k0 + tx] if m0 + ty < M and k0 + tx < K else zero
        if transpose_b:  # b[n, p, k]
            right[tx, ty] = b[n, p0 + ty, k0 + tx] if p0 + ty < P and k0 + tx < K else zero
        else:
            right[ty, tx] = b[n, k0 + ty, p0 + tx] if k0 + ty < K and p0 + tx < P else zero
        cuda.syncthreads()
        for k in range(MATMUL):
            total += left[ty, k] * right[k, tx]
        cuda.syncthreads()
    if m0 + ty < M and p0 + tx < P:
        y[n, m0 + ty, p0 + tx] = total
