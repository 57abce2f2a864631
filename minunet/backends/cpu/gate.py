"""Maps weighed by channel, and the gradient of the weights, in rows of lanes (see `loops.layout`).

The sums are taken as in `norm.py`: eight rows in registers, then one float64 per lane and chunk, then NumPy in the
order of memory; so they do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minunet.backends.cpu.loops import GROUP, SERIAL, SPLIT, THREADED, layout
from minunet.jit import njit


@njit(**SERIAL)
def _gate_chunk(y, x, g):
    width = g.size
    for a in range(0, x.size, width):
        row, out = x[a : a + width], y[a : a + width]
        for l in range(row.size):
            out[l] = row[l] * g[l]


@njit(**THREADED)
def _gate(y, x, g, chunk, chunks):
    """y, x (N, H W C); g (N, lanes); a task is a chunk of a sample."""
    if x.size < SPLIT:
        for n in range(x.shape[0]):
            _gate_chunk(y[n], x[n], g[n])
    else:
        for t in prange(x.shape[0] * chunks):
            n, a = t // chunks, t % chunks * chunk
            _gate_chunk(y[n, a : a + chunk], x[n, a : a + chunk], g[n])


def gate(y, x, g):
    n, c = x.shape[0], x.shape[3]
    repeat, chunk, chunks = layout(x.size // n, c)
    lanes = np.empty((n, repeat, c), g.dtype)
    lanes[:] = g[:, 0]  # (N, 1, C)
    _gate(y.reshape(n, -1), x.reshape(n, -1), lanes.reshape(n, -1), chunk, chunks)


@njit(**SERIAL)
def _add_products(dy, x, sums):
    """sums[l] += sum dy x over the rows of lanes."""
    width = sums.size
    done = x.size // (GROUP * width) * (GROUP * width)
    for a in range(0, done, GROUP * width):
        rows = x[a : a + GROUP * width].reshape(GROUP, width)
        grads = dy[a : a + GROUP * width].reshape(GROUP, width)
        for l in range(width):
            s = x.dtype.type(0)
            for r in range(GROUP):
                s += grads[r, l] * rows[r, l]
            sums[l] += s
    for a in range(done, x.size, width):
        row, grad = x[a : a + width], dy[a : a + width]
        for l in range(row.size):
            sums[l] += grad[l] * row[l]


@njit(**THREADED)
def _products(dy, x, chunk, sums):
    """sums (N, chunks, lanes) of dy, x (N, H W C)."""
    chunks = sums.shape[1]
    if x.size < SPLIT:
        for t in range(x.shape[0] * chunks):
            n, k = t // chunks, t % chunks
            _add_products(dy[n, k * chunk : (k + 1) * chunk], x[n, k * chunk : (k + 1) * chunk], sums[n, k])
    else:
        for t in prange(x.shape[0] * chunks):
            n, k = t // chunks, t % chunks
            _add_products(dy[n, k * chunk : (k + 1) * chunk], x[n, k * chunk : (k + 1) * chunk], sums[n, k])


def gate_grad_g(dg, dy, x):
    n, c = x.shape[0], x.shape[3]
    repeat, chunk, chunks = layout(x.size // n, c)
    sums = np.zeros((n, chunks, repeat * c))
    _products(dy.reshape(n, -1), x.reshape(n, -1), chunk, sums)
    dg[...] = sums.reshape(n, -1, c).sum(axis=1).reshape(dg.shape)
