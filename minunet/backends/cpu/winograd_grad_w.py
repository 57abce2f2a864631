"""Gradient of a 3x3 convolution of stride 1 in its weights by Winograd's minimal filtering, float32.

dw is itself a correlation: 3 x 3 results of x with "filters" dy. Cut dy into m x m tiles, F(3x3, m x m):

    dw_oc = A^T [ sum over tiles of (G dy_o G^T) * (B^T x_c B) ] A
    m = 4: 36 products for 144; m = 6: 64 for 324, but the sums of fewer channels fit in L2

A work item owns the sums S[xi, o, c] for a group of o and a group of c, which stay in L2, and runs over the tiles block
by block: transform, then for each xi the outer products of the block. With few channels the tiles are split too, and
the partial dw are added in order. Limit: multiply units, or loads where a group has few channels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import get_thread_id, prange

from minunet.jit import njit

from . import memory
from .conv_grad_w import add_partial_sums
from .simd import MAX_ROWS, address, lanes, prepare
from .simd_gemm import ACCUMULATE, outer, part, split
from .winograd import INPUT4, INPUT6, OUTPUT_GRAD4, OUTPUT_GRAD6, padded_row, round_up, transform_tiles
from .winograd_transforms import TRANSFORMS, weight_grad4, weight_grad6

_BLOCK_BYTES = 300 * 1024  # transformed tiles of a block
_O_GROUP, _C_GROUP = 64, 64  # channels of sums: 590 KB (m = 4) or 1 MB of float32


class GradTiling(NamedTuple):
    """Geometry of one call, and where its arrays are (byte addresses)."""

    m: int  # a side of a tile of dy, 4 or 6; of x: m + 2
    L: int
    x: int
    N: int
    H: int
    W: int
    C: int
    dy: int
    OH: int
    OW: int
    O: int
    top: int
    left: int
    dw: int  # dw[splits, O, 3, 3, C]
    TH: int
    TW: int
    splits: int  # parts of the tiles, groups of o, groups of c: the work items
    o_groups: int
    c_groups: int
    block: int  # tiles of a block
    v_xi: int  # byte strides of the transformed x and dy, and of the sums
    v_row: int
    d_xi: int
    d_row: int
    s_xi: int
    s_row: int
    scratch: int  # a thread's work space: V, D, S, patch
    per_thread: int
    d_at: int
    s_at: int
    patch_at: int


@njit
def _item(t, g, item, v):
    """One part of the tiles, one group of o, one group of c; v is this thread's work space."""
    d, sums, patch, L, a = v + g.d_at, v + g.s_at, v + g.patch_at, g.L, g.m + 2
    c_vectors = split(g.C, L)
    o_group, rest = item % g.o_groups, item // g.o_groups
    c_group, s = rest % g.c_groups, rest // g.c_groups
    o0, o1 = part(g.O, g.o_groups, o_group), part(g.O, g.o_groups, o_group + 1)
    c0, c1 = part(c_vectors, g.c_groups, c_group) * L, part(c_vectors, g.c_groups, c_group + 1) * L
    channels = min(c1, g.C) - c0
    total = g.N * g.TH * g.TW
    first, last = part(total, g.splits, s), part(total, g.splits, s + 1)
    parts = split(o1 - o0, MAX_ROWS)
    for tile0 in range(first, last, g.block):
        tile1 = min(last, tile0 + g.block)
        kinds = (INPUT4, OUTPUT_GRAD4) if g.m == 4 else (INPUT6, OUTPUT_GRAD6)
        transform_tiles(
            t, kinds[0], L, g.x, g.H, g.W, g.C, g.TH, g.TW, g.m, g.top, g.left, tile0, tile1, c0, c0 + channels,
            v, g.v_xi, g.v_row, patch,
        )  # fmt: skip
        transform_tiles(
            t, kinds[1], L, g.dy, g.OH, g.OW, g.O, g.TH, g.TW, g.m, 0, 0, tile0, tile1, o0, o1,
            d, g.d_xi, g.d_row, patch,
        )  # fmt: skip
        flags = ACCUMULATE if tile0 > first else 0
        for xi in range(a * a):
            for c in range(0, c1 - c0, 2 * L):
                nv = min(2, (c1 - c0 - c) // L)
                for q in range(parts):
                    r, r1 = part(o1 - o0, parts, q), part(o1 - o0, parts, q + 1)
                    factors = (r1 - r, nv, d + xi * g.d_xi + r * 4, g.d_row, 0, v + xi * g.v_xi + c * 4, g.v_row, 0)
                    at = sums + xi * g.s_xi + r * g.s_row + c * 4
                    outer(t, factors + (1, tile1 - tile0, at, g.s_row, nv * L, flags))
    whole = channels // L
    for o in range(o0, o1):
        to = g.dw + ((s * g.O + o) * 9 * g.C + c0) * 4
        for vector, count, columns in ((0, whole, L), (whole, 1, channels - whole * L)):
            if columns:
                tiles = (count, sums + (o - o0) * g.s_row + vector * L * 4, L * 4, a * g.s_xi, g.s_xi)
                results = (to + vector * L * 4, L * 4, 3 * g.C * 4, g.C * 4, columns, 0, 0)
                if g.m == 4:
                    weight_grad4(t, tiles + results)
                else:
                    weight_grad6(t, tiles + results)


@njit(parallel=True)
def _winograd_grad_w(t, g):
    for item in prange(g.splits * g.o_groups * g.c_groups):
        _item(t, g, item, g.scratch + get_thread_id() * g.per_thread)


def grad_w3x3(dw, x, dy, top: int, left: int, threads: int, m: int) -> None:
    """conv2d_grad_w of a 3x3 filter, stride 1: dw (O, 3, 3, C), x (N, H, W, C), dy (N, OH, OW, O), float32.

    m: side of the tiles of dy, 4 or 6.
    """
    (N, H, W, C), (_, OH, OW, O) = x.shape, dy.shape
    L = lanes(np.float32)
    prepare(x.dtype, "outer", *TRANSFORMS)
    xis = (m + 2) ** 2
    TH, TW = -(-OH // m), -(-OW // m)
    o_groups, c_groups = -(-O // _O_GROUP), -(-round_up(C, L) // _C_GROUP)
    groups = o_groups * c_groups
    splits = 1
    while groups * splits < 8 * threads and groups * splits % threads:
        splits += 1
    splits = min(splits, N * TH * TW)
    o_most = -(-O // o_groups)
    c_most = round_up(round_up(C, L) // L, c_groups) // c_groups * L
    v_row, d_row = padded_row(c_most, L), padded_row(o_most, L)
    block = max(16, _BLOCK_BYTES // (xis * (v_row + d_row)))
    v_xi, d_xi = block * v_row + L * 4, block * d_row + L * 4
    s_row = c_most * 4
    s_xi = o_most * s_row + L * 4
    d_at = round_up(xis * v_xi, 64)
    s_at = d_at + round_up(xis * d_xi, 64)
    patch_at = s_at + round_up(xis * s_xi, 64)
    per_thread = patch_at + round_up(max(xis * C, m * m * O) * 4, 64) + 64
    scratch = memory.scratch(threads * per_thread)
    sums = dw if splits == 1 else memory.empty((splits, dw.size), np.float32)
    tiling = GradTiling(
        m=m, L=L, x=address(x), N=N, H=H, W=W, C=C, dy=address(dy), OH=OH, OW=OW, O=O, top=top, left=left,
        dw=address(sums), TH=TH, TW=TW, splits=splits, o_groups=o_groups, c_groups=c_groups, block=block,
        v_xi=v_xi, v_row=v_row, d_xi=d_xi, d_row=d_row, s_xi=s_xi, s_row=s_row, scratch=address(scratch),
        per_thread=per_thread, d_at=d_at, s_at=s_at, patch_at=patch_at,
    )  # fmt: skip
    _winograd_grad_w(np.float32(0), tiling)
    if splits > 1:
        add_partial_sums(dw.reshape(-1), sums)
