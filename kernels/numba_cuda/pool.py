"""Pooling over windows, the gather by index that is un-pooling's adjoint, and the spread of an average.

Math     max: y = maximum of a window, indices = h W + w of the first one; mean: sum / (KH KW), zeros outside
Layout   x (N, H, W, C), y and indices (N, OH, OW, C), channels contiguous
Threads  x channels, y columns, z rows of the output; each axis steps on by the whole grid
Memory   output once; input once from DRAM where windows do not overlap, its repeats from L1
Limit    DRAM bandwidth: for 2x2 in float32, 16 bytes read and 8 written for each output
Step     a thread an output: 4 bytes a load where the twin has 16
Needs    nothing
Twin     kernels/cuda/pool.cu
"""

from __future__ import annotations

from numba import cuda


@cuda.jit
def max_pool2d(y, indices, x, kernel, stride, padding):
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, OH, OW, C = y.shape
    H, W = x.shape[1], x.shape[2]
    for row in range(row0, N * OH, rows):
        n, i = row // OH, row % OH
        h0 = i * stride[0] - padding[0]
        for j in range(j0, OW, js):
            w0 = j * stride[1] - padding[1]
            for c in range(c0, C, cs):
                best, where = x.dtype.type(0), -1
                for h in range(max(h0, 0), min(h0 + kernel[0], H)):
                    for w in range(max(w0, 0), min(w0 + kernel[1], W)):
                        a = x[n, h, w, c]
                        # The first of equals stays; a NaN replaces any number, and nothing replaces it.
                        if where < 0 or a > best or (a != a and best == best):
                            best, where = a, h * W + w
                y[n, i, j, c] = best
                indices[n, i, j, c] = where


@cuda.jit
def avg_pool2d(y, x, kernel, stride, padding, factor):
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, OH, OW, C = y.shape
    H, W = x.shape[1], x.shape[2]
    for row in range(row0, N * OH, rows):
        n, i = row // OH, row % OH
        h0 = i * stride[0] - padding[0]
        for j in range(j0, OW, js):
            w0 = j * stride[1] - padding[1]
            for c in range(c0, C, cs):
                total = x.dtype.type(0)
                for h in range(max(h0, 0), min(h0 + kernel[0], H)):
                    for w in range(max(w0, 0), min(w0 + kernel[1], W)):
                        total += x[n, h, w, c]
                y[n, i, j, c] = factor * total


@cuda.jit
def avg_pool2d_grad(dx, dy, kernel, stride, padding, factor):
    """Each input pixel gathers from the windows that hold it: i sh - ph <= h < i sh - ph + KH."""
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, H, W, C = dx.shape
    OH, OW = dy.shape[1], dy.shape[2]
    for row in range(row0, N * H, rows):
        n, h = row // H, row % H
        i0 = (max(h + padding[0] - kernel[0] + 1, 0) + stride[0] - 1) // stride[0]
        i1 = min((h + padding[0]) // stride[0], OH - 1)
        for w in range(j0, W, js):
            j1 = min((w + padding[1]) // stride[1], OW - 1)
            first = (max(w + padding[1] - kernel[1] + 1, 0) + stride[1] - 1) // stride[1]
            for c in range(c0, C, cs):
                total = dy.dtype.type(0)
                for i in range(i0, i1 + 1):
                    for j in range(first, j1 + 1):
                        total += dy[n, i, j, c]
                dx[n, h, w, c] = factor * total


@cuda.jit
def gather_by_index(out, plane, indices):
    """out[n,i,j,c] = plane[n, indices[n,i,j,c], c], 0 where an index points outside, as scatter.py drops it."""
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, OH, OW, C = out.shape
    H, W = plane.shape[1], plane.shape[2]
    for row in range(row0, N * OH, rows):
        n, i = row // OH, row % OH
        for j in range(j0, OW, js):
            for c in range(c0, C, cs):
                index = indices[n, i, j, c]
                inside = index >= 0 and index < H * W
                out[n, i, j, c] = plane[n, index // W, index % W, c] if inside else plane.dtype.type(0)


@cuda.jit
def global_avg_pool_grad(dx, dy, factor):
    """dx[n,i,j,c] = factor dy[n,0,0,c]."""
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, H, W, C = dx.shape
    for row in range(row0, N * H, rows):
        n, i = row // H, row % H
        for j in range(j0, W, js):
            for c in range(c0, C, cs):
                dx[n, i, j, c] = factor * dy[n, 0, 0, c]
