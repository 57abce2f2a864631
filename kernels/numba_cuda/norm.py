"""Batch normalisation: statistics, the normalised map, its gradient. (Ioffe & Szegedy 2015.)

Math     y = act(gamma z + beta), z = (x - mean) / s, s = sqrt(var + eps); dbeta = sum dy, dgamma = sum dy z,
         dx = gamma / s (dy - [training] (mean(dy) + z mean(dy z)))
Layout   x, dy (pixels, channels), channels contiguous; the rest (channels)
Threads  x channels, y pixels: a thread keeps its channel's numbers in registers and walks over pixels
Memory   moments: x once; normalise: x read, y written; gradient: dy and x twice, dx once; shared: 3 numbers a thread
Limit    DRAM bandwidth; moments also the division of each pixel's update
Step     moments in one pass without cancellation: count, mean and M2 = sum (x - mean)^2 of a thread's pixels (Welford
         1962), merged in a tree within the block and by a second kernel across blocks (Chan, Golub, LeVeque 1983)
Needs    blockDim.y a power of two
Twin     kernels/cuda/norm.cu
"""

from __future__ import annotations

import math

from numba import cuda

from minunet.backends import formulas
from minunet.kernels.numba_cuda.reduce import column_sum
from minunet.kernels.numba_cuda.sizes import THREADS

_relu = cuda.jit(device=True)(formulas.relu)


@cuda.jit(device=True)
def _column_merge(count, mean, m2):
    """Counts, means and M2 of the block's rows merged into row 0: shared, three numbers for each thread."""
    t, width, half = cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockDim.x, cuda.blockDim.y // 2
    cuda.syncthreads()
    while half > 0:
        if cuda.threadIdx.y < half:
            other = t + half * width
            n = count[t] + count[other]
            if n > 0:
                # The difference of the means counts for what lies between the two groups.
                delta, share = mean[other] - mean[t], count[other] / n
                m2[t] += m2[other] + delta * delta * count[t] * share
                mean[t] += delta * share
                count[t] = n
        cuda.syncthreads()
        half //= 2


@cuda.jit
def channel_moments_partial(partial, x):
    """partial (blocks, channels, 3): count, mean, M2 of each block's pixels."""
    count = cuda.shared.array(THREADS, x.dtype)
    mean = cuda.shared.array(THREADS, x.dtype)
    m2 = cuda.shared.array(THREADS, x.dtype)
    real = x.dtype.type
    c, p0 = cuda.grid(2)
    step, t = cuda.gridDim.y * cuda.blockDim.y, cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    n, average, spread = real(0), real(0), real(0)
    if c < x.shape[1]:
        for p in range(p0, x.shape[0], step):
            n += real(1)
            delta = x[p, c] - average
            average += delta / n
            spread += delta * (x[p, c] - average)
    count[t], mean[t], m2[t] = n, average, spread
    _column_merge(count, mean, m2)
    if cuda.threadIdx.y == 0 and c < x.shape[1]:
        partial[cuda.blockIdx.y, c, 0] = count[t]
        partial[cuda.blockIdx.y, c, 1] = mean[t]
        partial[cuda.blockIdx.y, c, 2] = m2[t]


@cuda.jit
def channel_moments_finish(average, variance, partial):
    count = cuda.shared.array(THREADS, partial.dtype)
    mean = cuda.shared.array(THREADS, partial.dtype)
    m2 = cuda.shared.array(THREADS, partial.dtype)
    real = partial.dtype.type
    c, first = cuda.grid(2)
    t = cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    n, middle, spread = real(0), real(0), real(0)
    if c < partial.shape[1]:
        for part in range(first, partial.shape[0], cuda.blockDim.y):
            more = partial[part, c, 0]
            if more > 0:
                both = n + more
                delta, share = partial[part, c, 1] - middle, more / both
                spread += partial[part, c, 2] + delta * delta * n * share
                middle += delta * share
                n = both
    count[t], mean[t], m2[t] = n, middle, spread
    _column_merge(count, mean, m2)
    if cuda.threadIdx.y == 0 and c < partial.shape[1]:
        average[c] = mean[t]
        variance[c] = m2[t] / count[t]


@cuda.jit
def batch_norm(y, x, mean, var, gamma, beta, eps, activation):
    c, p0 = cuda.grid(2)
    _, step = cuda.gridsize(2)
    if c < x.shape[1]:
        factor, centre, shift = gamma[c] / math.sqrt(var[c] + eps), mean[c], beta[c]
        for p in range(p0, x.shape[0], step):
            a = factor * (x[p, c] - centre) + shift
            y[p, c] = _relu(a) if activation else a


@cuda.jit
def batch_norm_grad_partial(partial, dy, x, mean, var, gamma, beta, relu, eps):
    """partial (2, blocks, channels): sums of dy z, and of dy. relu: whether it follows; then dy is that after it."""
    scratch = cuda.shared.array(THREADS, x.dtype)
    c, p0 = cuda.grid(2)
    step = cuda.gridDim.y * cuda.blockDim.y
    product, total = x.dtype.type(0), x.dtype.type(0)
    if c < x.shape[1]:
        centre, s = mean[c], math.sqrt(var[c] + eps)
        factor, shift = gamma[c] / s, beta[c]
        for p in range(p0, x.shape[0], step):
            if not relu or factor * (x[p, c] - centre) + shift > 0:
                product += dy[p, c] * ((x[p, c] - centre) / s)
                total += dy[p, c]
    product = column_sum(product, scratch)
    total = column_sum(total, scratch)
    if cuda.threadIdx.y == 0 and c < x.shape[1]:
        partial[0, cuda.blockIdx.y, c] = product
        partial[1, cuda.blockIdx.y, c] = total


@cuda.jit
def batch_norm_grad(dx, dy, x, mean, var, gamma, beta, relu, dgamma, dbeta, eps, share):
    """share : 1 / pixels in training, where mean and var move with x, else 0."""
    c, p0 = cuda.grid(2)
    _, step = cuda.gridsize(2)
    if c < x.shape[1]:
        centre, s = mean[c], math.sqrt(var[c] + eps)
        factor, shift, constant, slope = gamma[c] / s, beta[c], share * dbeta[c], share * dgamma[c] / s
        for p in range(p0, x.shape[0], step):
            passed = not relu or factor * (x[p, c] - centre) + shift > 0
            dx[p, c] = factor * ((dy[p, c] if passed else x.dtype.type(0)) - (constant + slope * (x[p, c] - centre)))
