// Scatter by index with sums: max-pool's backward and un-pooling's forward. No atomics, whatever the indices.
//
// Math     out[n, indices[n,i,j,c], c] += values[n,i,j,c] on a plane of zeros
// Layout   values, indices (N, OH, OW, C), out (N, H, W, C), channels contiguous; bounds (N OH, segments + 1, 4),
//          own (N OH)
// Threads  stage 1: a block for each row of values, a warp for each segment of 16 columns; stage 2: a block owns 2 rows
//          x 64 columns x 32 channels of out, a thread one channel and 8 of the columns
// Memory   indices twice, values and out once, where each index lies in its own window, as those of non-overlapping
//          pooling do; otherwise values and indices again from L1 for each of the 8 threads that share a channel;
//          shared: 16 KB of sums (float)
// Limit    DRAM bandwidth where indices keep near their place, as those of any pooling do; else the repeated reading
// Step     stage 1 finds what a row of values, and each segment of it, touches. Own windows: stage 2 is a gather. If
//          not, an owner adds what meets its own part of out, in ascending order, so that sums have one order
// Needs    indices in 0 .. H W - 1 (others are dropped)
#include "reduce.cuh"

constexpr int SEGMENT = 16, ROWS = 2, COLUMNS = 64, LANES = 32, GROUPS = 8, OWN = COLUMNS / GROUPS;

__device__ inline int warp_min(int a) {
#pragma unroll
    for (int by = 16; by > 0; by /= 2) a = min(a, __shfl_xor_sync(ALL_LANES, a, by));
    return a;
}

// bounds[row, segment] = least and largest row, least and largest column that the segment's indices point to; the last
// entry of a row is that of the whole row. own[row]: whether each index lies in the window (H / OH) x (W / OW) of its
// own value, so that no two can meet.
extern "C" __global__ void __launch_bounds__(256)
    index_bounds(Out<int> bounds, Out<int> own, In<int> indices, int OH, int OW, int C, int H, int W) {
    __shared__ int found[8][4];
    __shared__ unsigned strays[8];
    const int row = int(blockIdx.x), lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    const int segments = ceil_div(OW, SEGMENT), none = 0x7FFFFFFF, i = row % OH, wh = H / OH, ww = W / OW;
    int whole[4] = {none, none, none, none};  // least row, -largest row, least column, -largest column
    bool stray = false;
    for (int s = warp; s < segments; s += 8) {
        int b[4] = {none, none, none, none};
        const int end = min((s + 1) * SEGMENT, OW) * C;
        for (int k = s * SEGMENT * C + lane; k < end; k += 32) {
            const int index = indices[row * OW * C + k], h = index / W, w = index - h * W, j = k / C;
            b[0] = min(b[0], h);
            b[1] = min(b[1], -h);
            b[2] = min(b[2], w);
            b[3] = min(b[3], -w);
            stray = stray || h < i * wh || h >= (i + 1) * wh || w < j * ww || w >= (j + 1) * ww;
        }
#pragma unroll
        for (int e = 0; e < 4; e++) {
            b[e] = warp_min(b[e]);
            whole[e] = min(whole[e], b[e]);
            if (lane == 0) bounds[(row * (segments + 1) + s) * 4 + e] = e % 2 ? -b[e] : b[e];
        }
    }
    const unsigned any = __ballot_sync(ALL_LANES, stray);
    if (lane == 0) {
        for (int e = 0; e < 4; e++) found[warp][e] = whole[e];
        strays[warp] = any;
    }
    __syncthreads();
    if (threadIdx.x < 4) {
        const int e = int(threadIdx.x);
        for (int k = 1; k < 8; k++) found[0][e] = min(found[0][e], found[k][e]);
        bounds[(row * (segments + 1) + segments) * 4 + e] = e % 2 ? -found[0][e] : found[0][e];
    }
    if (threadIdx.x == 0) {
        unsigned all = 0;
        for (int k = 0; k < 8; k++) all |= strays[k];
        own[row] = all == 0;
    }
}

// Whether a segment's window meets rows h .. h + ROWS - 1, columns w .. w + COLUMNS - 1.
__device__ inline bool meets(In<int> bounds, int h, int w) {
    return bounds[0] < h + ROWS && bounds[1] >= h && bounds[2] < w + COLUMNS && bounds[3] >= w;
}

// Whether all rows of values of sample n keep to their own windows; the same answer in all threads.
__device__ inline bool all_own(In<int> own, int n, int OH, unsigned* words) {
    bool mine = true;
    for (int i = int(threadIdx.y * LANES + threadIdx.x); i < OH; i += GROUPS * LANES)
        mine = mine && own[n * OH + i] != 0;
    const unsigned bits = __ballot_sync(ALL_LANES, mine);
    if (threadIdx.x == 0) words[threadIdx.y] = bits;
    __syncthreads();
    bool all = true;
    for (int k = 0; k < GROUPS; k++) all = all && words[k] == ALL_LANES;
    return all;
}

extern "C" __global__ void __launch_bounds__(256)
    scatter_by_index(Out<REAL> out, In<REAL> values, In<int> indices, In<int> bounds, In<int> own, int H, int W, int C,
                     int OH, int OW) {
    __shared__ REAL sum[ROWS][COLUMNS][LANES];
    __shared__ unsigned words[GROUPS];
    const int lane = int(threadIdx.x), group = int(threadIdx.y), thread = group * LANES + lane;
    const int across = ceil_div(W, COLUMNS), w0 = int(blockIdx.x) % across * COLUMNS;
    const int c = int(blockIdx.x) / across * LANES + lane, h0 = int(blockIdx.y) * ROWS, n = int(blockIdx.z);
    const int segments = ceil_div(OW, SEGMENT);

    if (all_own(own, n, OH, words)) {
        const int wh = H / OH, ww = W / OW;
#pragma unroll 4
        for (int k = 0; k < ROWS * OWN; k++) {
            const int h = h0 + k / OWN, w = w0 + group * OWN + k % OWN;
            if (h >= H || w >= W || c >= C) continue;
            const int i = h / wh, j = w / ww, source = ((n * OH + i) * OW + j) * C + c;
            const bool hit = i < OH && j < OW && indices[source] == h * W + w;
            out[((n * H + h) * W + w) * C + c] = hit ? values[source] : REAL(0);
        }
        return;  // the whole block does
    }

    for (int r = 0; r < ROWS; r++)
        for (int k = 0; k < OWN; k++) sum[r][group * OWN + k][lane] = 0;  // a thread's own: no barrier is needed
    for (int base = 0; base < OH; base += GROUPS * LANES) {
        // Each thread looks at one row of values; a bit says that it must be read.
        const int mine = base + thread;
        const bool hit = mine < OH && meets(bounds + ((n * OH + mine) * (segments + 1) + segments) * 4, h0, w0);
        const unsigned bits = __ballot_sync(ALL_LANES, hit);
        __syncthreads();  // the words of before may still be read
        if (lane == 0) words[group] = bits;
        __syncthreads();
        for (int word = 0; word < GROUPS; word++)
            for (unsigned left = words[word]; left; left &= left - 1) {
                const int row = n * OH + base + word * 32 + __ffs(int(left)) - 1;
                for (int s = 0; s < segments; s++) {
                    if (c >= C || !meets(bounds + (row * (segments + 1) + s) * 4, h0, w0)) continue;
                    for (int j = s * SEGMENT; j < min((s + 1) * SEGMENT, OW); j++) {
                        const int k = (row * OW + j) * C + c, index = indices[k];
                        const int h = index / W, r = h - h0, w = index - h * W - w0 - group * OWN;
                        if (index >= 0 && r >= 0 && r < ROWS && w >= 0 && w < OWN)
                            sum[r][group * OWN + w][lane] += values[k];
                    }
                }
            }
    }
    for (int r = 0; r < ROWS; r++)
        for (int k = 0; k < OWN; k++) {
            const int h = h0 + r, w = w0 + group * OWN + k;
            if (h < H && w < W && c < C) out[((n * H + h) * W + w) * C + c] = sum[r][group * OWN + k][lane];
        }
}
