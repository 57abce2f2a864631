"""Sum over pixels for each channel, the gradient of a bias. Limit: memory bandwidth, each number is read once."""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, prange

from minunet.jit import njit

from . import memory
from .simd import address, lanes, prepare
from .simd_gemm import ACCUMULATE, outer, part, split

_CHUNK = 1024  # pixels summed in registers before they are added to the total: keeps float32 sums short


@njit(parallel=True)
def _sum_rows(t, size, L, x, one, rows, columns, sums, S):
    """sums[s, q] = sum of x[r, q] over the s-th part of the rows."""
    for s in prange(S):
        r0, r1 = part(rows, S, s), part(rows, S, s + 1)
        flags = 0
        for r in range(r0, r1, _CHUNK):
            n = min(_CHUNK, r1 - r)
            for q in range(0, columns, 2 * L):
                nv = min(2, split(columns - q, L))
                a = (1, nv, one, 0, 0, x + (r * columns + q) * size, columns * size, 0)
                outer(t, a + (1, n, sums + (s * columns + q) * size, 0, columns - q, flags))
            flags = ACCUMULATE


def channel_sum(db: np.ndarray, dy: np.ndarray) -> None:
    """db[c] = sum over n, i, j of dy[n, i, j, c]; dy (N, H, W, C), db (C,)."""
    prepare(dy.dtype, "outer")
    C = db.size
    pixels = dy.size // C
    fold = max(1, 4 * lanes(dy.dtype) // C)  # few channels: several pixels side by side fill the vectors
    if pixels < 64 * fold:
        fold = 1
    rows = pixels // fold
    S = max(1, min(2 * get_num_threads(), rows // 64))
    one = np.ones(1, dy.dtype)
    sums = memory.empty((S, fold, C), dy.dtype)
    _sum_rows(
        dy.dtype.type(0), dy.itemsize, lanes(dy.dtype), address(dy), address(one), rows, fold * C, address(sums), S
    )
    np.sum(sums.reshape(-1, C), axis=0, out=db)
    if rows * fold < pixels:
        db += dy.reshape(pixels, C)[rows * fold :].sum(axis=0)
