"""Convolution as a sum of small products over taps, straight from NHWC memory (implicit GEMM), any shape.

Forward convolution and its adjoint in x are the same computation, written as a table of taps:

    y[n, i * osh + a, j * osw + b, :] = act(bias + sum over taps of x[n, i * ish + di, j * isw + dj, :] @ w[tap])

Forward: one phase (a, b) = (0, 0), osh = 1, ish = the stride. Adjoint: x is dy, ish = 1, osh = the stride, and each
phase (a, b) of the output grid is reached by its own taps only, so nothing is scattered and nothing added twice.

One register block is up to 14 pixels of a row by two vectors of output channels. Neighbouring taps of a row are
neighbours in memory, so a 3x3 filter is 3 runs of 3 * C numbers. Blocks that reach outside the image are first copied
to a small zero-filled patch. Limit: multiply units; weights of a group of panels stay in L2 while rows pass by.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import get_thread_id, prange

from minunet.jit import njit

from . import memory
from .simd import MAX_ROWS, Emit, address, copy_bytes, kernel, lanes, prepare, zero_bytes
from .simd_gemm import RELU, matmul_ahead, part, split

_GROUP_BYTES = 384 * 1024  # packed weights that stay in L2 (1 MiB on the machines this was tuned on)
_ROW_BLOCK = 256  # pixels of a row in one work item


def _transpose_block(e: Emit, src, src_row, dst, dst_row, n_rows, n_cols):
    build = e.b
    src, dst = e.pointer(src), e.pointer(dst)

    def emit(row_mask, guard):
        rows = [e.load(e.at(src, build.mul(src_row, e.int(r))), row_mask(r)) for r in range(e.lanes)]
        for k, column in enumerate(e.transpose(rows)):
            e.store(column, e.at(dst, build.mul(dst_row, e.int(k))), guard(k))

    full = build.and_(build.icmp_signed(">=", n_rows, e.int(e.lanes)), build.icmp_signed(">=", n_cols, e.int(e.lanes)))
    with build.if_else(full) as (whole, rest):
        with whole:
            emit(lambda r: None, lambda k: None)
        with rest:
            zero = e.int(0)
            emit(
                lambda r: e.mask(build.select(build.icmp_signed("<", e.int(r), n_rows), n_cols, zero)),
                lambda k: e.mask(build.select(build.icmp_signed("<", e.int(k), n_cols), e.int(e.lanes), zero)),
            )


# transpose(t, (src, src_row, dst, dst_row, n_rows, n_cols)):
#   dst[k, r] = src[r, k] for k < n_cols <= LANES and all LANES r, 0 for r >= n_rows; rows are strides in bytes.
transpose = kernel("transpose", 6, _transpose_block)


class Job(NamedTuple):
    """Geometry of one call, and where its arrays are (byte addresses); x is what is read, y what is written."""

    size: int  # bytes of an element
    L: int  # elements of a vector
    x: int
    N: int
    H: int
    W: int
    C: int
    y: int
    OH: int
    OW: int
    O: int
    ish: int  # strides of the read and of the written image
    isw: int
    osh: int
    osw: int
    w: int
    T: int  # taps of w
    adjoint: bool
    bias: int  # address, or 0 for none
    flags: int
    table: int  # byte offset of each run of taps, then a 0
    zero: int  # address of that 0
    packed: int  # weights in panels
    patches: int  # a thread's work space
    patch_bytes: int
    groups: int  # groups of output panels
    column_blocks: int


@njit
def _pack(t, g, phases, taps, item):
    """One tap of a panel: packed[k, 2 L lanes] = w[o, tap, c] with (k, lane) = (c, o), or (o, c) for the adjoint."""
    panel, tap = item // len(taps), item % len(taps)
    ph = 0
    while tap >= phases[ph, 4] + phases[ph, 5]:
        ph += 1
    size, L, first, q0 = g.size, g.L, phases[ph, 4], panel * 2 * g.L
    columns = split(g.O, L) * L
    width = min(2 * L, columns - q0)
    dst = g.packed + (first * columns + q0 * phases[ph, 5] + (tap - first) * width) * g.C * size
    which = taps[tap, 2]
    if g.adjoint:
        valid = min(width, g.O - q0)
        for k in range(g.C):
            row = dst + k * width * size
            copy_bytes(row, g.w + ((k * g.T + which) * g.O + q0) * size, valid * size)
            if valid < width:
                zero_bytes(row + valid * size, (width - valid) * size)
        return
    for o in range(q0, q0 + width, L):
        for c in range(0, g.C, L):
            src = g.w + ((o * g.T + which) * g.C + c) * size
            to = dst + (c * width + o - q0) * size
            transpose(t, (src, g.T * g.C * size, to, width * size, g.O - o, min(g.C - c, L)))


@njit
def _patch(g, image, i, j, rows, taps, dst):
    """dst[r, tap, :] = image[i + di, j + r * isw + dj, :], zero outside the image."""
    row = g.C * g.size
    for r in range(rows):
        for q in range(len(taps)):
            h, w = i + taps[q, 0], j + r * g.isw + taps[q, 1]
            to = dst + (r * len(taps) + q) * row
            if 0 <= h < g.H and 0 <= w < g.W:
                copy_bytes(to, image + (h * g.W + w) * row, row)
            else:
                zero_bytes(to, row)


@njit
def _multiply(t, g, rows, a, a_row, table, runs, length, panels, K, p, y, ahead):
    """`rows` pixels by panel p: y[r, :] = act(bias + A[r] @ panel); y points to channel 0 of the first pixel."""
    q0 = p * 2 * g.L
    nv = min(2, split(g.O - q0, g.L))
    bias = g.bias + q0 * g.size if g.bias else 0
    block = (rows, nv, a, a_row, table, runs, length, panels + q0 * K * g.size, y + q0 * g.size)
    matmul_ahead(t, block + (g.osw * g.O * g.size, g.O - q0, bias, g.flags, ahead, a_row))


@njit
def _line(t, g, phase, taps, n, i, group, block, patch):
    """Row i of a phase in image n: a block of its columns, a group of output panels."""
    tap0, n_taps, n_runs, run = phase[4], phase[5], phase[6], phase[7]
    taps = taps[tap0 : tap0 + n_taps]
    j0, j1 = part(phase[3], g.column_blocks, block), part(phase[3], g.column_blocks, block + 1)
    lo = min(max(j0, phase[8]), j1)
    hi = max(min(j1, phase[9]), lo)
    h, K = i * g.ish, n_taps * g.C
    if n_taps and not (h + taps[0, 0] >= 0 and h + taps[-1, 0] < g.H):
        lo = hi = j0
    pixel = g.C * g.size
    image = g.x + n * g.H * g.W * pixel
    y = g.y + ((n * g.OH + phase[0] + i * g.osh) * g.OW + phase[1]) * g.O * g.size
    y_col = g.osw * g.O * g.size
    panels = g.packed + tap0 * split(g.O, g.L) * g.L * pixel
    n_panels = split(g.O, 2 * g.L)
    p0, p1 = part(n_panels, g.groups, group), part(n_panels, g.groups, group + 1)
    # Pixels a multiple of 4096 bytes apart share one set of the L1 cache, which holds 8 lines.
    parts = split(hi - lo, min(7, MAX_ROWS) if g.isw * pixel % 4096 == 0 else MAX_ROWS)
    # While a block is multiplied, what the next row, or in a single row the next block, will read is fetched.
    ahead = g.ish * g.W * pixel if g.H > 1 else MAX_ROWS * pixel
    for q in range(parts):
        j, end = lo + part(hi - lo, parts, q), lo + part(hi - lo, parts, q + 1)
        at = image + (h * g.W + j * g.isw) * pixel
        table, to = g.table + 8 * tap0, y + j * y_col
        for p in range(p0, p1):
            then = ahead if p == p0 else 0
            _multiply(t, g, end - j, at, g.isw * pixel, table, n_runs, run * g.C, panels, K, p, to, then)
    for first, last in ((j0, lo), (hi, j1)):
        parts = split(last - first, MAX_ROWS)
        for q in range(parts):
            j, end = first + part(last - first, parts, q), first + part(last - first, parts, q + 1)
            _patch(g, image, h, j * g.isw, end - j, taps, patch)
            for p in range(p0, p1):
                _multiply(t, g, end - j, patch, K * g.size, g.zero, 1, K, panels, K, p, y + j * y_col, 0)


@njit
def _item(t, g, phases, taps, item, patch):
    """A row of the output is written by all its phases one after the other, while it is in the cache."""
    block, rest = item % g.column_blocks, item // g.column_blocks
    ph, rest = rest % len(phases), rest // len(phases)
    rows = split(g.OH, g.osh)
    i, rest = rest % rows, rest // rows
    if i < phases[ph, 2]:
        _line(t, g, phases[ph], taps, rest % g.N, i, rest // g.N, block, patch)


@njit(parallel=True)
def _tap_conv(t, g, phases, taps, packs, items):
    for item in prange(packs):
        _pack(t, g, phases, taps, item)
    for item in prange(items):
        _item(t, g, phases, taps, item, g.patches + get_thread_id() * g.patch_bytes)


@lru_cache(maxsize=1024)
def _plan(H, W, C, OH, OW, KH, KW, stride, padding, dilation, adjoint, size):
    """(phases, taps, segments, column_blocks) of `_tap_conv`; H, W are the read image, OH, OW the written one.

    A row of `phases`: a, b, rows, columns, first tap, taps, runs of taps that are neighbours in memory, taps in a run,
    first and end column whose taps all lie inside the image.
    A row of `taps`: di, dj, index into the weights. `segments`: byte offset of each run, then 0.
    """
    (sh, sw), (dh, dw), (top, left) = stride, dilation, (padding[0], padding[2])
    osh, osw = stride if adjoint else (1, 1)
    isw = 1 if adjoint else sw
    column_blocks = split_ceil(split_ceil(OW, osw), _ROW_BLOCK)
    phases, taps, segments = [], [], []
    for a in range(min(osh, OH)):
        for b in range(min(osw, OW)):
            if adjoint:
                us = [(u, (a + top - u * dh) // sh) for u in range(KH) if (a + top - u * dh) % sh == 0]
                vs = [(v, (b + left - v * dw) // sw) for v in range(KW) if (b + left - v * dw) % sw == 0]
            else:
                us = [(u, u * dh - top) for u in range(KH)]
                vs = [(v, v * dw - left) for v in range(KW)]
            here = sorted((di, dj, u * KW + v) for u, di in us for v, dj in vs)
            djs = sorted(dj for _, dj in vs)
            neighbours = all(q - p == 1 for p, q in itertools.pairwise(djs))
            run = len(djs) if neighbours else 1
            rows, cols = split_ceil(OH - a, osh), split_ceil(OW - b, osw)
            inside = (-(djs[0] // isw), (W - 1 - djs[-1]) // isw + 1) if here else (0, cols)
            first, n_runs = len(taps), len(here) // max(run, 1)
            phases.append((a, b, rows, cols, first, len(here), n_runs, run, *inside))
            segments += [(di * W + dj) * C * size for di, dj, _ in here[:: max(run, 1)]]
            segments += [0] * (len(here) - n_runs)  # so that phase and taps share their first index
            taps += here
    tables = (phases, np.reshape(taps, (-1, 3)), [*segments, 0])
    return *(np.ascontiguousarray(x, dtype=np.int64) for x in tables), column_blocks


def split_ceil(total: int, step: int) -> int:
    return -(-total // step)


def tap_conv(y, x, w, b, stride, padding, dilation, activation, adjoint: bool, threads: int) -> None:
    """conv2d, or with `adjoint` conv2d_grad_x (x is dy, y is dx), through `_tap_conv`."""
    (N, H, W, C), (_, OH, OW, O) = x.shape, y.shape
    KH, KW = w.shape[1:3]
    if KH == KW == 1 and stride == (1, 1) and not any(padding):
        N, H, W, OH, OW = 1, 1, N * H * W, 1, N * OH * OW  # pixels are independent: one long row
    size, L = x.itemsize, lanes(x.dtype)
    prepare(x.dtype, "matmul_ahead", "transpose")
    phases, taps, segments, column_blocks = _plan(H, W, C, OH, OW, KH, KW, stride, padding, dilation, adjoint, size)
    n_panels = split_ceil(O, 2 * L)
    longest = int(phases[:, 5].max())
    (ish, isw), (osh, osw) = ((1, 1), stride) if adjoint else (stride, (1, 1))
    items = N * split_ceil(OH, osh) * len(phases) * column_blocks
    group = max(1, min(_GROUP_BYTES // (max(1, len(taps)) * C * 2 * L * size), n_panels * items // (4 * threads)))
    groups = split_ceil(n_panels, group)
    packed = memory.scratch(KH * KW * C * split_ceil(O, L) * L * size)
    patch_bytes = MAX_ROWS * longest * C * size + 64
    patches = memory.scratch(threads * patch_bytes)
    job = Job(
        size=size, L=L, x=address(x), N=N, H=H, W=W, C=C, y=address(y), OH=OH, OW=OW, O=O, ish=ish, isw=isw,
        osh=osh, osw=osw, w=address(w), T=KH * KW, adjoint=adjoint, bias=0 if b is None else address(b),
        flags=RELU if activation == "relu" else 0, table=address(segments), zero=address(segments) + 8 * len(taps),
        packed=address(packed), patches=address(patches), patch_bytes=patch_bytes, groups=groups,
        column_blocks=column_blocks,
    )  # fmt: skip
    _tap_conv(x.dtype.type(0), job, phases, taps, n_panels * len(taps), items * groups)
