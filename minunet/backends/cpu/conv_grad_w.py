"""Gradient of a convolution in its weights as sums of outer products over pixels, straight from NHWC memory.

    dw[o, u, v, c] = sum over n, i, j of dy[n, i, j, o] * x[n, i * sh + u * dh - top, j * sw + v * dw - left, c]

For each tap this is a matrix product whose inner dimension is the pixels: dy^T (O, pixels) @ x (pixels, C). Both
operands are read in place; padding only clips the range of pixels. Vectors lie along c, or along o where C is small
(then dw is built transposed). Pixels go in chunks that stay in L2; each chunk's sum is added to the total, which also
keeps float32 sums short. Work is split over pixels (S partial sums, added in order), taps and rows of the product.
Limit: multiply units; for few channels the loads.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minunet.jit import njit

from . import memory
from .simd import MAX_ROWS, address, lanes, prepare
from .simd_gemm import ACCUMULATE, outer, part, split

_CHUNK_PIXELS = 4096
_CHUNK_BYTES = 256 * 1024
_SUM_BYTES = 256 * 1024  # sums that one work item keeps in L2


@njit
def _clip(size, first, step, a, b):
    """Range of i in [a, b) with 0 <= first + i * step < size."""
    lo = max(a, -(first // step)) if first < 0 else a
    hi = min(b, (size - 1 - first) // step + 1)
    return lo, max(lo, hi)


@njit
def _sum_item(
    t, size, L, dy, x, out, N, H, W, C, OH, OW, O, KH, KW, sh, sw, dh, dw, top, left,
    swap, x_channels, line0, line1, tap0, tap1, m0, m1, chunk_rows
):  # fmt: skip
    """out = the sum over lines line0 .. line1 - 1 of dy, taps tap0 .. tap1 - 1, rows m0 .. m1 - 1 of the product.

    Rows (broadcast) and columns (vectors) of the product are (o, c); swapped, (c, o).
    """
    T = KH * KW
    M, Q = (x_channels, O) if swap else (O, x_channels)
    sum_row, sum_tap = (Q * size, M * Q * size) if swap else (T * Q * size, Q * size)
    x_col, x_row, dy_col, dy_row = sw * C * size, sh * W * C * size, O * size, OW * O * size
    parts = split(m1 - m0, MAX_ROWS)
    flags = 0
    line = line0
    while line < line1:
        n, i0 = line // OH, line % OH
        i1 = min(OH, i0 + min(chunk_rows, line1 - line))
        line += i1 - i0
        for tap in range(tap0, tap1):
            h, w = tap // KW * dh - top, tap % KW * dw - left
            a, b = _clip(H, h, sh, i0, i1)
            c, d = _clip(W, w, sw, 0, OW)
            at_x = x + ((n * H + a * sh + h) * W + c * sw + w) * C * size
            at_dy = dy + ((n * OH + a) * OW + c) * O * size
            for q in range(0, Q, 2 * L):
                nv = min(2, split(Q - q, L))
                for k in range(parts):
                    m, m_end = m0 + part(m1 - m0, parts, k), m0 + part(m1 - m0, parts, k + 1)
                    to = (b - a, d - c, out + tap * sum_tap + m * sum_row + q * size, sum_row, Q - q, flags)
                    if swap:
                        block = (at_x + m * size, x_col, x_row, at_dy + q * size, dy_col, dy_row)
                    else:
                        block = (at_dy + m * size, dy_col, dy_row, at_x + q * size, x_col, x_row)
                    outer(t, (m_end - m, nv) + block + to)
        flags = ACCUMULATE


@njit(parallel=True)
def _grad_w(
    t, size, L, dy, x, target, N, H, W, C, OH, OW, O, KH, KW, sh, sw, dh, dw, top, left,
    swap, x_channels, S, tap_groups, row_groups, chunk_rows
):  # fmt: skip
    M = x_channels if swap else O
    for item in prange(S * tap_groups * row_groups):
        g, rest = item % tap_groups, item // tap_groups
        r, s = rest % row_groups, rest // row_groups
        _sum_item(
            t, size, L, dy, x, target + s * KH * KW * O * x_channels * size,
            N, H, W, C, OH, OW, O, KH, KW, sh, sw, dh, dw, top, left, swap, x_channels,
            part(N * OH, S, s), part(N * OH, S, s + 1),
            part(KH * KW, tap_groups, g), part(KH * KW, tap_groups, g + 1),
            part(M, row_groups, r), part(M, row_groups, r + 1), chunk_rows,
        )  # fmt: skip


@njit(parallel=True)
def add_partial_sums(total, partial):
    """total[i] = partial[0, i] + partial[1, i] + ..., in this order."""
    S, n = partial.shape
    blocks = split(n, 4096)
    for b in prange(blocks):
        i0, i1 = part(n, blocks, b), part(n, blocks, b + 1)
        for i in range(i0, i1):
            total[i] = partial[0, i]
        for s in range(1, S):
            for i in range(i0, i1):
                total[i] += partial[s, i]


def grad_w(dw, x, dy, stride, padding, dilation, threads: int) -> None:
    """conv2d_grad_w through sums of outer products."""
    (N, H, W, C), (_, OH, OW, O) = x.shape, dy.shape
    KH, KW = dw.shape[1:3]
    size, L = x.itemsize, lanes(x.dtype)
    prepare(x.dtype, "outer")
    x_channels = C
    if dilation[1] == 1 and padding[2] == 0 and (OW - 1) * stride[1] + KW <= W:
        x_channels, KW = KW * C, 1  # taps of a row are neighbours in memory: wider pixels that overlap
    swap = x_channels < L and x_channels < O
    M, Q = (x_channels, O) if swap else (O, x_channels)
    T = KH * KW
    row_groups = max(1, min(M // MAX_ROWS, M * Q * size // _SUM_BYTES))
    tap_groups = max(1, min(T, T * M * Q * size // row_groups // _SUM_BYTES))
    S, groups = 1, row_groups * tap_groups
    while S < N * OH and groups * S < 8 * threads and groups * S % threads:  # as much work for each thread
        S += 1
    line_bytes = OW * (O + stride[0] * stride[1] * C) * size
    chunk_rows = max(1, min(_CHUNK_PIXELS // OW, _CHUNK_BYTES // line_bytes))
    direct = S == 1 and not swap
    sums = dw if direct else memory.empty((S, dw.size), dw.dtype)
    _grad_w(
        x.dtype.type(0), size, L, address(dy), address(x), address(sums), N, H, W, C, OH, OW, O, KH, KW,
        *stride, *dilation, padding[0], padding[2], swap, x_channels, S, tap_groups, row_groups, chunk_rows,
    )  # fmt: skip
    if direct:
        return
    if not swap:
        add_partial_sums(dw.reshape(-1), sums)
        return
    total = memory.empty((T, x_channels, O), dw.dtype)
    add_partial_sums(total.reshape(-1), sums)
    np.copyto(dw.reshape(O, T, x_channels), total.transpose(2, 0, 1))
