"""Convolution of each channel by itself, and its two adjoints.

Math     y[n,i,j,o] = act(b[o] + sum_{u,v} x[n, i sh + u dh - top, j sw + v dw - left, o // m] w[o,u,v]), m = O / C
Layout   x (N, H, W, C), w (O, KH, KW), y (N, OH, OW, O), channels contiguous (of w: the taps)
Threads  x channels, y columns, z rows of the result; grad_w: x channels, y pixels, z taps
Memory   each input KH KW times, but once from DRAM: neighbouring outputs find it in L1; grad_w: dy and x once a tap
Limit    L1 bandwidth: two loads for each multiply-add
Step     a thread an output, with channels of a warp side by side
Needs    nothing
Twin     kernels/cuda/depthwise.cu
"""

from __future__ import annotations

from numba import cuda

from minunet.backends import formulas
from minunet.kernels.numba_cuda.reduce import column_sum
from minunet.kernels.numba_cuda.sizes import THREADS

_relu = cuda.jit(device=True)(formulas.relu)


@cuda.jit
def depthwise_conv2d(y, x, w, b, has_bias, stride, padding, dilation, activation):
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, OH, OW, O = y.shape
    H, W, m = x.shape[1], x.shape[2], O // x.shape[3]
    KH, KW = w.shape[1], w.shape[2]
    for row in range(row0, N * OH, rows):
        n, i = row // OH, row % OH
        for j in range(j0, OW, js):
            for o in range(c0, O, cs):
                total = b[o] if has_bias else x.dtype.type(0)
                for u in range(KH):
                    h = i * stride[0] + u * dilation[0] - padding[0]
                    if h < 0 or h >= H:
                        continue
                    for v in range(KW):
                        k = j * stride[1] + v * dilation[1] - padding[2]
                        if k >= 0 and k < W:
                            total += x[n, h, k, o // m] * w[o, u, v]
                y[n, i, j, o] = _relu(total) if activation else total


@cuda.jit
def depthwise_conv2d_grad_x(dx, dy, w, stride, padding, dilation):
    """dx[n,h,k,c] = sum over its m outputs and the taps that read it: i sh = h + top - u dh."""
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, H, W, C = dx.shape
    OH, OW, m = dy.shape[1], dy.shape[2], dy.shape[3] // C
    KH, KW = w.shape[1], w.shape[2]
    for row in range(row0, N * H, rows):
        n, h = row // H, row % H
        for k in range(j0, W, js):
            for c in range(c0, C, cs):
                total = dy.dtype.type(0)
                for u in range(KH):
                    a = h + padding[0] - u * dilation[0]
                    i = a // stride[0]
                    if i < 0 or i >= OH or i * stride[0] != a:
                        continue
                    for v in range(KW):
                        a = k + padding[2] - v * dilation[1]
                        j = a // stride[1]
                        if j >= 0 and j < OW and j * stride[1] == a:
                            for o in range(c * m, c * m + m):
                                total += dy[n, i, j, o] * w[o, u, v]
                dx[n, h, k, c] = total


@cuda.jit
def depthwise_conv2d_grad_w_partial(partial, x, dy, KW, stride, padding, dilation):
    """partial (taps, blocks, O): the block's pixels of sum dy[n,i,j,o] x[n, i sh + u dh - top, ..., o // m]."""
    scratch = cuda.shared.array(THREADS, x.dtype)
    o, p0 = cuda.grid(2)
    step = cuda.gridDim.y * cuda.blockDim.y
    u, v = cuda.blockIdx.z // KW, cuda.blockIdx.z % KW
    N, H, W, C = x.shape
    _, OH, OW, O = dy.shape
    m = O // C
    total = x.dtype.type(0)
    if o < O:
        for p in range(p0, N * OH * OW, step):
            n, i, j = p // (OH * OW), p // OW % OH, p % OW
            h = i * stride[0] + u * dilation[0] - padding[0]
            k = j * stride[1] + v * dilation[1] - padding[2]
            if h >= 0 and h < H and k >= 0 and k < W:
                total += dy[n, i, j, o] * x[n, h, k, o // m]
    total = column_sum(total, scratch)
    if cuda.threadIdx.y == 0 and o < O:
        partial[cuda.blockIdx.z, cuda.blockIdx.y, o] = total
