"""Depthwise convolution on the CPU: each channel by itself, vectors along the channels of a pixel.

Forward and its adjoint in x are the same computation: a pixel of the result is the sum, over a rectangle of taps, of a
pixel of the source times a row of weights, act(bias + sum). Tables say, for each row and column, which taps fall on the
image and where the first of them does; neighbouring columns with the same taps form runs (of the adjoint with stride s:
every s-th column). So borders need no padded copy and nothing is scattered.

A register block is up to 8 pixels of a run by one vector of channels: for each tap one load of weights, and a load and
a multiply-add for each pixel. Limit: load ports while the rows are in cache (9 loads for 8 multiply-adds), memory
bandwidth for large maps (3x3: 9 multiply-adds for 8 bytes).

The gradient of the weights keeps the sums of up to 14 taps in registers while the pixels of a run pass by.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np
from numba import get_num_threads, get_thread_id, prange

from minunet.jit import njit

from . import memory
from .loops import SPLIT
from .simd import MAX_ROWS, address, prepare
from .simd_depthwise import MAX_PIXELS, convolve, correlate
from .simd_gemm import part, split

_PARTS = 32  # sums of grad_w, each over a part of the rows: the same for any number of threads


class Axis(NamedTuple):
    """How the positions of the result meet the source, along one axis."""

    at: np.ndarray  # (out, 3): first tap, number of taps, source of the first tap
    source_step: int  # from one tap to the next: in the source
    tap_step: int  # ... and in the weights
    move: int  # how far the source moves when the result moves by `period`
    period: int


@lru_cache(maxsize=1024)
def _axis(out: int, size: int, kernel: int, stride: int, pad: int, dilation: int, adjoint: bool) -> Axis:
    """Forward: tap k of position p reads p stride - pad + k dilation. Adjoint: (p + pad - k dilation) / stride.

    Taps are taken in the order of the source, which for the adjoint is from the last to the first.
    Kernel 3, stride 1, pad 1: position 0 starts with tap 1 at source 0 and has two taps; position 1 has all three.
    """
    at = np.zeros((out, 3), np.int64)
    for p in range(out):
        if adjoint:
            reads = [(k, *divmod(p + pad - k * dilation, stride)) for k in range(kernel)]
        else:
            reads = [(k, p * stride - pad + k * dilation, 0) for k in range(kernel)]
        reads = [(k, s) for k, s, rest in reads if rest == 0 and 0 <= s < size]
        if reads:
            k, s = min(reads, key=lambda read: read[1])
            at[p] = k, len(reads), s
    if adjoint:
        common = gcd(stride, dilation)
        return Axis(at, dilation // common, -stride // common, 1, stride)
    return Axis(at, dilation, 1, stride, 1)


def _runs(axis: Axis, most: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(first position, positions, first tap, taps, source) of up to `most` positions with the same taps."""
    out = len(axis.at)
    for phase in range(min(axis.period, out)):
        positions = range(phase, out, axis.period)
        begin = 0
        for end in range(1, len(positions) + 1):
            if end < len(positions) and (axis.at[positions[end], :2] == axis.at[positions[begin], :2]).all():
                continue
            parts = -(-(end - begin) // most)
            for k in range(parts):
                a, b = (begin + (end - begin) * i // parts for i in (k, k + 1))
                first, taps, _ = axis.at[positions[a]]
                yield positions[a], b - a, first, taps, axis.at[positions[a], 2]
            begin = end


@lru_cache(maxsize=1024)
def _columns(out, size, kernel, stride, pad, dilation, adjoint, most) -> tuple[Axis, np.ndarray]:
    axis = _axis(out, size, kernel, stride, pad, dilation, adjoint)
    return axis, np.array(list(_runs(axis, most)), np.int64)


class Job(NamedTuple):
    """Geometry of one call and byte addresses; x is what is read, y what is written (grad_w: what meets x)."""

    size: int  # bytes of an element
    channels: int
    x: int
    H: int
    W: int
    y: int
    OH: int
    OW: int
    w: int  # weights, or sums of them, (KH, KW, channels)
    KH: int
    KW: int
    row_step: int
    row_tap: int
    column_step: int
    column_tap: int
    move: int
    period: int
    bias: int
    lowest: int


@njit
def _row(t, g, rows, runs, item):
    """Row `item` of the result, counted over the batch."""
    n, i = item // g.OH, item % g.OH
    pixel = g.channels * g.size
    first, taps, h = rows[i]
    x = g.x + (n * g.H + h) * g.W * pixel
    w = g.w + first * g.KW * pixel
    y = g.y + item * g.OW * pixel
    for r in range(len(runs)):
        j, pixels, column_first, column_taps, k = runs[r]
        source = (x + k * pixel, g.move * pixel, g.row_step * g.W * pixel, g.column_step * pixel)
        weights = (w + column_first * pixel, g.row_tap * g.KW * pixel, g.column_tap * pixel, taps, column_taps)
        convolve(t, (pixels, *source, *weights, y + j * pixel, g.period * pixel, g.channels, g.bias, g.lowest))


@njit(parallel=True)
def _convolve(t, g, rows, runs, items, threaded):
    if threaded:
        for item in prange(items):
            _row(t, g, rows, runs, item)
    else:
        for item in range(items):
            _row(t, g, rows, runs, item)


def _taps(w: np.ndarray) -> np.ndarray:
    """w (O, KH, KW, 1) as (KH, KW, O): channels side by side, as in the image."""
    return np.ascontiguousarray(w[..., 0].transpose(1, 2, 0))


def _apply(y, x, w, b, stride, padding, dilation, activation, adjoint: bool) -> None:
    (_, H, W, C), (N, OH, OW, _) = x.shape, y.shape
    prepare(x.dtype, "depthwise")
    weights = _taps(w)
    KH, KW = weights.shape[:2]
    bias = np.zeros(C, x.dtype) if b is None else b
    lowest = np.array([-np.inf if activation is None else 0], x.dtype)
    rows = _axis(OH, H, KH, stride[0], padding[0], dilation[0], adjoint)
    columns, runs = _columns(OW, W, KW, stride[1], padding[2], dilation[1], adjoint, MAX_PIXELS)
    job = Job(
        size=x.itemsize, channels=C, x=address(x), H=H, W=W, y=address(y), OH=OH, OW=OW, w=address(weights), KH=KH,
        KW=KW, row_step=rows.source_step, row_tap=rows.tap_step, column_step=columns.source_step,
        column_tap=columns.tap_step, move=columns.move, period=columns.period, bias=address(bias),
        lowest=address(lowest),
    )  # fmt: skip
    _convolve(x.dtype.type(0), job, rows.at, runs, N * OH, y.size >= SPLIT)


def depthwise_conv2d(y, x, w, b, *, stride, padding, dilation, activation):
    m = y.shape[3] // x.shape[3]
    _apply(y, np.repeat(x, m, axis=3) if m > 1 else x, w, b, stride, padding, dilation, activation, False)


def depthwise_conv2d_grad_x(dx, dy, w, *, stride, padding, dilation):
    n, h, wd, c = dx.shape
    m = dy.shape[3] // c
    wide = dx if m == 1 else memory.empty((n, h, wd, c * m), dx.dtype)
    _apply(wide, dy, w, None, stride, padding, dilation, None, True)
    if m > 1:
        np.sum(wide.reshape(n, h, wd, c, m), axis=4, out=dx)


@njit
def _sum_rows(t, g, rows, runs, table, at_table, sums, first_item, end_item):
    """sums (KH, KW, channels) += what rows first_item .. end_item - 1 of dy give."""
    pixel = g.channels * g.size
    for item in range(first_item, end_item):
        n, i = item // g.OH, item % g.OH
        first, taps, h = rows[i]
        for r in range(len(runs)):
            j, pixels, column_first, column_taps, k = runs[r]
            total = taps * column_taps
            for q in range(total):
                u, v = q // column_taps, q % column_taps
                table[2 * q] = (u * g.row_step * g.W + v * g.column_step) * pixel
                table[2 * q + 1] = ((first + u) * g.KW + column_first + v) * pixel
            x = g.x + ((n * g.H + h) * g.W + k) * pixel
            dy = g.y + (item * g.OW + j) * pixel
            parts = split(total, MAX_ROWS)
            for q in range(parts):
                a, b = part(total, parts, q), part(total, parts, q + 1)
                correlate(t, (b - a, at_table + 16 * a, x, g.move * pixel, dy, pixel, pixels, sums, g.channels))


@njit(parallel=True)
def _correlate(t, g, rows, runs, tables, at_tables, items, parts, threaded):
    sums = g.KH * g.KW * g.channels * g.size
    width = tables.shape[1]
    if threaded:
        for s in prange(parts):
            k = get_thread_id()
            a, b = part(items, parts, s), part(items, parts, s + 1)
            _sum_rows(t, g, rows, runs, tables[k], at_tables + 8 * k * width, g.w + s * sums, a, b)
    else:
        for s in range(parts):
            a, b = part(items, parts, s), part(items, parts, s + 1)
            _sum_rows(t, g, rows, runs, tables[0], at_tables, g.w + s * sums, a, b)


def depthwise_conv2d_grad_w(dw, x, dy, *, stride, padding, dilation):
    (N, OH, OW, O), (KH, KW) = dy.shape, dw.shape[1:3]
    m = O // x.shape[3]
    x = np.repeat(x, m, axis=3) if m > 1 else x
    H, W = x.shape[1:3]
    prepare(x.dtype, "depthwise_grad_w")
    parts = min(_PARTS, N * OH)
    sums = memory.empty((parts, KH, KW, O), dw.dtype)
    sums.fill(0)
    tables = np.empty((get_num_threads(), 2 * KH * KW), np.int64)
    rows = _axis(OH, H, KH, stride[0], padding[0], dilation[0], False)
    columns, runs = _columns(OW, W, KW, stride[1], padding[2], dilation[1], False, OW)
    job = Job(
        size=x.itemsize, channels=O, x=address(x), H=H, W=W, y=address(dy), OH=OH, OW=OW, w=address(sums), KH=KH,
        KW=KW, row_step=rows.source_step, row_tap=rows.tap_step, column_step=columns.source_step,
        column_tap=columns.tap_step, move=columns.move, period=columns.period, bias=0, lowest=0,
    )  # fmt: skip
    _correlate(x.dtype.type(0), job, rows.at, runs, tables, address(tables), N * OH, parts, x.size + dy.size >= SPLIT)
    dw[..., 0] = sums.sum(axis=0).transpose(2, 0, 1)
