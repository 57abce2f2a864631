"""Launches over (pixels, channels): the geometry of kernels/cuda/pixels.cuh, and the second stage of channel sums."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from minunet.backends.cuda.launch import THREADS, Device, aligned, ceil_div, launch

ROWS = 16  # pixels for each thread before another block is worth its partial sums
BLOCKS = 1024  # in all: fills any device, and keeps the second stage short


@dataclass(frozen=True)
class Columns:
    """How an array (samples, pixels, channels) is dealt out. A function of shape and alignment alone, so that sums keep
    their order on every device."""

    samples: int
    pixels: int
    channels: int
    wide: bool  # 16 bytes of channels a thread
    block: tuple[int, int]  # channel groups, pixels
    grid: tuple[int, int, int]  # of channel groups, of pixels, of samples; the second is the number of partial sums


def columns(device: Device, array: Any, *others: Any, samples: int = 1, narrow: bool = False) -> Columns:
    """The geometry for arrays whose last axis is channels; `others` are those that a thread reads or writes like it.

    samples : how many parts, along the first axis, are summed each by itself
    narrow  : one channel a thread, though more would fit
    """
    channels = array.shape[-1]
    pixels, vector = prod(array.shape[:-1]) // samples, 16 // array.itemsize
    wide = not narrow and channels % vector == 0 and aligned(device, array, *others)
    groups = channels // vector if wide else channels
    x = _lanes(groups)
    y = THREADS // x
    across = ceil_div(groups, x)
    down = max(1, min(ceil_div(pixels, y * ROWS), BLOCKS // (across * samples)))
    return Columns(samples, pixels, channels, wide, (x, y), (across, down, samples))


def _lanes(groups: int) -> int:
    """Threads along the channels: a power of two up to a warp, so that rows of a block are a power of two as well."""
    return min(32, 1 << (groups - 1).bit_length())


def last_stage(channels: int, samples: int = 1) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Grid and block of a kernel that adds up partial sums: x channels, y parts, z samples."""
    x = _lanes(channels)
    return (ceil_div(channels, x), 1, samples), (x, THREADS // x)


def finish(device: Device, out: Any, partial: Any, factor: float = 1.0, steps: tuple[int, int] | None = None) -> None:
    """out[n, c] = factor sum over parts of partial (samples, parts, channels).

    steps : how far apart, in `out`, neighbouring samples and channels lie; (channels, 1) where nothing is said
    """
    samples, parts, channels = partial.shape
    arguments = (out, partial, parts, channels, factor, *(steps or (channels, 1)))
    launch(device, "channel_sum.cu", "channel_sum_finish", out.dtype, *last_stage(channels, samples), *arguments)


def lanes_of(channels: int) -> int:
    """Threads that share a pixel: one for 8 channels, then a power of two up to a warp."""
    return _lanes(ceil_div(channels, 8))
