"""Normalisation within a pixel, and a batch normalisation folded into the convolution before it.

Math     lrn: y_c = x_c / s_c^beta, s_c = 1 + a sum x_k^2 over a window of channels; l2: y = x / max(r, eps);
         fold: w' = f w, b' = f (b - mean) + beta, f = gamma / sqrt(var + eps)
Layout   (pixels, channels), channels contiguous; fold: w (outer, channels, inner)
Threads  lrn, fold: an element each; l2: a row of the block (x lanes) for each pixel, y pixels
Memory   lrn: x, its window from L1; its gradient: dy, x and two workspaces; l2: x twice, once from L1; shared:
         one number a thread
Limit    DRAM bandwidth; a power is tens of instructions
Step     lrn's gradient has one power for each element, 1 / s^beta, kept with what the element gives to its neighbours
Needs    l2: blockDim.x a power of two
Twin     kernels/cuda/norm_local.cu, whose lrn gradient takes a power for each neighbour, and whose lanes of a pixel
         add by warp shuffles
"""

from __future__ import annotations

import math

from numba import cuda

from minunet.kernels.numba_cuda.sizes import THREADS


@cuda.jit(device=True)
def _scale(x, p, c, size, a):
    """s_c = 1 + a sum of x_k^2 over k = c - size // 2 .. c + (size - 1) // 2."""
    total = x.dtype.type(0)
    for e in range(max(c - size // 2, 0), min(c + (size - 1) // 2, x.shape[1] - 1) + 1):
        total += x[p, e] * x[p, e]
    return x.dtype.type(1) + a * total


@cuda.jit
def lrn(y, x, size, a, beta):
    C = x.shape[1]
    for k in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        p, c = k // C, k % C
        y[p, c] = x[p, c] * _scale(x, p, c, size, a) ** -beta


@cuda.jit
def lrn_share(factor, share, dy, x, size, a, beta):
    """factor_c = 1 / s_c^beta; share_c = dy_c x_c / s_c^(beta + 1), what c gives to the gradient of its window."""
    C = x.shape[1]
    for k in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        p, c = k // C, k % C
        s = _scale(x, p, c, size, a)
        f = s**-beta
        factor[p, c] = f
        share[p, c] = dy[p, c] * x[p, c] * f / s


@cuda.jit
def lrn_grad(dx, dy, x, factor, share, size, slope):
    """dx_c = dy_c factor_c - slope x_c sum of share_k over the k whose window holds c; slope = 2 a beta."""
    C = x.shape[1]
    for k in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        p, c = k // C, k % C
        total = x.dtype.type(0)
        for e in range(max(c - (size - 1) // 2, 0), min(c + size // 2, C - 1) + 1):
            total += share[p, e]
        dx[p, c] = dy[p, c] * factor[p, c] - slope * x[p, c] * total


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
            factor = x.dtype.type(1) / (eps if r < eps else r)  # a NaN stays one; max would drop it
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
            factor = x.dtype.type(1) / (eps if r < eps else r)  # a NaN stays one; max would drop it
            share = product * factor * factor if r > eps else x.dtype.type(0)
            for c in range(cuda.threadIdx.x, C, cuda.blockDim.x):
                dx[p, c] = factor * (dy[p, c] - share * x[p, c])


@cuda.jit
def fold_weights(folded, w, var, gamma, eps):
    """folded, w (outer, channels, inner): each channel times gamma / sqrt(var + eps)."""
    _, C, inner = w.shape
    for k in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        o, c, i = k // (C * inner), k // inner % C, k % inner
        folded[o, c, i] = w[o, c, i] * (gamma[c] / math.sqrt(var[c] + eps))


@cuda.jit
def fold_bias(bias, mean, var, gamma, beta, b, has_bias, eps):
    for c in range(cuda.grid(1), mean.size, cuda.gridsize(1)):
        shift = b[c] - mean[c] if has_bias else -mean[c]
        bias[c] = gamma[c] / math.sqrt(var[c] + eps) * shift + beta[c]
