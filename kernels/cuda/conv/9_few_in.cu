// Convolution of few channels: a network's first layer, and the gradient in x of its last.
//
// Math     y[n,i,j,o] = act(b[o] + sum_{u,v,c} x[n, i sh + u dh - top, j sw + v dw - left, c] w[u,v,c,o])
// Layout   x (N, H, W, C), C at most 8; w packed (KH, KW, C, Op), zeros up to whole blocks; y (N, YH, YW, O); see
//          geometry.cuh
// Threads  threadIdx.x and blockIdx.y four channels, threadIdx.y and blockIdx.x a run of PIXELS results of a row; a
//          block makes ROWS x COLUMNS results. 64 channels: 16 x 16 threads, 4 x 32 results
// Memory   y once, in groups of 16 bytes, 256 side by side for a pixel of 64 channels; x once but for the halo, which
//          is 6 x 34 pixels for 4 x 32. Shared: the halo tile and the whole filter, 3 KB for 3 x 3 from 1 to 64
// Limit    DRAM bandwidth up to about 30 multiply-adds for a result (3 x 3 from 3 channels), then multiply-adds
// Step     the sum is too short to be cut into chunks of 16 channels, most of which would be zeros: here it runs over
//          taps and channels as they are. A run of results shares its loads: with 3 taps a row 10 loads of x and 3 of
//          w serve 96 multiply-adds. grad_w: dy, the large array, is read once; a thread keeps TERMS x 4 sums
// Needs    tile and filter fit into 48 KB of shared memory; the chooser goes back otherwise
#include "conv/tile.cuh"
#include "reduce.cuh"

constexpr int PIXELS = 8;    // results of a thread, side by side in a row
constexpr int COLUMNS = 32;  // of a block's results: four runs
constexpr int TERMS = 9;     // of grad_w: taps and channels of x that a thread sums for; 3 x 3 of one channel
constexpr int ROWS_W = 4;    // grad_w: a tile is 4 x 32 pixels
constexpr int WARPS = 8;

// A tile of x with its halo, (rows, columns, C), for results from (i0, j0) of image n on.
struct Halo {
    int rows, columns;

    void size(int results, int KH, int KW, int sh, int sw, int dh, int dw) {
        rows = (results - 1) * sh + (KH - 1) * dh + 1, columns = (COLUMNS - 1) * sw + (KW - 1) * dw + 1;
    }
    void load(REAL* tile, In<REAL> x, int thread, int n, int h0, int w0, int H, int W, int C) const {
        for (int t = thread; t < rows * columns * C; t += 256) {
            const int h = h0 + t / (columns * C), k = w0 + t / C % columns;
            const bool in = h >= 0 && h < H && k >= 0 && k < W;
            tile[t] = in ? x[((n * H + h) * W + k) * C + t % C] : REAL(0);
        }
    }
};

__device__ inline void multiply(REAL (&sum)[PIXELS][4], int i, REAL a, const Four<REAL>& w) {
#pragma unroll
    for (int e = 0; e < 4; e++) sum[i][e] += a * w.e[e];
}

extern "C" __global__ void __launch_bounds__(256, 2)
    conv2d(Out<REAL> y, In<REAL> x, In<REAL> w, In<REAL> b, int N, int H, int W, int C, int O, int KH, int KW, int OH,
           int OW, int sh, int sw, int top, int left, int dh, int dw, int YH, int YW, int si, int sj, int i0, int j0,
           int activation, int Op, int wide) {
    DYNAMIC_SHARED(REAL, shared);  // the filter (KH, KW, C, width), then the tile of x
    const int lanes = int(blockDim.x), width = 4 * lanes, results = int(blockDim.y) * PIXELS / COLUMNS;
    const int thread = int(threadIdx.y) * lanes + int(threadIdx.x), o0 = int(blockIdx.y) * width;
    const int across = ceil_div(OW, COLUMNS), down = ceil_div(OH, results), block = int(blockIdx.x);
    const int n = block / (down * across), first_i = block / across % down * results,
              first_j = block % across * COLUMNS;
    REAL* tile = shared + KH * KW * C * width;
    Halo halo;
    halo.size(results, KH, KW, sh, sw, dh, dw);
    if (KH && KW) halo.load(tile, x, thread, n, first_i * sh - top, first_j * sw - left, H, W, C);
    for (int t = thread; t < KH * KW * C * lanes; t += 256)  // w[term, o0 + 4 lane]
        four(shared + 4 * t) = load_four(w + (t / lanes * Op + o0 + t % lanes * 4));
    __syncthreads();

    const int di = int(threadIdx.y) / (COLUMNS / PIXELS), dj = int(threadIdx.y) % (COLUMNS / PIXELS) * PIXELS;
    REAL sum[PIXELS][4] = {};
    for (int u = 0; u < KH; u++)
        for (int c = 0; c < C; c++) {
            const REAL* row = tile + ((di * sh + u * dh) * halo.columns + dj * sw) * C + c;
            const REAL* filter = shared + (u * KW * C + c) * width + int(threadIdx.x) * 4;  // w[u, :, c, o]
            if (KW == 3 && sw == 1 && dw == 1) {
                REAL a[PIXELS + 2];
#pragma unroll
                for (int i = 0; i < PIXELS + 2; i++) a[i] = row[i * C];
#pragma unroll
                for (int v = 0; v < 3; v++) {
                    const Four<REAL> g = four(filter + v * C * width);
#pragma unroll
                    for (int i = 0; i < PIXELS; i++) multiply(sum, i, a[i + v], g);
                }
            } else {
                for (int v = 0; v < KW; v++) {
                    const Four<REAL> g = four(filter + v * C * width);
#pragma unroll
                    for (int i = 0; i < PIXELS; i++) multiply(sum, i, row[(i * sw + v * dw) * C], g);
                }
            }
        }

    const int i = first_i + di, o = o0 + int(threadIdx.x) * 4;
    if (i >= OH || o >= O) return;
#pragma unroll
    for (int k = 0; k < PIXELS; k++) {
        const int j = first_j + dj + k;
        if (j >= OW) continue;
        Four<REAL> v;
#pragma unroll
        for (int e = 0; e < 4; e++) v.e[e] = sum[k][e];
        finish_group(y, b, v, (n * YH + i * si + i0) * YW + j * sj + j0, o, O, wide, activation);
    }
}

// partial[split, o, u, v, c]: lanes are groups of four channels o (and blockIdx.x), warps groups of TERMS of (u, v, c)
// (and blockIdx.y), `groups` of them; the other warps, and a warp's other rows of lanes, share the pixels of a tile.
// blockIdx.z is the split, of `each` tiles.
extern "C" __global__ void __launch_bounds__(256, 2)
    conv2d_grad_w_partial(Out<REAL> partial, In<REAL> x, In<REAL> dy, int N, int H, int W, int C, int O, int KH, int KW,
                          int OH, int OW, int sh, int sw, int top, int left, int dh, int dw, int each, int lanes,
                          int groups, int wide) {
    DYNAMIC_SHARED(REAL, shared);  // the tile of x; afterwards sums (WARPS, TERMS, 4, lanes)
    const int thread = int(threadIdx.x), warp = thread / 32, lane = thread % lanes, rows = 32 / lanes;
    const int o = (int(blockIdx.x) * lanes + lane) * 4, split = int(blockIdx.z), all = KH * KW * C;
    const int term = (int(blockIdx.y) * groups + warp % groups) * TERMS;
    const int across = ceil_div(OW, COLUMNS), down = ceil_div(OH, ROWS_W);
    Halo halo;
    halo.size(ROWS_W, KH, KW, sh, sw, dh, dw);
    int place[TERMS];  // of a term in the tile, relative to the result's own place
#pragma unroll
    for (int t = 0; t < TERMS; t++) {
        const int s = min(term + t, all - 1);
        place[t] = (s / (KW * C) * dh * halo.columns + s / C % KW * dw) * C + s % C;
    }
    REAL sum[TERMS][4] = {};
    for (int tile = split * each; tile < min((split + 1) * each, N * down * across); tile++) {
        const int n = tile / (down * across), first_i = tile / across % down * ROWS_W;
        const int first_j = tile % across * COLUMNS;
        __syncthreads();  // the last tile may still be read
        halo.load(shared, x, thread, n, first_i * sh - top, first_j * sw - left, H, W, C);
        __syncthreads();
#pragma unroll 4
        for (int q = warp / groups * rows + thread % 32 / lanes; q < ROWS_W * COLUMNS; q += WARPS / groups * rows) {
            const int i = first_i + q / COLUMNS, j = first_j + q % COLUMNS;
            const int count = i < OH && j < OW ? O - o : 0;
            In<REAL> from = dy + (((n * OH + i) * OW + j) * O + o);
            const Four<REAL> d = wide && count > 0 ? load_four(from) : load_some(from, count);
            const REAL* a = shared + (q / COLUMNS * sh * halo.columns + q % COLUMNS * sw) * C;
#pragma unroll
            for (int t = 0; t < TERMS; t++)
#pragma unroll
                for (int e = 0; e < 4; e++) sum[t][e] += a[place[t]] * d.e[e];
        }
    }
    __syncthreads();
#pragma unroll
    for (int t = 0; t < TERMS; t++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            for (int by = lanes; by < 32; by *= 2) sum[t][e] += __shfl_xor_sync(ALL_LANES, sum[t][e], by);
            if (thread % 32 < lanes) shared[((warp * TERMS + t) * 4 + e) * lanes + lane] = sum[t][e];
        }
    __syncthreads();
    for (int k = thread; k < groups * TERMS * 4 * lanes; k += 256) {  // (group, term, e, lane)
        REAL total = 0;
        for (int w = k / (TERMS * 4 * lanes); w < WARPS; w += groups)
            total += shared[w * TERMS * 4 * lanes + k % (TERMS * 4 * lanes)];
        const int s = int(blockIdx.y) * groups * TERMS + k / (4 * lanes);
        const int channel = (int(blockIdx.x) * lanes + k % lanes) * 4 + k / lanes % 4;
        if (s < all && channel < O) partial[(split * O + channel) * all + s] = total;
    }
}
