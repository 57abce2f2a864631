"""Optimiser updates over flat arrays, in place or not.

Math     sgd and adam as in minunet/contract/optim.py (Kingma & Ba 2015, algorithm 1)
Layout   flat arrays of one size
Threads  an element each, then every gridsize-th
Memory   adam: 16 bytes read and 12 written for each parameter (float32), all of it once
Limit    DRAM bandwidth
Step     the whole update in one pass: nothing between its lines goes to memory
Needs    an output is the input of the same name or shares nothing with it
Twin     kernels/cuda/optim.cu
"""

from __future__ import annotations

import math

from numba import cuda


@cuda.jit
def sgd(p_out, velocity_out, p, velocity, g, lr, momentum, weight_decay, nesterov):
    for i in range(cuda.grid(1), p.size, cuda.gridsize(1)):
        h = g[i] + weight_decay * p[i]
        v = momentum * velocity[i] + h
        step = h + momentum * v if nesterov else v
        p_out[i] = p[i] - lr * step
        velocity_out[i] = v


@cuda.jit
def adam(p_out, m_out, v_out, p, m, v, g, lr, beta1, beta2, rest1, rest2, eps, weight_decay, correct1, correct2):
    """rest = 1 - beta and correct = 1 / (1 - beta^step), computed in float64 by the caller."""
    for i in range(cuda.grid(1), p.size, cuda.gridsize(1)):
        h = g[i] + weight_decay * p[i]
        first = beta1 * m[i] + rest1 * h
        second = beta2 * v[i] + rest2 * h * h
        p_out[i] = p[i] - lr * (first * correct1) / (math.sqrt(second * correct2) + eps)
        m_out[i] = first
        v_out[i] = second
