"""Sums over pixels for each channel: the bias's gradient, averages over maps, the gate's gradient.

Math     db[c] = sum_p dy[p,c]; of a product: sum_p dy[p,c] x[p,c]; each for one sample or for all of them together
Layout   arrays (samples, pixels, channels), channels contiguous; partial (samples, parts, channels)
Threads  x channels, y pixels, z samples; stage 1 leaves blockIdx.y's part, stage 2 adds the parts with the same block
Memory   arrays once; partial sums: at most 1024 a channel; shared: one number a thread
Limit    DRAM bandwidth
Step     two stages: all parts are added in one order, so the result has the same bits every time
Needs    blockDim.y a power of two
Twin     kernels/cuda/channel_sum.cu
"""

from __future__ import annotations

from numba import cuda

from minunet.kernels.numba_cuda.reduce import column_sum
from minunet.kernels.numba_cuda.sizes import THREADS


@cuda.jit
def channel_sum_partial(partial, dy):
    scratch = cuda.shared.array(THREADS, dy.dtype)
    c, p0, n = cuda.grid(3)
    step = cuda.gridDim.y * cuda.blockDim.y
    total = dy.dtype.type(0)
    if c < dy.shape[2]:
        for p in range(p0, dy.shape[1], step):
            total += dy[n, p, c]
    total = column_sum(total, scratch)
    if cuda.threadIdx.y == 0 and c < dy.shape[2]:
        partial[n, cuda.blockIdx.y, c] = total


@cuda.jit
def product_sum_partial(partial, dy, x):
    scratch = cuda.shared.array(THREADS, dy.dtype)
    c, p0, n = cuda.grid(3)
    step = cuda.gridDim.y * cuda.blockDim.y
    total = dy.dtype.type(0)
    if c < dy.shape[2]:
        for p in range(p0, dy.shape[1], step):
            total += dy[n, p, c] * x[n, p, c]
    total = column_sum(total, scratch)
    if cuda.threadIdx.y == 0 and c < dy.shape[2]:
        partial[n, cuda.blockIdx.y, c] = total


@cuda.jit
def channel_sum_finish(out, partial, factor, steps):
    """out[n steps[0] + c steps[1]] = factor sum over parts of partial[n, part, c]."""
    scratch = cuda.shared.array(THREADS, partial.dtype)
    c, first, n = cuda.grid(3)
    total = partial.dtype.type(0)
    if c < partial.shape[2]:
        for part in range(first, partial.shape[1], cuda.blockDim.y):
            total += partial[n, part, c]
    total = column_sum(total, scratch)
    if cuda.threadIdx.y == 0 and c < partial.shape[2]:
        out[n * steps[0] + c * steps[1]] = factor * total
