"""Launches over maps (N, H, W, C): the geometry of kernels/cuda/maps.cuh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minunet.backends.cuda.launch import THREADS, Device, aligned, ceil_div

MOST_ROWS = 65535  # of a grid's second axis; kernels step through the rest


@dataclass(frozen=True)
class Maps:
    """How an output (N, OH, OW, C) is dealt out."""

    wide: bool  # 16 bytes of channels a thread
    block: tuple[int, int]  # channel groups, columns
    grid: tuple[int, int]  # of columns, of rows


def maps(device: Device, y: Any, *others: Any, parts: tuple[int, ...] = ()) -> Maps:
    """The geometry for an output y (N, OH, OW, C); `others` are read or written in the same groups of channels.

    parts : further channel counts and offsets that groups of 16 bytes must not straddle
    """
    n, oh, ow, channels = y.shape
    vector = 16 // y.itemsize
    wide = all(size % vector == 0 for size in (channels, *parts)) and aligned(device, y, *others)
    groups = channels // vector if wide else channels
    x = min(32, 1 << (groups - 1).bit_length())
    return Maps(wide, (x, THREADS // x), (ceil_div(ow, THREADS // x), min(n * oh, MOST_ROWS)))
