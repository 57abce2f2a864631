"""Softmax and cross-entropy over the classes of a pixel, safe for any logits: nothing above exp(0) is computed.

Math     softmax: y_k = exp(x_k - m) / S, m = max x, S = sum exp(x_k - m); loss: l = (m - x_t) + log S, t the target
Layout   logits (pixels, classes), target and weight map (pixels): classes contiguous
Threads  a pixel each, then every gridsize-th
Memory   logits once for the loss, a second time (from L1) for softmax and gradient; no softmax is stored for those
Limit    DRAM bandwidth up to 8 classes; above, a warp's loads lie `classes` numbers apart and L1 serves the rest
Step     one pass for maximum and sum: when a larger number comes, the sum so far is scaled to it
Needs    a target outside of the classes, unless it is the ignored one, gives NaN
Twin     kernels/cuda/loss.cu, where lanes of a warp share a pixel of many classes
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float64

from minunet.kernels.numba_cuda.reduce import block_sum
from minunet.kernels.numba_cuda.sizes import THREADS


@cuda.jit(device=True)
def _peak(x, p):
    """m = max_k x[p,k] and S = sum_k exp(x[p,k] - m), in one pass."""
    top, total = x[p, 0], x.dtype.type(1)
    for k in range(1, x.shape[1]):
        a = x[p, k]
        if a > top:
            total = total * math.exp(top - a) + x.dtype.type(1)
            top = a
        elif a == top:  # also where both are -inf, whose difference is NaN
            total += x.dtype.type(1)
        else:
            total += math.exp(a - top)
    return top, total


@cuda.jit(device=True)
def _cross_entropy(x, p, t):
    top, total = _peak(x, p)
    if t < 0 or t >= x.shape[1]:
        return top * x.dtype.type(np.nan)
    return (top - x[p, t]) + x.dtype.type(math.log(total))


@cuda.jit
def softmax(y, x):
    for p in range(cuda.grid(1), x.shape[0], cuda.gridsize(1)):
        top, total = _peak(x, p)
        for k in range(x.shape[1]):
            y[p, k] = math.exp(x[p, k] - top) / total


@cuda.jit
def softmax_grad(dx, dy, y):
    for p in range(cuda.grid(1), y.shape[0], cuda.gridsize(1)):
        total = y.dtype.type(0)
        for k in range(y.shape[1]):
            total += dy[p, k] * y[p, k]
        for k in range(y.shape[1]):
            dx[p, k] = y[p, k] * (dy[p, k] - total)


@cuda.jit
def softmax_cross_entropy_partial(partial, logits, target, weight_map, class_weight, mapped, classed, ignore_index):
    """partial (blocks, 3): sum of w l, sum of w, pixels counted. mapped, classed : whether those weights are there."""
    scratch = cuda.shared.array(THREADS, float64)
    loss, weight, count = 0.0, 0.0, 0.0
    for p in range(cuda.grid(1), logits.shape[0], cuda.gridsize(1)):
        t = target[p]
        if t != ignore_index:
            w = 1.0
            if mapped:
                w *= weight_map[p]
            if classed and t >= 0 and t < logits.shape[1]:
                w *= class_weight[t]
            loss += w * _cross_entropy(logits, p, t)
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
def softmax_cross_entropy_grad(
    dlogits, logits, target, dy, factor, weight_map, class_weight, mapped, classed, ignore_index
):
    """dy, factor : one number each, in the device's memory, for which the host would have had to wait."""
    scale = dy[0] * factor[0]
    for p in range(cuda.grid(1), logits.shape[0], cuda.gridsize(1)):
        t = target[p]
        if t == ignore_index:
            for k in range(logits.shape[1]):
                dlogits[p, k] = 0
            continue
        w = scale
        if mapped:
            w *= weight_map[p]
        if t < 0 or t >= logits.shape[1]:
            w *= logits.dtype.type(np.nan)
        elif classed:
            w *= class_weight[t]
        top, total = _peak(logits, p)
        for k in range(logits.shape[1]):
            share = math.exp(logits[p, k] - top) / total
            dlogits[p, k] = w * (share - logits.dtype.type(1) if k == t else share)


@cuda.jit
def pixel_cross_entropy(loss, logits, target, ignore_index):
    for p in range(cuda.grid(1), logits.shape[0], cuda.gridsize(1)):
        loss[p] = -1 if target[p] == ignore_index else _cross_entropy(logits, p, target[p])
