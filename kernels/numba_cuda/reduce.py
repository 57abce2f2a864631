"""Sums in a fixed order within a block: the same bits every run. No float atomics.

A sum over many blocks is two kernels: the first leaves a partial sum for each block in a workspace, the second adds
those. The twin, kernels/cuda/reduce.cuh, adds within a warp by shuffles; Numba's simulator has none, so here the
whole tree is in shared memory: log2(256) = 8 barriers where the twin has 2.
"""

from __future__ import annotations

from numba import cuda


@cuda.jit(device=True)
def block_sum(a, scratch):
    """The sum of `a` over a block of blockDim.x threads (a power of two), in every thread.

    scratch: shared (threads,)
    """
    t, half = cuda.threadIdx.x, cuda.blockDim.x // 2
    cuda.syncthreads()  # an earlier sum may still be read
    scratch[t] = a
    cuda.syncthreads()
    while half > 0:
        if t < half:
            scratch[t] += scratch[t + half]
        cuda.syncthreads()
        half //= 2
    return scratch[0]


@cuda.jit(device=True)
def column_sum(a, scratch):
    """Columns (threadIdx.x) of `a` added up over the rows (threadIdx.y, a power of two), in every row.

    scratch: shared (threads,)
    """
    width, half = cuda.blockDim.x, cuda.blockDim.y // 2
    t = cuda.threadIdx.y * width + cuda.threadIdx.x
    cuda.syncthreads()
    scratch[t] = a
    cuda.syncthreads()
    while half > 0:
        if cuda.threadIdx.y < half:
            scratch[t] += scratch[t + half * width]
        cuda.syncthreads()
        half //= 2
    return scratch[cuda.threadIdx.x]
