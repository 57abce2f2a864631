"""Normalisation within a pixel: across neighbouring channels (LRN), and to unit length.

Math     lrn: y_c = x_c / s_c^beta, s_c = 1 + a sum x_k^2 over a window of channels; l2: y = x / max(r, eps)
Layout   (pixels, channels), channels contiguous
Threads  lrn: an element each; l2: a row of the block (x lanes) for each pixel, y pixels
Memory   lrn: x and s, the window from L1; l2: x twice, once from L1; shared: one number a thread
Limit    DRAM bandwidth; lrn also the power: tens of instructions
Step     lrn keeps s in a workspace, so that the gradient's window reads it and computes one power less a neighbour
Needs    l2: blockDim.x a power of two
Twin     kernels/cuda/norm_local.cu, where a pixel's lanes add by warp shuffles
"""

from __future__ import annotations

import math

from numba import cuda

from minunet.kernels.numba_cuda.sizes import THREADS


@cuda.jit
def lrn_scale(s, x, size, a):
    C = x.shape[1]
    for k in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        p, c = k // C, k % C
        total = x.dtype.type(0)
        for e in range(max(c - size // 2, 0), min(c + (size - 1) // 2, C - 1) + 1):
            total += x[p, e] * x[p, e]
        s[p, c] = x.dtype.type(1) + a * total


@cuda.jit
def lrn(y, x, s, beta):
    C = x.shape[1]
    for k in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        p, c = k // C, k % C
        y[p, c] = x[p, c] * s[p, c] ** -beta


@cuda.jit
def lrn_grad(dx, dy, x, s, size, a, beta):
    """dx_c = dy_c / s_c^beta - 2 a beta x_c sum dy_k x_k / s_k^(beta + 1) over the k whose window holds c."""
    C, one = x.shape[1], x.dtype.type(1)
    for k in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        p, c = k // C, k % C
        total = x.dtype.type(0)
        for e in range(max(c - (size - 1) // 2, 0), min(c + size // 2, C - 1) + 1):
            total += dy[p, e] * x[p, e] * s[p, e] ** (-beta - one)
        dx[p, c] = dy[p, c] * s[p, c] ** -beta - (a + a) * beta * x[p, c] * total


@cuda.jit(device=True)
def _row_sum(a, scratch):
    """The sum of `a` over threadIdx.x, for each row of the block by itself."""
    t, half = cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockDim.x // 2
    cuda.syncthreads()
    scratch[t] = a
    cuda.syncthreads()
    while half > 0:
        if cuda.threadIdx.x < half:
            scratch[t] += scratch[t + half]
        cuda.syncthreads()
        half //= 2
    return scratch[cuda.threadIdx.y * cuda.blockDim.x]


@cuda.jit
def l2_normalize(y, x, eps):
    scratch = cuda.shared.array(THREADS, x.dtype)
    P, C = x.shape
    rows = cuda.blockDim.y
    for base in range(cuda.blockIdx.x * rows, P, cuda.gridDim.x * rows):  # the same turns for all: there are barriers
        p = base + cuda.threadIdx.y
        total = x.dtype.type(0)
        if p < P:
            for c in range(cuda.threadIdx.x, C, cuda.blockDim.x):
                total += x[p, c] * x[p, c]
        r = math.sqrt(_row_sum(total, scratch))
        if p < P:
            factor = x.dtype.type(1) / max(r, eps)
            for c in range(cuda.threadIdx.x, C, cuda.blockDim.x):
                y[p, c] = x[p, c] * factor


@cuda.jit
def l2_normalize_grad(dx, dy, x, eps):
    """dx = (dy - y sum dy_k y_k) / r where r > eps, else dy / eps."""
    scratch = cuda.shared.array(THREADS, x.dtype)
    P, C = x.shape
    rows = cuda.blockDim.y
    for base in range(cuda.blockIdx.x * rows, P, cuda.gridDim.x * rows):
        p = base + cuda.threadIdx.y
        square, product = x.dtype.type(0), x.dtype.type(0)
        if p < P:
            for c in range(cuda.threadIdx.x, C, cuda.blockDim.x):
                square += x[p, c] * x[p, c]
                product += dy[p, c] * x[p, c]
        r = math.sqrt(_row_sum(square, scratch))
        product = _row_sum(product, scratch)
        if p < P:
            factor = x.dtype.type(1) / max(r, eps)
            share = product * factor * factor if r > eps else x.dtype.type(0)
            for c in range(cuda.threadIdx.x, C, cuda.blockDim.x):
                dx[p, c] = factor * (dy[p, c] - share * x[p, c])
