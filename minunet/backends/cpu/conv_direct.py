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

import numpy as np
from numba import get_thread_id, njit, prange

from . import memory
from .simd import MAX_ROWS, Emit, address, copy_bytes, kernel, lanes, prepare, zero_bytes
from .simd_gemm import RELU, matmul, part, split

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


@njit(cache=True)
def pack_tap(t, size, L, w, O, T, C, tap, adjoint, panel, dst):
    """One tap of a panel: dst[k, 2 L lanes] = w[o, tap, c] with (k, lane) = (c, o), or (o, c) for the adjoint."""
    q0 = panel * 2 * L
    width = min(2, split((C if adjoint else O) - q0, L)) * L
    if adjoint:
        valid = min(width, C - q0)
        for o in range(O):
            row = dst + o * width * size
            copy_bytes(row, w + ((o * T + tap) * C + q0) * size, valid * size)
            if valid < width:
                zero_bytes(row + valid * size, (width - valid) * size)
        return
    for o in range(q0, min(q0 + width, split(O, L) * L), L):
        for c in range(0, C, L):
            src = w + ((o * T + tap) * C + c) * size
            to = dst + (c * width + o - q0) * size
            transpose(t, (src, T * C * size, to, width * size, O - o, min(C - c, L)))


@njit(cache=True)
def _patch(size, x, H, W, C, i, j, step, rows, taps, tap0, n_taps, dst):
    """dst[r, tap, :] = x[i + di, j + r * step + dj, :], zero outside the image."""
    for r in range(rows):
        for q in range(n_taps):
            h = i + taps[tap0 + q, 0]
            w = j + r * step + taps[tap0 + q, 1]
            to = dst + (r * n_taps + q) * C * size
            if 0 <= h < H and 0 <= w < W:
                copy_bytes(to, x + (h * W + w) * C * size, C * size)
            else:
                zero_bytes(to, C * size)


@njit(cache=True)
def _edge(t, size, L, y, y_col, x, H, W, C, i, j, step, n, phase, taps, zero, panels, p0, p1, K, O, bias, flags, patch):
    """`n` pixels of a row whose taps may lie outside the image: copy to a patch, multiply there."""
    tap0, n_taps = phase[4], phase[5]
    parts = split(n, MAX_ROWS)
    for q in range(parts):
        r0, r1 = part(n, parts, q), part(n, parts, q + 1)
        _patch(size, x, H, W, C, i, j + r0 * step, step, r1 - r0, taps, tap0, n_taps, patch)
        for p in range(p0, p1):
            q0 = p * 2 * L
            nv = min(2, split(O - q0, L))
            block = (r1 - r0, nv, patch, n_taps * C * size, zero, 1, n_taps * C, panels + q0 * K * size)
            b = bias + q0 * size if bias else 0
            matmul(t, block + (y + r0 * y_col + q0 * size, y_col, O - q0, b, flags))


@njit(cache=True)
def _phase_of(phases, item):
    """The phase a work item belongs to, and its number there."""
    ph = 0
    while item >= phases[ph, 10]:
        item -= phases[ph, 10]
        ph += 1
    return ph, item


@njit(cache=True)
def _line(
    t, size, L, y, x, bias, flags, H, W, C, OW, O, ish, isw, osw, i, j0, j1, phase, taps, table, zero, panels, p0, p1,
    patch
):  # fmt: skip
    """Pixels j0 .. j1 - 1 of one row of a phase, output panels p0 .. p1 - 1; y points to the row, x to the image."""
    tap0, n_taps, n_runs, run = phase[4], phase[5], phase[6], phase[7]
    lo = min(max(j0, phase[8]), j1)
    hi = max(min(j1, phase[9]), lo)
    if n_taps and not (i * ish + taps[tap0, 0] >= 0 and i * ish + taps[tap0 + n_taps - 1, 0] < H):
        lo = hi = j0
    y_col, K = osw * O * size, n_taps * C
    parts = split(hi - lo, MAX_ROWS)
    for p in range(p0, p1):
        q0 = p * 2 * L
        nv = min(2, split(O - q0, L))
        for q in range(parts):
            j, j_end = lo + part(hi - lo, parts, q), lo + part(hi - lo, parts, q + 1)
            at = x + (i * ish * W + j * isw) * C * size
            block = (j_end - j, nv, at, isw * C * size, table + 8 * tap0, n_runs, run * C, panels + q0 * K * size)
            b = bias + q0 * size if bias else 0
            matmul(t, block + (y + j * y_col + q0 * size, y_col, O - q0, b, flags))
    for e0, e1 in ((j0, lo), (hi, j1)):
        if e1 > e0:
            _edge(
                t, size, L, y + e0 * y_col, y_col, x, H, W, C, i * ish, e0 * isw, isw, e1 - e0,
                phase, taps, zero, panels, p0, p1, K, O, bias, flags, patch,
            )  # fmt: skip


@njit(parallel=True, cache=True)
def _tap_conv(
    t, size, L, y, x, w, bias, flags, adjoint, N, H, W, C, OH, OW, O, ish, isw, osh, osw,
    phases, taps, table, packed, patches, patch_bytes, T, group, column_blocks, items
):  # fmt: skip
    n_panels, columns = split(O, 2 * L), split(O, L) * L
    total = len(taps)
    Ow, Cw = (C, O) if adjoint else (O, C)  # the weights' own axes
    for item in prange(n_panels * total):
        p, q = item // total, item % total
        ph = 0
        while q >= phases[ph, 4] + phases[ph, 5]:
            ph += 1
        tap0, n_taps = phases[ph, 4], phases[ph, 5]
        width = min(2 * L, columns - p * 2 * L)
        dst = packed + (tap0 * columns + p * 2 * L * n_taps + (q - tap0) * width) * C * size
        pack_tap(t, size, L, w, Ow, T, Cw, taps[q, 2], adjoint, p, dst)

    n_groups = split(n_panels, group)
    for item in prange(items):
        ph, rest = _phase_of(phases, item)
        block, rest = rest % column_blocks, rest // column_blocks
        i, rest = rest % phases[ph, 2], rest // phases[ph, 2]
        n, g = rest % N, rest // N
        cols = phases[ph, 3]
        _line(
            t, size, L, y + ((n * OH + phases[ph, 0] + i * osh) * OW + phases[ph, 1]) * O * size,
            x + n * H * W * C * size, bias, flags, H, W, C, OW, O, ish, isw, osw,
            i, part(cols, column_blocks, block), part(cols, column_blocks, block + 1),
            phases[ph], taps, table, table + 8 * total, packed + phases[ph, 4] * columns * C * size,
            part(n_panels, n_groups, g), part(n_panels, n_groups, g + 1), patches + get_thread_id() * patch_bytes,
        )  # fmt: skip


@lru_cache(maxsize=1024)
def _plan(H, W, C, OH, OW, KH, KW, stride, padding, dilation, adjoint, N, size):
    """(phases, taps, segments, column_blocks) of `_tap_conv`; H, W are the read image, OH, OW the written one.

    A row of `phases`: a, b, rows, columns, first tap, taps, runs of taps that are neighbours in memory, taps in a run,
    first and end column whose taps all lie inside the image, work items per group of panels.
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
            phases.append((a, b, rows, cols, first, len(here), n_runs, run, *inside, N * rows * column_blocks))
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
    prepare(x.dtype, "matmul", "transpose")
    phases, taps, segments, column_blocks = _plan(H, W, C, OH, OW, KH, KW, stride, padding, dilation, adjoint, N, size)
    n_panels = split_ceil(O, 2 * L)
    longest = int(phases[:, 5].max())
    group = max(1, _GROUP_BYTES // max(1, longest * C * 2 * L * size))
    per_group = int(phases[:, 10].sum())
    group = min(group, n_panels, max(1, n_panels * per_group // (4 * threads)))
    phases = phases.copy()
    phases[:, 10] *= split_ceil(n_panels, group)
    packed = memory.scratch(KH * KW * C * split_ceil(O, L) * L * size)
    patch_bytes = MAX_ROWS * longest * C * size + 64
    patches = memory.scratch(threads * patch_bytes)
    (ish, isw), (osh, osw) = ((1, 1), stride) if adjoint else (stride, (1, 1))
    _tap_conv(
        x.dtype.type(0), size, L, address(y), address(x), address(w), 0 if b is None else address(b),
        RELU if activation == "relu" else 0, adjoint, N, H, W, C, OH, OW, O, ish, isw, osh, osw,
        phases, taps, address(segments), address(packed), address(patches), patch_bytes, KH * KW, group,
        column_blocks, int(phases[:, 10].sum()),
    )  # fmt: skip
