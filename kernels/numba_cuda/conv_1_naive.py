"""Convolution and its two adjoints, as the formulas stand: the step that every other step is measured against.

Math     y[n,i,j,o] = act(b[o] + sum_{u,v,c} x[n, i sh + u dh - top, j sw + v dw - left, c] w[o,u,v,c])
Layout   x (N, H, W, C), w (O, KH, KW, C), y (N, OH, OW, O), the last axis contiguous
Threads  a number of the result each, then every gridsize-th: neighbouring threads on neighbouring channels
Memory   each result reads KH KW C numbers of x and as many of w; a warp reads one pixel of x, and 32 filters of w
Limit    load instructions: two for one multiply-add
Step     the first: no reuse, no shared memory
Needs    nothing: any sizes, strides, padding, dilation
Twin     kernels/cuda/conv/1_naive.cu
"""

from __future__ import annotations

from numba import cuda

from minunet.backends import formulas

_relu = cuda.jit(device=True)(formulas.relu)


@cuda.jit
def conv2d(y, x, w, b, has_bias, stride, padding, dilation, activation):
    _, H, W, C = x.shape
    O, KH, KW, _ = w.shape
    _, OH, OW, _ = y.shape
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        o, j, i, n = k % O, k // O % OW, k // (O * OW) % OH, k // (O * OW * OH)
        total = b[o] if has_bias else x.dtype.type(0)
        for u in range(KH):
            h = i * stride[0] + u * dilation[0] - padding[0]
            if h < 0 or h >= H:
                continue
            for v in range(KW):
                l = j * stride[1] + v * dilation[1] - padding[2]
                if l < 0 or l >= W:
                    continue
                for c in range(C):
                    total += x[n, h, l, c] * w[o, u, v, c]
        y[n, i, j, o] = _relu(total) if activation else total


@cuda.jit
def conv2d_grad_x(dx, dy, w, b, has_bias, stride, padding, dilation, activation):
    """The outputs (i, j) whose tap (u, v) reads (h, l): i sh = h + top - u dh, where that is a multiple of sh."""
    _, H, W, C = dx.shape
    O, KH, KW, _ = w.shape
    _, OH, OW, _ = dy.shape
    for k in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        c, l, h, n = k % C, k // C % W, k // (C * W) % H, k // (C * W * H)
        total = b[c] if has_bias else dy.dtype.type(0)
        for u in range(KH):
            a = h + padding[0] - u * dilation[0]
            i = a // stride[0]
            if i < 0 or i >= OH or i * stride[0] != a:
                continue
            for v in range(KW):
                a = l + padding[2] - v * dilation[1]
                j = a // stride[1]
                if j < 0 or j >= OW or j * stride[1] != a:
                    continue
                for o in range(O):
                    total += dy[n, i, j, o] * w[o, u, v, c]
        dx[n, h, l, c] = _relu(total) if activation else total


@cuda.jit
def conv2d_grad_w(dw, x, dy, stride, padding, dilation):
    """A thread adds all pixels of one weight, row by row: a row's sum loses less to rounding than one long sum."""
    N, H, W, C = x.shape
    _, KH, KW, _ = dw.shape
    _, OH, OW, _ = dy.shape
    for k in range(cuda.grid(1), dw.size, cuda.gridsize(1)):
        c, v, u, o = k % C, k // C % KW, k // (C * KW) % KH, k // (C * KW * KH)
        total = x.dtype.type(0)
        for n in range(N):
            for i in range(OH):
                h = i * stride[0] + u * dilation[0] - padding[0]
                if h < 0 or h >= H:
                    continue
                row = x.dtype.type(0)
                for j in range(OW):
                    l = j * stride[1] + v * dilation[1] - padding[2]
                    if l >= 0 and l < W:
                        row += dy[n, i, j, o] * x[n, h, l, c]
                total += row
        dw[o, u, v, c] = total
