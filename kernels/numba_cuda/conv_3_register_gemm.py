"""Convolution and its adjoints as a product of matrices that are never made (implicit GEMM), tiled in registers.

Math     forward: pixels x (taps, C) times (taps, C) x O; grad_x: pixels x (taps, O) times (taps, O) x C;
         grad_w: O x pixels times pixels x (taps, C), the pixels split over blockIdx.z into partial sums
Layout   as step 1; stages of both factors in shared memory, (depth, side + 1): the odd pitch spreads a column over
         the banks
Threads  a block makes GEMM_M x GEMM_N of the product, a thread PER_THREAD x PER_THREAD numbers of it
Memory   a stage: GEMM_K (GEMM_M + GEMM_N) numbers from L2 for GEMM_K GEMM_M GEMM_N multiply-adds: 64 x 64 is 1/32 load
         for each; shared: 8.3 KB in float64; registers: 16 sums and 8 operands
Limit    issue rate: 8 shared loads for 16 multiply-adds, 64-bit index arithmetic besides
Step     each number from shared memory serves PER_THREAD multiply-adds instead of one
Needs    nothing; worth it from 16 channels of the result on
Twin     kernels/cuda/conv/4_register_tile.cu, which packs w first and moves 16 bytes a load
"""

from __future__ import annotations

from numba import cuda

from minunet.backends import formulas
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

_relu = cuda.jit(device=True)(formulas.relu)


@cuda.jit
def conv2d(y, x, w, b, has_bias, OH, OW, stride, padding, dilation, activation):
    """y (pixels, O)."""
    left = cuda.shared.array((GEMM_K, PITCH_M), y.dtype)
    right = cuda.shared.array((GEMM_K, PITCH_N), y.dtype)
    total = cuda.local.array((PER_THREAD, PER_THREAD), y.dtype)
    N, H, W, C = x.shape
    O, KH, KW, _ = w.shape
    zero = y.dtype.type(0)
    t = cuda.threadIdx.y * GEMM_THREADS + cuda.threadIdx.x
    m0, o0, depth, pixels = cuda.blockIdx.x * GEMM_M, cuda.blockIdx.y * GEMM_N, KH * KW * C, N * OH * OW
    for a in range(PER_THREAD):
        for e in range(PER_THREAD):
            total[a, e] = 0
    for k0 in range(0, depth, GEMM_K):
        # Neighbouring threads load neighbouring channels: of pixels for the left factor, of filters for the right.
        column = t % GEMM_K
        k = k0 + column
        c, v, u = k % C, k // C % KW, k // (C * KW)
        for m in range(t // GEMM_K, GEMM_M, GEMM_ROWS):
            p = m0 + m
            n, h, l = p // (OH * OW), p // OW % OH * stride[0], p % OW * stride[1]
            h, l = h + u * dilation[0] - padding[0], l + v * dilation[1] - padding[2]
            inside = p < pixels and k < depth and h >= 0 and h < H and l >= 0 and l < W
            left[column, m] = x[n, h, l, c] if inside else zero
        for m in range(t // GEMM_K, GEMM_N, GEMM_ROWS):
            right[column, m] = w[o0 + m, u, v, c] if o0 + m < O and k < depth else zero
        cuda.syncthreads()
        multiply(left, right, total)
        cuda.syncthreads()
    for a in range(PER_THREAD):
        p = m0 + cuda.threadIdx.y * PER_THREAD + a
        for e in range(PER_THREAD):
            o = o0 + cuda.threadIdx.x + e * GEMM_THREADS
            if p < pixels and o < O:
                s = total[a, e] + b[o] if has_bias else total[a, e]
                y[p, o] = _relu(s) if activation else s


@cuda.jit
def conv2d_grad_x(dx, dy, w, b, has_bias, H, W, stride, padding, dilation, activation):
    """dx (pixels, C)."""
    left = cuda.shared.array((GEMM_K, PITCH_M), dx.dtype)
    right = cuda.shared.array((GEMM_K, PITCH_N), dx.dtype)
    total = cuda.local.array((PER_THREAD, PER_THREAD), dx.dtype)
    O, KH, KW, C = w.shape
    N, OH, OW, _ = dy.shape
    zero = dx.dtype.type(0)
    t = cuda.threadIdx.y * GEMM_THREADS + cuda.threadIdx.x
    m0, c0, depth, pixels = cuda.blockIdx.x * GEMM_M, cuda.blockIdx.y * GEMM_N, KH * KW * O, N * H * W
    for a in range(PER_THREAD):
        for e in range(PER_THREAD):
            total[a, e] = 0
    for k0 in range(0, depth, GEMM_K):
        column = t % GEMM_K
        k = k0 + column
        o, v, u = k % O, k // O % KW, k // (O * KW)
        for m in range(t // GEMM_K, GEMM_M, GEMM_ROWS):
            p = m0 + m
            n, h, l = p // (H * W), p // W % H, p % W
            h, l = h + padding[0] - u * dilation[0], l + padding[2] - v * dilation[1]
            i, j = h // stride[0], l // stride[1]
            inside = p < pixels and k < depth and i >= 0 and i < OH and j >= 0 and j < OW
            inside = inside and i * stride[0] == h and j * stride[1] == l
            left[column, m] = dy[n, i, j, o] if inside else zero
        # The right factor's rows lie along c in memory: a row of the tile at a time, so that loads are neighbours.
        column = t % GEMM_N
        for row in range(t // GEMM_N, GEMM_K, GEMM_DEEP):
            k = k0 + row
            o, v, u = k % O, k // O % KW, k // (O * KW)
            right[row, column] = w[o, u, v, c0 + column] if k < depth and c0 + column < C else zero
        cuda.syncthreads()
        multiply(left, right, total)
        cuda.syncthreads()
    for a in range(PER_THREAD):
        p = m0 + cuda.threadIdx.y * PER_THREAD + a
        for e in range(PER_THREAD):
            c = c0 + cuda.threadIdx.x + e * GEMM_THREADS
            if p < pixels and c < C:
                s = total[a, e] + b[c] if has_bias else total[a, e]
                dx[p, c] = _relu(s) if activation else s


@cuda.jit
def conv2d_grad_w_partial(partial, x, dy, KH, KW, stride, padding, dilation):
    """partial (splits, O, KH KW C): blockIdx.z's stretch of the pixels."""
    left = cuda.shared.array((GEMM_K, PITCH_M), x.dtype)
    right = cuda.shared.array((GEMM_K, PITCH_N), x.dtype)
    total = cuda.local.array((PER_THREAD, PER_THREAD), x.dtype)
    N, H, W, C = x.shape
    _, OH, OW, O = dy.shape
    zero = x.dtype.type(0)
    t = cuda.threadIdx.y * GEMM_THREADS + cuda.threadIdx.x
    o0, f0, width, pixels = cuda.blockIdx.x * GEMM_M, cuda.blockIdx.y * GEMM_N, KH * KW * C, N * OH * OW
    stretch = (pixels + cuda.gridDim.z - 1) // cuda.gridDim.z
    first, end = cuda.blockIdx.z * stretch, min((cuda.blockIdx.z + 1) * stretch, pixels)
    for a in range(PER_THREAD):
        for e in range(PER_THREAD):
            total[a, e] = 0
    # Both factors lie along channels in memory: a thread keeps its column of each, and with it the tap.
    o, f = o0 + t % GEMM_M, f0 + t % GEMM_N
    c, v, u = f % C, f // C % KW, f // (C * KW)
    for k0 in range(first, end, GEMM_K):
        for row in range(t // GEMM_M, GEMM_K, GEMM_DEEP):
            p = k0 + row
            n, i, j = p // (OH * OW), p // OW % OH, p % OW
            h, l = i * stride[0] + u * dilation[0] - padding[0], j * stride[1] + v * dilation[1] - padding[2]
            left[row, t % GEMM_M] = dy[n, i, j, o] if p < end and o < O else zero
            inside = p < end and f < width and h >= 0 and h < H and l >= 0 and l < W
            right[row, t % GEMM_N] = x[n, h, l, c] if inside else zero
        cuda.syncthreads()
        multiply(left, right, total)
        cuda.syncthreads()
    for a in range(PER_THREAD):
        o = o0 + cuda.threadIdx.y * PER_THREAD + a
        for e in range(PER_THREAD):
            f = f0 + cuda.threadIdx.x + e * GEMM_THREADS
            if o < O and f < width:
                partial[cuda.blockIdx.z, o, f] = total[a, e]
