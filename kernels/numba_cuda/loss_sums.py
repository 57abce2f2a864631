"""Losses that are sums over elements: binary cross-entropy, focal loss, overlap, distances; and their gradients.

Math     sums_k = sum_i f_k(x_i, t_i), in float64; gradient: dx_i = dy factor f'(x_i, t_i)
Layout   flat arrays of one shape; partial (blocks, sums)
Threads  an element each, then every gridsize-th
Memory   every input once; at most 1024 partial sums; shared: one float64 a thread
Limit    DRAM bandwidth; on GPUs with few float64 units the additions in float64
Step     two stages: blocks leave partial sums, one block adds them in a fixed order
Needs    blocks of THREADS, a power of two
Twin     kernels/cuda/loss_sums.cu
"""

from __future__ import annotations

import math

from numba import cuda, float64

from minunet.backends import formulas
from minunet.kernels.numba_cuda.reduce import block_sum
from minunet.kernels.numba_cuda.sizes import THREADS

_sigmoid_formula = cuda.jit(device=True)(formulas.sigmoid)
MSE, MAE, SMOOTH_L1 = range(3)
DICE, JACCARD = range(2)


@cuda.jit(device=True)
def _sigmoid(x):
    return _sigmoid_formula(x, type(x)(math.exp(-abs(x))))


@cuda.jit(device=True)
def _softplus(x):
    """log(1 + exp(x))."""
    return max(x, type(x)(0)) + type(x)(math.log1p(math.exp(-abs(x))))


@cuda.jit(device=True)
def _over_parts(partial, k, scratch):
    """The sum over blocks of partial[block, k], in every thread; all threads of the block must call."""
    total = 0.0
    for part in range(cuda.threadIdx.x, partial.shape[0], cuda.blockDim.x):
        total += partial[part, k]
    return block_sum(total, scratch)


@cuda.jit
def loss_finish(loss, factor, partial, divisor, count):
    """factor = 1 / (sum number `divisor`), 0 where that is not positive; with divisor < 0 it is 1 / count.

    loss = factor (sum number 0). One block does it; the numbers stay on the device.
    """
    scratch = cuda.shared.array(THREADS, float64)
    total = _over_parts(partial, 0, scratch)
    by = float64(count)
    if divisor >= 0:
        by = _over_parts(partial, divisor, scratch)
    if cuda.threadIdx.x == 0:
        inverse = 1.0 / by if by > 0.0 else 0.0
        loss[0] = total * inverse
        factor[0] = inverse


@cuda.jit
def overlap_finish(loss, slopes, partial, kind, smooth):
    """loss = 1 - u / v and slopes = (a, b), dloss/dp = a t + b, of the sums p t, p, t. One block does it."""
    scratch = cuda.shared.array(THREADS, float64)
    both = _over_parts(partial, 0, scratch)
    either = _over_parts(partial, 1, scratch) + _over_parts(partial, 2, scratch)
    if cuda.threadIdx.x == 0:
        u, v = both + smooth, either - both + smooth
        if kind == DICE:
            u, v = both + both + smooth, either + smooth
        if v == 0.0:  # nothing there and nothing found
            loss[0], slopes[0], slopes[1] = 0.0, 0.0, 0.0
        else:
            loss[0] = 1.0 - u / v
            slopes[0] = -2.0 / v if kind == DICE else -(u + v) / (v * v)
            slopes[1] = u / (v * v)


@cuda.jit
def sigmoid_cross_entropy_partial(partial, logits, target, weight_map, mapped, ignore_index):
    scratch = cuda.shared.array(THREADS, float64)
    loss, weight, count = 0.0, 0.0, 0.0
    for i in range(cuda.grid(1), logits.size, cuda.gridsize(1)):
        x, t = logits[i], target[i]
        if t != ignore_index:
            w = weight_map[i] if mapped else type(x)(1)
            loss += w * (_softplus(x) - x * t)
            weight += w
            count += 1.0
    loss = block_sum(loss, scratch)
    weight = block_sum(weight, scratch)
    count = block_sum(count, scratch)
    if cuda.threadIdx.x == 0:
        partial[cuda.blockIdx.x, 0] = loss
        partial[cuda.blockIdx.x, 1] = weight
        partial[cuda.blockIdx.x, 2] = count


@cuda.jit
def sigmoid_cross_entropy_grad(dlogits, logits, target, dy, factor, weight_map, mapped, ignore_index):
    scale = dy[0] * factor[0]
    for i in range(cuda.grid(1), logits.size, cuda.gridsize(1)):
        if target[i] == ignore_index:
            dlogits[i] = 0
        else:
            w = scale * weight_map[i] if mapped else scale
            dlogits[i] = w * (_sigmoid(logits[i]) - target[i])


@cuda.jit
def focal_loss_partial(partial, logits, target, gamma, alpha, ignore_index):
    scratch = cuda.shared.array(THREADS, float64)
    loss, count = 0.0, 0.0
    for i in range(cuda.grid(1), logits.size, cuda.gridsize(1)):
        t = target[i]
        if t != ignore_index:
            one = type(t)(1)
            z = (t + t - one) * logits[i]
            a = t * alpha + (one - t) * (one - alpha)
            loss += a * _sigmoid(-z) ** gamma * _softplus(-z)
            count += 1.0
    loss = block_sum(loss, scratch)
    count = block_sum(count, scratch)
    if cuda.threadIdx.x == 0:
        partial[cuda.blockIdx.x, 0] = loss
        partial[cuda.blockIdx.x, 1] = count


@cuda.jit
def focal_loss_grad(dlogits, logits, target, dy, factor, gamma, alpha, ignore_index):
    scale = dy[0] * factor[0]
    for i in range(cuda.grid(1), logits.size, cuda.gridsize(1)):
        t = target[i]
        if t == ignore_index:
            dlogits[i] = 0
        else:
            one = type(t)(1)
            sign = t + t - one
            z = sign * logits[i]
            q = _sigmoid(-z)
            a = t * alpha + (one - t) * (one - alpha)
            dlogits[i] = -scale * sign * a * q**gamma * (gamma * _sigmoid(z) * _softplus(-z) + q)


@cuda.jit
def overlap_partial(partial, p, target):
    scratch = cuda.shared.array(THREADS, float64)
    both, first, second = 0.0, 0.0, 0.0
    for i in range(cuda.grid(1), p.size, cuda.gridsize(1)):
        both += p[i] * target[i]
        first += p[i]
        second += target[i]
    both = block_sum(both, scratch)
    first = block_sum(first, scratch)
    second = block_sum(second, scratch)
    if cuda.threadIdx.x == 0:
        partial[cuda.blockIdx.x, 0] = both
        partial[cuda.blockIdx.x, 1] = first
        partial[cuda.blockIdx.x, 2] = second


@cuda.jit
def overlap_grad(dp, target, dy, slopes):
    a, b = dy[0] * slopes[0], dy[0] * slopes[1]
    for i in range(cuda.grid(1), dp.size, cuda.gridsize(1)):
        dp[i] = a * target[i] + b


@cuda.jit
def distance_partial(partial, x, target, kind):
    scratch = cuda.shared.array(THREADS, float64)
    total = 0.0
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        d = abs(x[i] - target[i])
        half = type(d)(0.5)
        if kind == MSE:
            total += d * d
        elif kind == MAE:
            total += d
        else:
            total += half * d * d if d < 1 else d - half
    total = block_sum(total, scratch)
    if cuda.threadIdx.x == 0:
        partial[cuda.blockIdx.x, 0] = total


@cuda.jit
def distance_grad(dx, x, target, dy, kind, inverse):
    """inverse : 1 / (number of elements)"""
    scale = dy[0] * inverse
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        d = x[i] - target[i]
        one = type(d)(1)
        slope = d + d
        if kind == SMOOTH_L1:
            slope = one if d > one else (-one if d < -one else d)  # a NaN stays one; max and min would drop it
        elif kind == MAE:
            slope = one if d > 0 else (-one if d < 0 else d)  # 0 and NaN stay
        dx[i] = scale * slope
