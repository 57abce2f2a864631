"""3x3 convolution of stride 1 by Winograd's minimal filtering, forward and adjoint in x, float32.

    Y tile (m x m) = A^T [ sum over c of (G w_c G^T) * (B^T x_c B) ] A
    m = 4: 36 products for 144 (4 x fewer); m = 6: 64 for 324 (5.06 x fewer)

One work item is a block of tiles. Its inputs are transformed to V[xi, tile, c]; then, one panel of output channels at
a time, the products M[xi, tile, o] = V[xi] @ U[xi] of all (m + 2)^2 frequencies xi are formed, transformed back and
written with bias and ReLU. What would be three passes over memory 2.25 times as large as the image becomes one pass
over the image. U[xi, c, o], 4 to 7 times as large as the weights, is made once for all blocks where it stays in L3;
where it is larger, each block transforms the weights anew, a part of the channels at a time, in L2.
Images larger than L3 are the memory's business: it would lie idle during the products, and the transforms would wait
for it. So while one block is multiplied the next one's inputs are fetched, and results are stored past the caches.
Tiles that reach outside x are copied to a zero-filled patch; tiles that reach outside y are written through one.
The adjoint is the same convolution with filters turned by 180 degrees, o and c exchanged, and padding 2 - p.
Limit: multiply units at many channels; stores of the transforms (one vector in two cycles on Zen 4) at few.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import get_thread_id, prange

from minunet.jit import njit

from . import memory
from . import winograd_transforms as wt
from .conv_direct import transpose
from .simd import MAX_ROWS, VECTOR_BYTES, address, copy_bytes, fence, lanes, prepare, zero_bytes
from .simd_gemm import ACCUMULATE, LINE, RELU, matmul, matmul_ahead, part, split

_TILES = 56  # of a block: as many as keep V and M near L2
_V_BYTES = 8 * 1024 * 1024  # but no more than this for the transformed inputs of a block
_U_BYTES = 10 * 1024 * VECTOR_BYTES  # transformed weights of a block that makes its own: with m = 6 of 80 channels
_L3_BYTES = 16 * 1024 * 1024  # an array up to this size stays in L3 while the blocks pass by
_SPARED = 100_000  # filters that a thread need not transform if U is made once: less is not worth a parallel loop
INPUT4, INPUT6, OUTPUT_GRAD4, OUTPUT_GRAD6 = 0, 1, 2, 3  # kinds of transform_tiles


class Tiling(NamedTuple):
    """Geometry of one call, and where its arrays are (byte addresses); x is what is read, y what is written."""

    m: int  # results a tile, 4 or 6, for m + 2 inputs
    L: int  # float32 lanes of a vector
    x: int
    N: int
    H: int
    W: int
    C: int
    y: int
    OH: int
    OW: int
    O: int
    top: int
    left: int
    w: int
    bias: int  # address, or 0 for none
    flags: int
    adjoint: bool
    TH: int  # tiles of an image
    TW: int
    blocks: int  # work items: blocks of tiles times groups of output panels
    groups: int
    v_xi: int  # byte strides of V[xi, tile, c]
    v_row: int
    u_xi: int  # byte stride of U[xi, c, o]
    chunk: int  # inner channels of U transformed at a time
    depth: int  # inner channels of U multiplied at a time
    kept: int  # address of the U of all panels, or 0: each block makes its own
    fetched: bool  # the next block's inputs are brought to L2
    scratch: int  # a thread's work space: V, M, patch, U
    per_thread: int
    product_at: int
    patch_at: int
    u_at: int
    zero: int  # address of an int64 0


@njit
def load_patch(x, H, W, C, h, w, a, patch):
    """patch[r, s, :] = x[h + r, w + s, :] for r, s < a, zero outside the image; float32."""
    c0, c1 = min(max(0, -w), a), max(min(a, W - w), 0)
    for r in range(a):
        row = patch + r * a * C * 4
        if 0 <= h + r < H and c0 < c1:
            zero_bytes(row, c0 * C * 4)
            copy_bytes(row + c0 * C * 4, x + ((h + r) * W + w + c0) * C * 4, (c1 - c0) * C * 4)
            zero_bytes(row + c1 * C * 4, (a - c1) * C * 4)
        else:
            zero_bytes(row, a * C * 4)


@njit
def transform_tiles(t, kind, L, x, H, W, C, TH, TW, m, top, left, tile0, tile1, c0, c1, v, v_xi, v_row, patch):
    """V[xi, tile - tile0, c - c0] for channels c0 .. c1 - 1 of tiles that start m apart; kind: which transform."""
    a = m + 2 if kind in (INPUT4, INPUT6) else m
    whole = (c1 - c0) // L
    for tile in range(tile0, tile1):
        n, ij = tile // (TH * TW), tile % (TH * TW)
        h, w = ij // TW * m - top, ij % TW * m - left
        image = x + n * H * W * C * 4
        src, row = image + (h * W + w) * C * 4, W * C * 4
        if h < 0 or w < 0 or h + a > H or w + a > W:
            load_patch(image, H, W, C, h, w, a, patch)
            src, row = patch, a * C * 4
        to = v + (tile - tile0) * v_row
        for first, count, columns in ((0, whole, L), (whole, 1, c1 - c0 - whole * L)):
            if columns:
                tiles = (count, src + (c0 + first * L) * 4, L * 4, row, C * 4, to + first * L * 4, L * 4)
                if kind == INPUT4:
                    wt.input4(t, tiles + (6 * v_xi, v_xi, columns, 0, 0))
                elif kind == INPUT6:
                    wt.input6(t, tiles + (8 * v_xi, v_xi, columns, 0, 0))
                elif kind == OUTPUT_GRAD4:
                    wt.output_grad4(t, tiles + (6 * v_xi, v_xi, columns, 0, 0))
                else:
                    wt.output_grad6(t, tiles + (8 * v_xi, v_xi, columns, 0, 0))


@njit
def transform_filters(t, g, panel, k0, k1, u, buffer):
    """U[xi, k - k0, lane] = G w G^T for inner channels k0 .. k1 - 1 of one panel; k0 is a multiple of L.

    Forward: k is c and the lanes are o, so blocks of L x L weights are transposed on the way. Adjoint: k is o, the
    lanes are c.
    """
    m, L = g.m, g.L
    C = g.O if g.adjoint else g.C  # channels of w[o, 3, 3, c]
    q0 = panel * 2 * L
    nv = min(2, split(g.O - q0, L))
    step = nv * L * 4
    for q in range(q0, q0 + nv * L, L):
        to = u + (q - q0) * 4
        if g.adjoint:
            filters = (k1 - k0, g.w + ((k0 * 9 + 8) * C + q) * 4, 9 * C * 4, -3 * C * 4, -C * 4, to, step)
            if m == 4:
                wt.filter4(t, filters + (6 * g.u_xi, g.u_xi, g.O - q, 0, 0))
            else:
                wt.filter6(t, filters + (8 * g.u_xi, g.u_xi, g.O - q, 0, 0))
            continue
        for c in range(k0, k1, L):
            for tap in range(9):
                src = g.w + ((q * 9 + tap) * C + c) * 4
                transpose(t, (src, 9 * C * 4, buffer + tap * L * L * 4, L * 4, g.O - q, min(C - c, L)))
            filters = (min(k1 - c, L), buffer, L * 4, 3 * L * L * 4, L * L * 4, to + (c - k0) * step, step)
            if m == 4:
                wt.filter4(t, filters + (6 * g.u_xi, g.u_xi, L, 0, 0))
            else:
                wt.filter6(t, filters + (8 * g.u_xi, g.u_xi, L, 0, 0))


@njit
def _write_results(t, g, tile0, tile1, q0, width, product, p_xi, patch):
    """y of each tile from M[xi, tile, lane], for the output channels q0 .. q0 + width - 1 that exist."""
    m, L = g.m, g.L
    valid = min(width, g.O - q0)
    whole = valid // L
    row, col = g.OW * g.O * 4, g.O * 4
    for tile in range(tile0, tile1):
        n, ij = tile // (g.TH * g.TW), tile % (g.TH * g.TW)
        i, j = ij // g.TW * m, ij % g.TW * m
        to = g.y + (((n * g.OH + i) * g.OW + j) * g.O + q0) * 4
        rows, cols = min(m, g.OH - i), min(m, g.OW - j)
        inside = rows == m and cols == m
        dst, dst_row, dst_col = (to, row, col) if inside else (patch, m * width * 4, width * 4)
        src = product + (tile - tile0) * width * 4
        for first, count, columns in ((0, whole, L), (whole, 1, valid - whole * L)):
            if columns:
                tiles = (count, src + first * L * 4, L * 4)
                bias = g.bias + (q0 + first * L) * 4 if g.bias else 0
                flags = g.flags if inside else g.flags & RELU
                results = (dst + first * L * 4, L * 4, dst_row, dst_col, columns, bias, flags)
                if m == 4:
                    wt.result4(t, tiles + (6 * p_xi, p_xi) + results)
                else:
                    wt.result6(t, tiles + (8 * p_xi, p_xi) + results)
        if not inside:
            for r in range(rows):
                for s in range(cols):
                    copy_bytes(to + r * row + s * col, patch + (r * m + s) * width * 4, valid * 4)


@njit
def _new_pixels(g, tile, r):
    """Address of the pixels of a tile that are not of the tiles above and before, too: row r < m of m, in column 2."""
    n, ij = tile // (g.TH * g.TW), tile % (g.TH * g.TW)
    h, w = ij // g.TW * g.m - g.top + 2 + r, ij % g.TW * g.m - g.left + 2
    return g.x + ((n * g.H + h) * g.W + w) * g.C * 4


@njit
def _block(t, g, item, v):
    """One work item: a block of tiles, a group of output panels; v is this thread's work space."""
    product, patch, u = v + g.product_at, v + g.patch_at, v + g.u_at
    L, C, xis = g.L, g.C, (g.m + 2) * (g.m + 2)
    total, panels = g.N * g.TH * g.TW, split(g.O, 2 * L)
    block, group = item // g.groups, item % g.groups
    tile0, tile1 = part(total, g.blocks, block), part(total, g.blocks, block + 1)
    tiles = tile1 - tile0
    parts = split(tiles, MAX_ROWS)
    transform_tiles(
        t, INPUT4 if g.m == 4 else INPUT6, L, g.x, g.H, g.W, C, g.TH, g.TW, g.m, g.top, g.left,
        tile0, tile1, 0, C, v, g.v_xi, g.v_row, patch,
    )  # fmt: skip
    # The last panels fetch the next block's pixels, a row of as many tiles as a product has rows for with each product.
    reach = max(1, MAX_ROWS // g.m)
    coming = g.m * split(min(total - tile1, tiles), reach) if g.fetched else 0
    end = part(panels, g.groups, group + 1)
    for p in range(part(panels, g.groups, group), end):
        q0 = p * 2 * L
        nv = min(2, split(g.O - q0, L))
        width = nv * L
        p_xi = (tiles * width + L) * 4  # a vector more than needed, or all xi would fall into the same cache sets
        for k0 in range(0, C, g.depth):
            k1 = min(C, k0 + g.depth)
            if g.kept:
                u = g.kept + p * xis * g.u_xi
            else:
                transform_filters(t, g, p, k0, k1, u, patch)
            for xi in range(xis):
                for q in range(parts):
                    r, r1 = part(tiles, parts, q), part(tiles, parts, q + 1)
                    a = (r1 - r, nv, v + xi * g.v_xi + r * g.v_row + k0 * 4, g.v_row, g.zero, 1, k1 - k0)
                    at = product + xi * p_xi + r * width * 4
                    b = (u + xi * g.u_xi, at, width * 4, width, 0, ACCUMULATE if k0 else 0)
                    i = ((end - 1 - p) * xis + xi) * parts + q
                    if i < coming:
                        pixels = _new_pixels(g, tile1 + i // g.m * reach, i % g.m) + k0 * 4
                        matmul_ahead(t, a + b + (pixels - a[2], C * 4))
                    else:
                        matmul(t, a + b)
        _write_results(t, g, tile0, tile1, q0, width, product, p_xi, patch)
    if g.flags & wt.STREAM:
        fence()


@njit
def _keep(t, g, item, buffer):
    """A part of the U that is kept: one panel, `chunk` inner channels."""
    chunks = split(g.C, g.chunk)
    p, k0 = item // chunks, item % chunks * g.chunk
    width = min(2, split(g.O - p * 2 * g.L, g.L)) * g.L
    u = g.kept + p * (g.m + 2) * (g.m + 2) * g.u_xi + k0 * width * 4
    transform_filters(t, g, p, k0, min(g.C, k0 + g.chunk), u, buffer)


@njit(parallel=True)
def _winograd(t, g):
    if g.kept:
        for item in prange(split(g.O, 2 * g.L) * split(g.C, g.chunk)):
            _keep(t, g, item, g.scratch + get_thread_id() * g.per_thread + g.patch_at)
    for item in prange(g.blocks * g.groups):
        _block(t, g, item, g.scratch + get_thread_id() * g.per_thread)


def round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def padded_row(channels: int, L: int) -> int:
    """Bytes of a row of `channels` float32: whole vectors, an odd number of them if many, against cache conflicts."""
    vectors = -(-channels // L)
    return (vectors + (vectors >= 8 and vectors % 2 == 0)) * L * 4


def conv3x3(y, x, w, b, top, left, activation, adjoint: bool, threads: int, m: int) -> None:
    """conv2d of a 3x3 filter, stride 1; with `adjoint`, conv2d_grad_x (y is dx and x is dy), by F(m x m, 3x3).

    y (N, OH, OW, O), x (N, H, W, C), float32; top, left: padding of the forward convolution; m: 4 or 6.
    """
    (N, H, W, C), (_, OH, OW, O) = x.shape, y.shape
    L = lanes(np.float32)
    prepare(x.dtype, "matmul", "matmul_ahead", "transpose", *wt.TRANSFORMS)
    if adjoint:
        top, left = 2 - top, 2 - left
    xis = (m + 2) ** 2
    TH, TW = -(-OH // m), -(-OW // m)
    tiles, panels = N * TH * TW, -(-O // (2 * L))
    v_row = padded_row(C, L)
    most = max(MAX_ROWS, min(_TILES, _V_BYTES // (xis * v_row)))
    blocks = -(-tiles // most)
    if blocks >= threads:
        blocks = min(tiles, round_up(blocks, threads))
    groups = min(panels, -(-2 * threads // blocks)) if blocks < 2 * threads else 1
    T = -(-tiles // blocks)
    width = min(2 * L, round_up(O, L))
    v_xi = T * v_row + L * 4
    chunk = min(round_up(C, L), max(L, _U_BYTES // (xis * width * 4) // L * L))
    keeps = blocks // threads * C * O >= _SPARED and xis * round_up(C, L) * panels * width * 4 <= _L3_BYTES
    depth = round_up(C, L) if keeps else chunk
    u_xi = (depth * width + L) * 4
    patch_bytes = max((m + 2) ** 2 * C, m * m * width, 9 * L * L) * 4
    product_at = round_up(xis * v_xi, 64)
    patch_at = product_at + round_up(xis * (T * width + L) * 4, 64)
    u_at = patch_at + round_up(patch_bytes, 64)
    per_thread = u_at + (0 if keeps else round_up(xis * u_xi, 64)) + 64
    scratch = memory.scratch(threads * per_thread)
    kept = memory.scratch(panels * xis * u_xi) if keeps else None
    flags = RELU if activation == "relu" else 0
    if y.nbytes > _L3_BYTES and VECTOR_BYTES == LINE and O % L == 0 and address(y) % LINE == 0:
        flags |= wt.STREAM  # whole cache lines
    zero = np.zeros(1, np.int64)
    tiling = Tiling(
        m=m, L=L, x=address(x), N=N, H=H, W=W, C=C, y=address(y), OH=OH, OW=OW, O=O, top=top, left=left,
        w=address(w), bias=0 if b is None else address(b), flags=flags, adjoint=adjoint, TH=TH, TW=TW, blocks=blocks,
        groups=groups, v_xi=v_xi, v_row=v_row, u_xi=u_xi, chunk=chunk, depth=depth,
        kept=address(kept) if keeps else 0, fetched=x.nbytes > _L3_BYTES and groups == 1,
        scratch=address(scratch), per_thread=per_thread, product_at=product_at, patch_at=patch_at, u_at=u_at,
        zero=address(zero),
    )  # fmt: skip
    _winograd(np.float32(0), tiling)
