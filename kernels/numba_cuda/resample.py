"""Up-sampling, nearest and bilinear, and their adjoints as gathers.

Math     nearest: y[i,j] = x[i H // OH, j W // OW]; bilinear: the two pixels around src(i), weighed by distance;
         src = i (H-1) / (OH-1), or max((i + 1/2) H / OH - 1/2, 0)
Layout   x (N, H, W, C), y (N, OH, OW, C), channels contiguous
Threads  x channels, y columns, z rows of the result
Memory   the result once; of the other map each pixel a few times, from L1
Limit    DRAM bandwidth; the adjoint of a large factor: the reading of (OH / H)(OW / W) pixels for each result
Step     src as a fraction of integers: its floor and remainder are exact, with no float64 where the GPU has little
Needs    nothing
Twin     kernels/cuda/resample.cu
"""

from __future__ import annotations

from numba import cuda


@cuda.jit(device=True)
def _source(i, size, out, align_corners):
    """src(i) as numerator and denominator."""
    if align_corners:
        return i * (size - 1), max(out - 1, 1)
    return max((2 * i + 1) * size - out, 0), 2 * out


@cuda.jit(device=True)
def _reach(h, size, out, align_corners):
    """The first and the last i whose src(i) can lie in (h - 1, h + 1): one more on each side for the divisions."""
    first, last = 0, out - 1
    if align_corners:
        if size > 1 and out > 1:
            first = (h - 1) * (out - 1) // (size - 1) - 1
            last = (h + 1) * (out - 1) // (size - 1) + 1
    else:  # src = ((2 i + 1) size - out) / (2 out)
        first = ((2 * (h - 1) + 1) * out // size - 1) // 2 - 1
        last = ((2 * (h + 1) + 1) * out // size) // 2 + 1
    # Before the first and behind the last pixel src stands still.
    return 0 if h == 0 else max(first, 0), out - 1 if h == size - 1 else min(last, out - 1)


@cuda.jit
def upsample_nearest(y, x):
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, OH, OW, C = y.shape
    H, W = x.shape[1], x.shape[2]
    for row in range(row0, N * OH, rows):
        n, i = row // OH, row % OH
        for j in range(j0, OW, js):
            for c in range(c0, C, cs):
                y[n, i, j, c] = x[n, i * H // OH, j * W // OW, c]


@cuda.jit
def upsample_nearest_grad(dx, dy):
    """The i with i H // OH = h are ceil(h OH / H) .. ceil((h + 1) OH / H) - 1."""
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, H, W, C = dx.shape
    OH, OW = dy.shape[1], dy.shape[2]
    for row in range(row0, N * H, rows):
        n, h = row // H, row % H
        for w in range(j0, W, js):
            for c in range(c0, C, cs):
                total = dy.dtype.type(0)
                for i in range((h * OH + H - 1) // H, ((h + 1) * OH + H - 1) // H):
                    for j in range((w * OW + W - 1) // W, ((w + 1) * OW + W - 1) // W):
                        total += dy[n, i, j, c]
                dx[n, h, w, c] = total


@cuda.jit
def upsample_bilinear(y, x, align_corners):
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    real = x.dtype.type
    N, OH, OW, C = y.shape
    H, W = x.shape[1], x.shape[2]
    for row in range(row0, N * OH, rows):
        n, i = row // OH, row % OH
        a, b = _source(i, H, OH, align_corners)
        h, fh = a // b, real(a % b) / real(b)
        h1 = min(h + 1, H - 1)
        for j in range(j0, OW, js):
            a, b = _source(j, W, OW, align_corners)
            w, fw = a // b, real(a % b) / real(b)
            w1 = min(w + 1, W - 1)
            for c in range(c0, C, cs):
                upper = x[n, h, w, c] + fw * (x[n, h, w1, c] - x[n, h, w, c])
                lower = x[n, h1, w, c] + fw * (x[n, h1, w1, c] - x[n, h1, w, c])
                y[n, i, j, c] = upper + fh * (lower - upper)


@cuda.jit(device=True)
def _weight(i, h, size, out, align_corners, one):
    """What pixel h gives to output i: max(0, 1 - |src(i) - h|), src held to the last pixel. one : 1 of the type."""
    a, b = _source(i, size, out, align_corners)
    away = abs(min(a, (size - 1) * b) - h * b)
    return type(one)(b - away) / type(one)(b) if away < b else type(one)(0)


@cuda.jit
def upsample_bilinear_grad(dx, dy, align_corners):
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    one = dy.dtype.type(1)
    N, H, W, C = dx.shape
    OH, OW = dy.shape[1], dy.shape[2]
    for row in range(row0, N * H, rows):
        n, h = row // H, row % H
        i0, i1 = _reach(h, H, OH, align_corners)
        for w in range(j0, W, js):
            first, last = _reach(w, W, OW, align_corners)
            for c in range(c0, C, cs):
                total = dy.dtype.type(0)
                for i in range(i0, i1 + 1):
                    fh = _weight(i, h, H, OH, align_corners, one)
                    if fh == 0:
                        continue
                    across = dy.dtype.type(0)
                    for j in range(first, last + 1):
                        across += _weight(j, w, W, OW, align_corners, one) * dy[n, i, j, c]
                    total += fh * across
                dx[n, h, w, c] = total
