"""Optimiser updates on the CPU: one pass over parameters and state, 20 (SGD) or 28 (Adam) bytes per parameter.

The state is updated where it lies. Were outputs and inputs separate arguments, LLVM could not know that they are
either the same array or apart, and would emit one element at a time for the case that matters.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from minunet.backends.cpu.loops import CHUNK, ENTRY, SERIAL, SPLIT, THREADED
from minunet.jit import njit


@njit(**SERIAL)
def _sgd_chunk(p, velocity, g, lr, momentum, weight_decay, nesterov):
    if nesterov:
        for i in range(p.size):
            h = g[i] + weight_decay * p[i]
            v = momentum * velocity[i] + h
            velocity[i] = v
            p[i] -= lr * (h + momentum * v)
    else:
        for i in range(p.size):
            v = momentum * velocity[i] + (g[i] + weight_decay * p[i])
            velocity[i] = v
            p[i] -= lr * v


@njit(**THREADED)
def _sgd(p, velocity, g, lr, momentum, weight_decay, nesterov):
    n = p.size
    if n < SPLIT:
        _sgd_chunk(p, velocity, g, lr, momentum, weight_decay, nesterov)
    else:
        for k in prange((n + CHUNK - 1) // CHUNK):
            a, b = k * CHUNK, (k + 1) * CHUNK
            _sgd_chunk(p[a:b], velocity[a:b], g[a:b], lr, momentum, weight_decay, nesterov)


def _onto(out: np.ndarray, state: np.ndarray) -> np.ndarray:
    """`out`, flat, holding the state; it usually is the state."""
    if out is not state:
        np.copyto(out, state)
    return out.reshape(-1)


def sgd(p_out, velocity_out, p, velocity, g, *, lr, momentum, weight_decay, nesterov):
    kind = p.dtype.type
    p, velocity = _onto(p_out, p), _onto(velocity_out, velocity)
    _sgd(p, velocity, g.reshape(-1), kind(lr), kind(momentum), kind(weight_decay), bool(nesterov))


@njit(**SERIAL)
def _adam_chunk(p, m, v, g, rate, beta1, rest1, beta2, rest2, correction, eps, weight_decay):
    for i in range(p.size):
        h = g[i] + weight_decay * p[i]
        m[i] = beta1 * m[i] + rest1 * h
        v[i] = beta2 * v[i] + rest2 * (h * h)
        p[i] -= rate * m[i] / (np.sqrt(v[i]) * correction + eps)


@njit(**THREADED)
def _adam(p, m, v, g, rate, beta1, rest1, beta2, rest2, correction, eps, weight_decay):
    n = p.size
    if n < SPLIT:
        _adam_chunk(p, m, v, g, rate, beta1, rest1, beta2, rest2, correction, eps, weight_decay)
    else:
        for k in prange((n + CHUNK - 1) // CHUNK):
            a, b = k * CHUNK, (k + 1) * CHUNK
            _adam_chunk(p[a:b], m[a:b], v[a:b], g[a:b], rate, beta1, rest1, beta2, rest2, correction, eps, weight_decay)


@njit(**ENTRY)
def _adam_step(p, m, v, g, lr, beta1, beta2, eps, weight_decay, step):
    # The bias corrections are scalars: lr / (1 - beta1^t) in front, 1 / sqrt(1 - beta2^t) behind the root.
    kind = p.dtype.type
    rate, correction = kind(lr / (1.0 - beta1**step)), kind(1.0 / math.sqrt(1.0 - beta2**step))
    rest1, rest2 = kind(1.0 - beta1), kind(1.0 - beta2)
    _adam(p, m, v, g, rate, kind(beta1), rest1, kind(beta2), rest2, correction, kind(eps), kind(weight_decay))


def adam(p_out, m_out, v_out, p, m, v, g, *, lr, beta1, beta2, eps, weight_decay, step):
    arrays = _onto(p_out, p), _onto(m_out, m), _onto(v_out, v), g.reshape(-1)
    _adam_step(*arrays, float(lr), float(beta1), float(beta2), float(eps), float(weight_decay), int(step))
