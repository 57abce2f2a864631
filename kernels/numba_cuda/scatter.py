"""Scatter by index with sums: max-pool's backward and un-pooling's forward. No atomics, whatever the indices.

Math     out[n, indices[n,i,j,c], c] += values[n,i,j,c] on a plane of zeros
Layout   values, indices (N, OH, OW, C), out (N, H, W, C), channels contiguous; bounds (N, OH, segments + 1, 4)
Threads  stage 1: a block for each row of values; stage 2: a block owns ROWS x COLUMNS pixels x LANES channels of out,
         a thread one channel (x) and COLUMNS / GROUPS of the columns (y)
Memory   values and indices once from DRAM, again from L1 for each of the threads that share a channel; out once;
         shared: the owned pixels, 16 KB (float32)
Limit    DRAM bandwidth where indices keep near their place, as those of pooling do; else the repeated reading
Step     a row of values, and each segment of it, knows the window of out that it touches: an owner reads only those
         that meet its own, in ascending order, so that sums have one order
Needs    indices in 0 .. H W - 1 (others are dropped)
Twin     kernels/cuda/scatter.cu, which finds the rows that meet by warp votes; here every thread looks at every row
"""

from __future__ import annotations

from numba import cuda, int32

from minunet.kernels.numba_cuda.sizes import COLUMNS, LANES, OWN, ROWS, SEGMENT, THREADS

NONE = 2**31 - 1


@cuda.jit
def index_bounds(bounds, indices, W):
    """bounds[n, i, segment] = least and largest row, least and largest column the indices point to; last: whole row."""
    found = cuda.shared.array((4, THREADS), int32)
    whole = cuda.local.array(4, int32)
    row, t = cuda.blockIdx.x, cuda.threadIdx.x
    _, OH, OW, C = indices.shape
    n, i = row // OH, row % OH
    segments = (OW + SEGMENT - 1) // SEGMENT
    for e in range(4):
        whole[e] = NONE
    for s in range(segments):
        # Least row, -largest row, least column, -largest column: four minima.
        for e in range(4):
            found[e, t] = NONE
        count = (min((s + 1) * SEGMENT, OW) - s * SEGMENT) * C
        for k in range(t, count, THREADS):
            index = indices[n, i, s * SEGMENT + k // C, k % C]
            h, w = index // W, index % W
            found[0, t] = min(found[0, t], h)
            found[1, t] = min(found[1, t], -h)
            found[2, t] = min(found[2, t], w)
            found[3, t] = min(found[3, t], -w)
        half = THREADS // 2
        cuda.syncthreads()
        while half > 0:
            if t < half:
                for e in range(4):
                    found[e, t] = min(found[e, t], found[e, t + half])
            cuda.syncthreads()
            half //= 2
        if t == 0:
            for e in range(4):
                whole[e] = min(whole[e], found[e, 0])
                bounds[n, i, s, e] = found[e, 0]
        cuda.syncthreads()
    if t == 0:
        for e in range(4):
            bounds[n, i, segments, e] = whole[e]


@cuda.jit(device=True)
def _meets(b, h, w):
    """Whether what points into the window of these bounds can touch ROWS x COLUMNS pixels at (h, w)."""
    return b[0] < h + ROWS and -b[1] >= h and b[2] < w + COLUMNS and -b[3] >= w


@cuda.jit
def scatter_by_index(out, values, indices, bounds):
    total = cuda.shared.array((ROWS, COLUMNS, LANES), out.dtype)
    lane, first = cuda.threadIdx.x, cuda.threadIdx.y * OWN  # a thread's own columns: no barrier is needed
    _, H, W, C = out.shape
    _, OH, OW, _ = values.shape
    across = (W + COLUMNS - 1) // COLUMNS
    w0, h0, n = cuda.blockIdx.x % across * COLUMNS, cuda.blockIdx.y * ROWS, cuda.blockIdx.z
    c = cuda.blockIdx.x // across * LANES + lane
    segments = bounds.shape[2] - 1
    for r in range(ROWS):
        for k in range(OWN):
            total[r, first + k, lane] = 0
    if c < C:
        for i in range(OH):
            if not _meets(bounds[n, i, segments], h0, w0):
                continue
            for s in range(segments):
                if not _meets(bounds[n, i, s], h0, w0):
                    continue
                for j in range(s * SEGMENT, min((s + 1) * SEGMENT, OW)):
                    index = indices[n, i, j, c]
                    r, w = index // W - h0, index % W - w0 - first
                    if r >= 0 and r < ROWS and w >= 0 and w < OWN:
                        total[r, first + w, lane] += values[n, i, j, c]
        for r in range(ROWS):
            for k in range(OWN):
                h, w = h0 + r, w0 + first + k
                if h < H and w < W:
                    out[n, h, w, c] = total[r, first + k, lane]
