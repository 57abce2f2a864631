"""Convolution and its adjoints from a tile with its halo in shared memory.

Math     as step 1; the sum over channels is cut into chunks of `chunk` channels, one tile each
Layout   as step 1; tile (rows, columns, chunk) with halo, weights (channels of the result, KH, KW, chunk)
Threads  forward, grad_x: a block owns TILE_H x TILE_W pixels of the result and TILE_CHANNELS of its channels, a thread
         one pixel; grad_w: a block owns SIDE x SIDE channels, a thread one pair and TAPS taps
Memory   each number of the input once a block (with halo 10 x 18 / 128 = 1.4 times) instead of 9; shared: 32 KB of
         tile and 8 KB of weights in float64; registers: TILE_CHANNELS or TAPS sums
Limit    shared-memory reads: one of the tile and a broadcast of the weights for each multiply-add
Step     one load from global memory serves all taps and TILE_CHANNELS channels
Needs    a halo tile of one channel within HALO_NUMBERS, weights of one channel within WEIGHT_NUMBERS
Twin     kernels/cuda/conv/3_shared_tile.cu, whose block has TILE x TILE pixels of 32 channels, a thread one output
"""

from __future__ import annotations

from numba import cuda

from minunet.backends import formulas
from minunet.kernels.numba_cuda.sizes import (
    HALO_NUMBERS,
    PIXELS,
    PIXELS_H,
    PIXELS_W,
    SIDE,
    TAPS,
    TILE_CHANNELS,
    TILE_H,
    TILE_W,
    WEIGHT_NUMBERS,
)

_relu = cuda.jit(device=True)(formulas.relu)


@cuda.jit(device=True)
def _load_tile(tile, x, n, h0, w0, height, width, c0, chunk, t, threads):
    """tile = x[n, h0 : h0 + height, w0 : w0 + width, c0 : c0 + chunk], zeros outside, channels fastest."""
    _, H, W, C = x.shape
    for e in range(t, height * width * chunk, threads):
        c, at = c0 + e % chunk, e // chunk
        h, w = h0 + at // width, w0 + at % width
        inside = h >= 0 and h < H and w >= 0 and w < W and c < C
        tile[e] = x[n, h, w, c] if inside else tile.dtype.type(0)


@cuda.jit
def conv2d(y, x, w, b, has_bias, stride, padding, dilation, activation, chunk):
    tile = cuda.shared.array(HALO_NUMBERS, y.dtype)
    filters = cuda.shared.array(WEIGHT_NUMBERS, y.dtype)
    total = cuda.local.array(TILE_CHANNELS, y.dtype)
    C = x.shape[3]
    O, KH, KW, _ = w.shape
    _, OH, OW, _ = y.shape
    tx, ty, threads = cuda.threadIdx.x, cuda.threadIdx.y, TILE_H * TILE_W
    t, down = ty * TILE_W + tx, (OH + TILE_H - 1) // TILE_H
    n, i0, j0, o0 = (
        cuda.blockIdx.y // down,
        cuda.blockIdx.y % down * TILE_H,
        cuda.blockIdx.x * TILE_W,
        cuda.blockIdx.z * TILE_CHANNELS,
    )
    height = (TILE_H - 1) * stride[0] + (KH - 1) * dilation[0] + 1
    width = (TILE_W - 1) * stride[1] + (KW - 1) * dilation[1] + 1
    for k in range(TILE_CHANNELS):
        total[k] = 0
    for c0 in range(0, C, chunk):
        cuda.syncthreads()  # the tile before may still be read
        _load_tile(
            tile, x, n, i0 * stride[0] - padding[0], j0 * stride[1] - padding[2], height, width, c0, chunk, t, threads
        )
        for e in range(t, TILE_CHANNELS * KH * KW * chunk, threads):
            c, v, u, o = c0 + e % chunk, e // chunk % KW, e // (chunk * KW) % KH, o0 + e // (chunk * KW * KH)
            filters[e] = w[o, u, v, c] if o < O and c < C else filters.dtype.type(0)
        cuda.syncthreads()
        for u in range(KH):
            for v in range(KW):
                at = ((ty * stride[0] + u * dilation[0]) * width + tx * stride[1] + v * dilation[1]) * chunk
                f = (u * KW + v) * chunk
                for c in range(chunk):
                    a = tile[at + c]
                    for k in range(TILE_CHANNELS):
                        total[k] += a * filters[k * KH * KW * chunk + f + c]
    i, j = i0 + ty, j0 + tx
    if i < OH and j < OW:
        for k in range(TILE_CHANNELS):
            if o0 + k < O:
                a = total[k] + b[o0 + k] if has_bias else total[k]
                y[n, i, j, o0 + k] = _relu(a) if activation else a


@cuda.jit
def conv2d_grad_x(dx, dy, w, b, has_bias, stride, padding, dilation, activation, chunk):
    """The tile is of dy: the rows ceil((h0 + top - (KH-1) dh) / sh) .. floor((h0 + TILE_H - 1 + top) / sh)."""
    tile = cuda.shared.array(HALO_NUMBERS, dx.dtype)
    filters = cuda.shared.array(WEIGHT_NUMBERS, dx.dtype)
    total = cuda.local.array(TILE_CHANNELS, dx.dtype)
    O, KH, KW, C = w.shape
    _, H, W, _ = dx.shape
    tx, ty, threads = cuda.threadIdx.x, cuda.threadIdx.y, TILE_H * TILE_W
    t, down = ty * TILE_W + tx, (H + TILE_H - 1) // TILE_H
    n, h0, w0, c0 = (
        cuda.blockIdx.y // down,
        cuda.blockIdx.y % down * TILE_H,
        cuda.blockIdx.x * TILE_W,
        cuda.blockIdx.z * TILE_CHANNELS,
    )
    i0 = (h0 + padding[0] - (KH - 1) * dilation[0] + stride[0] - 1) // stride[0]
    j0 = (w0 + padding[2] - (KW - 1) * dilation[1] + stride[1] - 1) // stride[1]
    height = (h0 + TILE_H - 1 + padding[0]) // stride[0] - i0 + 1
    width = (w0 + TILE_W - 1 + padding[2]) // stride[1] - j0 + 1
    for k in range(TILE_CHANNELS):
        total[k] = 0
    for o0 in range(0, O, chunk):
        cuda.syncthreads()
        _load_tile(tile, dy, n, i0, j0, height, width, o0, chunk, t, threads)
        for e in range(t, TILE_CHANNELS * KH * KW * chunk, threads):
            c, o, v, u = (  # channels of the result fastest: they are contiguous in w
                c0 + e % TILE_CHANNELS,
                o0 + e // TILE_CHANNELS % chunk,
                e // (TILE_CHANNELS * chunk) % KW,
                e // (TILE_CHANNELS * chunk * KW),
            )
            filters[e] = w[o, u, v, c] if o < O and c < C else filters.dtype.type(0)
        cuda.syncthreads()
        for u in range(KH):
            a = h0 + ty + padding[0] - u * dilation[0]
            i = a // stride[0]
            if i * stride[0] != a:
                continue
            for v in range(KW):
                a = w0 + tx + padding[2] - v * dilation[1]
                j = a // stride[1]
                if j * stride[1] != a:
                    continue
                at, f = ((i - i0) * width + j - j0) * chunk, (u * KW + v) * chunk
                for o in range(chunk):
                    g = tile[at + o]
                    for k in range(TILE_CHANNELS):
                        total[k] += g * filters[(f + o) * TILE_CHANNELS + k]
    h, l = h0 + ty, w0 + tx
    if h < H and l < W:
        for k in range(TILE_CHANNELS):
            if c0 + k < C:
                g = total[k] + b[c0 + k] if has_bias else total[k]
                dx[n, h, l, c0 + k] = _relu(g) if activation else g


@cuda.jit
def conv2d_grad_w_partial(partial, x, dy, KW, stride, padding, dilation):
    """partial (splits, O, KH KW, C): blockIdx.z's share of the tiles of PIXELS_H x PIXELS_W pixels."""
    tile = cuda.shared.array(HALO_NUMBERS, x.dtype)
    grads = cuda.shared.array((PIXELS, SIDE), x.dtype)
    total = cuda.local.array(TAPS, x.dtype)
    N, _, _, C = x.shape
    _, OH, OW, O = dy.shape
    tx, ty, threads = cuda.threadIdx.x, cuda.threadIdx.y, SIDE * SIDE
    t, across = ty * SIDE + tx, (C + SIDE - 1) // SIDE
    c0, o0 = cuda.blockIdx.x % across * SIDE, cuda.blockIdx.x // across * SIDE
    taps, tap0 = partial.shape[2], cuda.blockIdx.y * TAPS
    KH = taps // KW
    height = (PIXELS_H - 1) * stride[0] + (KH - 1) * dilation[0] + 1
    width = (PIXELS_W - 1) * stride[1] + (KW - 1) * dilation[1] + 1
    for k in range(TAPS):
        total[k] = 0
    down, right = (OH + PIXELS_H - 1) // PIXELS_H, (OW + PIXELS_W - 1) // PIXELS_W
    for index in range(cuda.blockIdx.z, N * down * right, cuda.gridDim.z):
        n, i0, j0 = index // (down * right), index // right % down * PIXELS_H, index % right * PIXELS_W
        cuda.syncthreads()
        _load_tile(
            tile, x, n, i0 * stride[0] - padding[0], j0 * stride[1] - padding[2], height, width, c0, SIDE, t, threads
        )
        for e in range(t, PIXELS * SIDE, threads):
            o, p = o0 + e % SIDE, e // SIDE
            i, j = i0 + p // PIXELS_W, j0 + p % PIXELS_W
            grads[p, e % SIDE] = dy[n, i, j, o] if i < OH and j < OW and o < O else grads.dtype.type(0)
        cuda.syncthreads()
        for p in range(PIXELS):
            g = grads[p, ty]
            at = (p // PIXELS_W * stride[0]) * width + p % PIXELS_W * stride[1]
            for k in range(TAPS):
                tap = min(tap0 + k, taps - 1)  # a sum beyond the last tap is made and not stored
                total[k] += g * tile[(at + tap // KW * dilation[0] * width + tap % KW * dilation[1]) * SIDE + tx]
    if o0 + ty < O and c0 + tx < C:
        for k in range(TAPS):
            if tap0 + k < taps:
                partial[cuda.blockIdx.z, o0 + ty, tap0 + k, c0 + tx] = total[k]
