"""Grey values of training tiles: a gamma curve over the tile's own range, contrast and brightness, noise.

Math     gamma: y = low + (high - low) ((x - low) / (high - low))^power of the tile, low and high its extremes;
         stretch: y = factor[n,c] x + shift[n,c]; noise: y = x + sd[n] sqrt(-2 ln u) cos(2 pi v), u and v random bits
         of (seed, index)
Layout   gamma and noise: x and y (N, elements of a tile); stretch: (N, H, W, C); powers, sd (N), factor, shift (N, C)
Threads  gamma: y tiles, x elements; stretch: x channels, y columns, z rows; noise: a flat loop
Memory   input and output once; gamma reads the input twice, the second time from L2
Limit    DRAM bandwidth; noise: two 64-bit hashes, a logarithm and a cosine an element
Step     each block leaves its extremes, and every block of the second kernel joins them
Needs    gamma: blocks of THREADS threads
Twin     kernels/cuda/relight.cu
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from minunet.backends import formulas
from minunet.kernels.numba_cuda.sizes import THREADS

_splitmix = cuda.jit(device=True)(formulas.splitmix)


@cuda.jit(device=True, fastmath=True)
def _cos(a):
    """In float32 one instruction, exact to 2^-21 for 0 <= a < 2 pi; the exact one is made for any a, with double."""
    return math.cos(a)


@cuda.jit
def gamma_range(ranges, x):
    """The extremes of each block's elements, ranges (tiles, blocks, 2)."""
    lows = cuda.shared.array(THREADS, x.dtype)
    highs = cuda.shared.array(THREADS, x.dtype)
    k0, n = cuda.grid(2)
    step, t = cuda.gridDim.x * THREADS, cuda.threadIdx.x
    low, high = x[n, 0], x[n, 0]
    for k in range(k0, x.shape[1], step):
        low, high = min(low, x[n, k]), max(high, x[n, k])
    lows[t], highs[t] = low, high
    cuda.syncthreads()
    half = THREADS // 2
    while half > 0:
        if t < half:
            lows[t], highs[t] = min(lows[t], lows[t + half]), max(highs[t], highs[t + half])
        cuda.syncthreads()
        half //= 2
    if t == 0:
        ranges[n, cuda.blockIdx.x, 0], ranges[n, cuda.blockIdx.x, 1] = lows[0], highs[0]


@cuda.jit
def gamma_curve(y, x, ranges, powers):
    k0, n = cuda.grid(2)
    step = cuda.gridDim.x * THREADS
    low, high = ranges[n, 0, 0], ranges[n, 0, 1]
    for part in range(1, ranges.shape[1]):
        low, high = min(low, ranges[n, part, 0]), max(high, ranges[n, part, 1])
    span, power = high - low, powers[n]
    for k in range(k0, x.shape[1], step):
        a = x[n, k]
        y[n, k] = low + span * x.dtype.type(math.pow((a - low) / span, power)) if span > 0 else a


@cuda.jit
def stretch(y, x, factor, shift):
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, H, W, C = y.shape
    for row in range(row0, N * H, rows):
        n, i = row // H, row % H
        for j in range(j0, W, js):
            for c in range(c0, C, cs):
                y[n, i, j, c] = factor[n, c] * x[n, i, j, c] + shift[n, c]


@cuda.jit
def add_noise(y, x, sd, seed, unit, turn):
    """unit = 2^-24 and turn = 2 pi in x's dtype; seed: uint64, and so is all that meets it."""
    size = x.shape[1]
    real = x.dtype.type
    for k in range(cuda.grid(1), x.shape[0] * size, cuda.gridsize(1)):
        draw = np.uint64(2) * np.uint64(k)
        u = real(_splitmix(seed, draw) + np.uint64(1)) * unit
        v = real(_splitmix(seed, draw + np.uint64(1))) * unit
        n, e = k // size, k % size
        y[n, e] = x[n, e] + sd[n] * real(math.sqrt(real(-2) * real(math.log(u)))) * real(_cos(turn * v))
