"""How all kernels of this backend but convolution are threaded, and how they walk through channels.

Kernels make one pass, in pieces of `CHUNK` elements that stay in a core's L1/L2 cache, and each piece is a loop
`for i in range(piece.size)` over 1-D slices, the form in which Numba drops the checks for negative indices and LLVM
emits vector instructions.

Threads share the chunks. Chunks depend on the array's size alone, so the result has the same bits for any number of
threads. Below `SPLIT` elements one thread is faster than waking the others (some microseconds).

`THREADED` functions hold both ways, and the loop itself stands once, in the `SERIAL` function that they call.
"""

from __future__ import annotations

import numpy as np

# "contract" lets a * b + c be one fused operation; nothing else is relaxed: NaN, infinities and order stay.
THREADED = {"error_model": "numpy", "fastmath": {"contract"}, "parallel": True}
SERIAL = THREADED | {"parallel": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # not called by Python
ENTRY = THREADED | {"parallel": False}  # called by Python; calls THREADED functions
SPLIT = 1 << 15
CHUNK = 1 << 14
LANES = 512  # 2 KiB of float32: a few rows and the lane vectors fit the L1 cache
GROUP = 8  # rows of lanes that sums add in registers; chunks are whole groups


def layout(size: int, c: int) -> tuple[int, int, int]:
    """How to walk through `size` elements with one number per channel: (repetitions, elements in a chunk, chunks).

    A channel's values lie C apart, and C may be 1. So `LANES // C` pixels are taken at a time and the vectors of
    per-channel numbers are repeated as often: the inner loop always runs over some hundred neighbours in memory.

        x, flattened:      c0 c1 c2 c0 c1 c2 c0 c1 c2 ...        (C = 3, three pixels: a row of 9 lanes)
        slope, repeated:   s0 s1 s2 s0 s1 s2 s0 s1 s2
    """
    repeat = max(1, LANES // c)
    group = GROUP * repeat * c
    chunk = max(1, 4 * CHUNK // group) * group
    return repeat, chunk, -(-size // chunk)


def repeated(v: np.ndarray, times: int) -> np.ndarray:
    """The vector `times` over: what numpy.tile does, in a tenth of its time, which shows on small maps."""
    rows = np.empty((times, v.size), v.dtype)
    rows[:] = v
    return rows.reshape(-1)
