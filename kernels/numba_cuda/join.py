"""Putting maps together, around and apart: windows, concatenation, mirrored edges.

Math     window: y[n,i,j,c] = x[n, i + top, j + left, c + first], `value` outside of x; that is crop, embed, pad with
         a constant, its adjoint, and both halves of crop_concat's adjoint
Layout   x (N, H, W, C), y (N, OH, OW, OC), channels contiguous
Threads  x channels, y columns, z rows of the output
Memory   what is read, once; the output, once
Limit    DRAM bandwidth
Step     one kernel for six rows of the contract, since all are windows of one map in another
Needs    pad_reflect: padding less than the map
Twin     kernels/cuda/join.cu
"""

from __future__ import annotations

from numba import cuda


@cuda.jit
def window(y, x, top, left, first, value):
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, OH, OW, OC = y.shape
    _, H, W, C = x.shape
    for row in range(row0, N * OH, rows):
        n, i = row // OH, row % OH
        h = i + top
        for j in range(j0, OW, js):
            w = j + left
            inside = h >= 0 and h < H and w >= 0 and w < W
            for k in range(c0, OC, cs):
                c = k + first
                y[n, i, j, k] = x[n, h, w, c] if inside and c >= 0 and c < C else value


@cuda.jit
def crop_concat(y, x, skip):
    """y = [x, centre crop of skip]."""
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, H, W, C = x.shape
    OC, top, left = y.shape[3], (skip.shape[1] - H) // 2, (skip.shape[2] - W) // 2
    for row in range(row0, N * H, rows):
        n, i = row // H, row % H
        for j in range(j0, W, js):
            for c in range(c0, OC, cs):
                if c < C:
                    y[n, i, j, c] = x[n, i, j, c]
                else:
                    y[n, i, j, c] = skip[n, i + top, j + left, c - C]


@cuda.jit(device=True)
def _mirrored(i, size):
    """-2 -1 | 0 1 2 3 | 4 5 of size 4 is 2 1 | 0 1 2 3 | 2 1."""
    i = abs(i)
    return i if i < size else 2 * (size - 1) - i


@cuda.jit
def pad_reflect(y, x, top, left):
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, OH, OW, C = y.shape
    H, W = x.shape[1], x.shape[2]
    for row in range(row0, N * OH, rows):
        n, i = row // OH, row % OH
        for j in range(j0, OW, js):
            for c in range(c0, C, cs):
                y[n, i, j, c] = x[n, _mirrored(i - top, H), _mirrored(j - left, W), c]


@cuda.jit(device=True)
def _copy(k, h, size, pad, out):
    """Where the k-th copy of pixel h stands in the padded axis: itself, mirrored before, mirrored behind; or -1."""
    if k == 0:
        return h + pad
    if k == 1:
        return pad - h if h > 0 and pad - h >= 0 else -1
    i = pad + 2 * (size - 1) - h
    return i if h < size - 1 and i < out else -1


@cuda.jit
def pad_reflect_grad(dx, dy, top, left):
    """Each pixel gathers its up to 3 x 3 copies, in one order."""
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, H, W, C = dx.shape
    OH, OW = dy.shape[1], dy.shape[2]
    for row in range(row0, N * H, rows):
        n, h = row // H, row % H
        for w in range(j0, W, js):
            for c in range(c0, C, cs):
                total = dy.dtype.type(0)
                for a in range(3):
                    i = _copy(a, h, H, top, OH)
                    if i < 0:
                        continue
                    for b in range(3):
                        j = _copy(b, w, W, left, OW)
                        if j >= 0:
                            total += dy[n, i, j, c]
                dx[n, h, w, c] = total
