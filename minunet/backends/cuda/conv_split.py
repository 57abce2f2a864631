"""Gradients in w: how the sum over pixels is split over blocks, and its second stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minunet.backends.cuda.columns import finish
from minunet.backends.cuda.conv_problem import Problem
from minunet.backends.cuda.launch import Device, ceil_div

MULTIPROCESSORS = 132  # of an H100 or H200. Not asked of the device: sums keep their order
BLOCKS = 4 * MULTIPROCESSORS  # wanted in all
WORKSPACE = 2**28  # bytes of partial sums at most
MOST = 4096  # splits: the second stage reads them one after the other


def splits(blocks: int, units: int, least: int, nbytes: int) -> tuple[int, int]:
    """(splits, units of each) for a sum over `units` rows or pixels by `blocks` blocks.

    least  : units that are worth a block
    nbytes : of one split's partial sums
    """
    wanted = min(ceil_div(BLOCKS, blocks), ceil_div(units, least), max(1, WORKSPACE // nbytes), MOST)
    each = ceil_div(ceil_div(units, wanted), least) * least
    return ceil_div(units, each), each


def split_sum(device: Device, p: Problem, count: int, partial_sums: Callable[[Any], None]) -> None:
    """Run `partial_sums(array (count, dw.size))` and add up; one split writes dw itself."""
    if count == 1:
        partial_sums(p.w)
        return
    partial = device.empty((1, count, p.w.size), p.dtype)
    partial_sums(partial)
    finish(device, p.w, partial)
