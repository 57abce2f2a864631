"""How the implicit GEMMs, steps 4, 5, 7 and 8, deal their results and sums out to blocks.

At batch 1 the deep layers have few results, each of them a long sum: layer 10 of U-Net, 28 x 28 pixels of 1024
channels, is 56 tiles of 128 x 128 for 132 multiprocessors. So a sum may be split: blocks add up parts of the chunks
into a workspace, and kernels/cuda/conv/split.cu adds the parts in their order, then bias and activation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from minunet.backends.cuda.conv_phases import THREADS, Phase
from minunet.backends.cuda.conv_split import MULTIPROCESSORS, WORKSPACE
from minunet.backends.cuda.launch import Device, aligned, ceil_div, flat_grid, launch

SPLIT = "conv/split.cu"
MOST = 16  # parts
START = 6  # chunks: what a block waits for its first tiles and takes to write its results
ALONE = 1.25  # times as long as beside another block of its multiprocessor: a guess
GAP = 5000  # clocks from one kernel to the next, 3 us
L2_BYTES = 35  # a clock and multiprocessor: about 8 TB/s


class Plan(NamedTuple):
    """Rows and columns of a block's results, and how many blocks share a sum."""

    tile: tuple[int, int]
    parts: int


@lru_cache(maxsize=4096)
def plan(pixels: int, channels: int, chunks: int, depth: int, rate: int, dtype: np.dtype) -> Plan:
    """The tile and the number of parts with the least clocks, by `clocks`; of equals the fewest parts.

    pixels, channels : of the result
    chunks, depth    : the sum has `chunks` chunks of `depth` numbers
    rate             : multiply-adds of a multiprocessor in a clock
    Depends on sizes alone, so that sums keep their order on every device.

    >>> plan(784, 1024, 576, 16, 128, np.dtype(np.float32))
    Plan(tile=(128, 128), parts=7)
    """
    sides = (64,) if dtype == np.float64 else (64, 128)  # 128 x 128 doubles have not enough registers
    rows, columns = (max(64, ceil_div(size, 64) * 64) for size in (pixels, channels))
    tiles = [(m, n) for m, n in product(sides, sides) if m <= rows and n <= columns]
    nbytes = pixels * channels * dtype.itemsize
    most = max(1, min(MOST, chunks // START, WORKSPACE // max(1, nbytes)))
    found = [Plan(tile, parts) for parts in range(1, most + 1) for tile in tiles]
    return min(found, key=lambda p: clocks(p, pixels, channels, chunks, depth, rate, dtype.itemsize))


def clocks(p: Plan, pixels: int, channels: int, chunks: int, depth: int, rate: int, itemsize: int) -> float:
    """Clocks of a plan on 132 multiprocessors, computed: the fullest one's multiply-adds, those of small tiles slowed
    by their loads, and a block's own waits where no other fills them; of several parts the second kernel's traffic."""
    (m, n), parts = p
    blocks = ceil_div(pixels, m) * ceil_div(channels, n) * parts
    chunk = m * n * depth * (1 + 16 / m + 16 / n) / rate
    rounds = ceil_div(blocks, MULTIPROCESSORS)
    work = max(rounds, ALONE) * (ceil_div(chunks, parts) + START) * chunk
    if parts == 1:
        return work
    return work + GAP + (2 * parts + 1) * pixels * channels * itemsize / (MULTIPROCESSORS * L2_BYTES)


def convolve(
    device: Device, phase: Phase, p: Plan, chunks: int, run: Callable[[tuple[int, ...], Any, Any, tuple, int], None]
) -> None:
    """run(grid, y, b, sizes, chunks of a part) for the whole phase; where parts are several, into a workspace, and the
    second kernel after it."""
    (m, n), results = p.tile, phase.pixels * phase.F
    each = max(1, ceil_div(chunks, p.parts))
    parts = max(1, ceil_div(chunks, each))
    grid = (ceil_div(phase.pixels, m), ceil_div(phase.F, n), parts)
    if parts == 1:
        run(grid, phase.y, phase.b, phase.sizes, each)
        return
    partial = device.empty((parts, results), phase.dtype)
    run(grid, partial, None, phase.sizes_of_parts, each)
    vector = 16 // phase.dtype.itemsize
    wide = phase.F % vector == 0 and aligned(device, phase.y, *(() if phase.b is None else (phase.b,)))
    blocks = flat_grid(results, vector if wide else 1)
    shape = (phase.rows.count, phase.columns.count, *phase.y.shape[1:])
    where = (phase.rows.target, phase.columns.target, phase.rows.first, phase.columns.first)
    arguments = (phase.y, partial, phase.b, parts, results, *shape, *where, phase.activation, wide)
    launch(device, SPLIT, "split_finish", phase.dtype, blocks, THREADS, *arguments)
