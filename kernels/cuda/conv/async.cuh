// Tiles brought to shared memory by cp.async, for 256 threads: while one tile is multiplied, the next are on their way.
#pragma once
#include "conv/geometry.cuh"
#include "ptx.cuh"

// `count` numbers (at most one group of 16 bytes, the rest zeros) from global to shared memory. `wide`: the address is
// a multiple of 16 bytes, and a group is whole or empty.
template <class E>
__device__ inline void copy_group(E* to, In<E> from, int count, bool wide) {
    if (wide) {
        copy_async_16(to, from, count > 0);
    } else if constexpr (sizeof(E) == 4) {
#pragma unroll
        for (int e = 0; e < 4; e++) copy_async_4(to + e, from + e, e < count);
    } else {
#pragma unroll
        for (int e = 0; e < 16 / int(sizeof(E)); e++) to[e] = e < count ? from[e] : E(0);
    }
}

// Rows that a thread copies of a tile with a row for each of BM result pixels, BK channels at one tap.
template <class E, int BM, int BK, int PITCH>
struct ImageTile {
    static constexpr int GROUP = 16 / int(sizeof(E)), GROUPS = BK / GROUP, LOADS = BM * GROUPS / 256;
    static_assert(LOADS * 256 == BM * GROUPS, "all threads copy equally many groups");
    static_assert(PITCH * sizeof(E) % 16 == 0, "rows start at multiples of 16 bytes");
    Source source[LOADS];  // n < 0: there is no such pixel

    static int row(int l) { return (int(threadIdx.x) + 256 * l) / GROUPS; }
    static int channel(int l) { return (int(threadIdx.x) + 256 * l) % GROUPS * GROUP; }

    void start(int p0, int pixels, int OH, int OW, int sh, int sw, int top, int left) {
#pragma unroll
        for (int l = 0; l < LOADS; l++) {
            source[l].start(p0 + row(l), OH, OW, sh, sw, top, left);
            if (p0 + row(l) >= pixels) source[l].n = -1;
        }
    }
    // tile[row][c] = x[pixel of row at (u, v), c0 + c]
    void copy(E* tile, In<E> x, int u, int v, int c0, int H, int W, int C, bool wide) const {
#pragma unroll
        for (int l = 0; l < LOADS; l++) {
            const int count = source[l].n >= 0 && source[l].in(u, v, H, W) ? C - c0 - channel(l) : 0;
            In<E> from = x + (source[l].pixel(u, v, H, W) * C + c0 + channel(l));
            copy_group<E>(tile + row(l) * PITCH + channel(l), from, count, wide);
        }
    }
};

// tile[r][c] = from[r, c] for ROWS x COLUMNS numbers of a packed matrix, whose rows lie `step` apart: no masks.
template <class E, int ROWS, int COLUMNS, int PITCH>
__device__ inline void copy_matrix(E* tile, In<E> from, int step) {
    constexpr int GROUP = 16 / int(sizeof(E)), GROUPS = COLUMNS / GROUP, LOADS = ROWS * GROUPS / 256;
    static_assert(LOADS * 256 == ROWS * GROUPS, "all threads copy equally many groups");
#pragma unroll
    for (int l = 0; l < LOADS; l++) {
        const int group = int(threadIdx.x) + 256 * l, r = group / GROUPS, c = group % GROUPS * GROUP;
        copy_async_16(tile + r * PITCH + c, from + (r * step + c), true);
    }
}

// For grad_w, tile[k][c] = a[pixel of p0 + k at (u, v), c0 + c] for BK pixels x B channels; zeros from pixel `end` on.
template <class E, int BK, int B, int PITCH>
__device__ inline void copy_pixels(E* tile, In<E> a, int p0, int end, int u, int v, int c0, int H, int W, int C, int OH,
                                   int OW, int sh, int sw, int top, int left, bool wide) {
    constexpr int GROUP = 16 / int(sizeof(E)), GROUPS = B / GROUP, LOADS = BK * GROUPS / 256;
    static_assert(LOADS * 256 == BK * GROUPS, "all threads copy equally many groups");
#pragma unroll
    for (int l = 0; l < LOADS; l++) {
        const int group = int(threadIdx.x) + 256 * l, k = group / GROUPS, c = group % GROUPS * GROUP;
        Source source;
        source.start(p0 + k, OH, OW, sh, sw, top, left);
        const int count = p0 + k < end && source.in(u, v, H, W) ? C - c0 - c : 0;
        copy_group<E>(tile + k * PITCH + c, a + (source.pixel(u, v, H, W) * C + c0 + c), count, wide);
    }
}
