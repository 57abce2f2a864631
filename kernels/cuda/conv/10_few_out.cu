// Convolution to few channels: a network's head, and the gradient in x of its first layer.
//
// Math     y[n,i,j,o] = act(b[o] + sum_{u,v,c} x[n, i sh + u dh - top, j sw + v dw - left, c] w[u,v,c,o])
// Layout   x (N, H, W, C), w packed (KH, KW, Cp, FEW), zeros up to multiples of CHANNELS and FEW, y (N, YH, YW, O), O
//          at most FEW, which is 2, 4 or 8; see geometry.cuh
// Threads  16 lanes share the channels of a pixel, four each, and make SUMS / FEW pixels: 8 for a head of 2 classes
// Memory   x once for each tap, 256 bytes side by side; w from L1, a load of 16 bytes for SUMS / FEW pixels
// Limit    DRAM bandwidth for 1 x 1; with 3 x 3 L1, which each tap reads again
// Step     a tile of 64 columns would be 62 zeros. Here lanes split the sum instead, and all x loads of a thread are on
//          their way at once. 16 sums of 16 lanes take 15 shuffles, not 64: each lane gives away half of its sums and
//          adds to the other half, until lane k holds sum k. grad_w: x, the large array, is read once for each tap
// Needs    nothing; where a row of channels is no multiple of 16 bytes, x is read number by number
#include "conv/tile.cuh"
#include "reduce.cuh"

#ifndef FEW
#define FEW 2
#endif
constexpr int LANES = 64 / int(sizeof(REAL));  // 16; 8 for doubles, for which registers do not suffice otherwise
constexpr int SUMS = LANES;
constexpr int PIXELS = SUMS / FEW;
constexpr int CHANNELS = 4 * LANES;
constexpr int WARPS = 8;
constexpr int BLOCKS = sizeof(REAL) == 4 ? 2 : 1;  // at least, on a multiprocessor
static_assert(FEW == 2 || FEW == 4 || FEW == 8, "channels of the result, rounded up");

// Result pixels one after the other, without a division for each.
struct Walk {
    Source source;
    int i, j;

    void start(int p, int OH, int OW, int sh, int sw, int top, int left) {
        source.start(p, OH, OW, sh, sw, top, left);
        i = p / OW % OH, j = p % OW;
    }
    void next(int OH, int OW, int sh, int sw, int top, int left) {
        j += 1, source.w += sw;
        if (j < OW) return;
        j = 0, source.w = -left, i += 1, source.h += sh;
        if (i < OH) return;
        i = 0, source.h = -top, source.n += 1;
    }
};

// Four channels of x at a tap, zero outside of the image and behind C.
__device__ inline Four<REAL> load_pixel(In<REAL> x, const Source& s, bool there, int u, int v, int c, int H, int W,
                                        int C, bool wide) {
    const int count = there && s.in(u, v, H, W) ? C - c : 0;
    In<REAL> from = x + (s.pixel(u, v, H, W) * C + c);
    return wide && count > 0 ? load_four(from) : load_some(from, count);
}

extern "C" __global__ void __launch_bounds__(256, BLOCKS)
    conv2d(Out<REAL> y, In<REAL> x, In<REAL> w, In<REAL> b, int N, int H, int W, int C, int O, int KH, int KW, int OH,
           int OW, int sh, int sw, int top, int left, int dh, int dw, int YH, int YW, int si, int sj, int i0, int j0,
           int activation, int Cp, int wide) {
    const int lane = int(threadIdx.x) % LANES, p0 = global_thread() / LANES * PIXELS, pixels = N * OH * OW;
    Source source[PIXELS];
    Walk walk;
    walk.start(p0, OH, OW, sh, sw, top, left);
#pragma unroll
    for (int q = 0; q < PIXELS; q++) {
        source[q] = walk.source;
        walk.next(OH, OW, sh, sw, top, left);
    }
    REAL sum[SUMS] = {};
    for (int tap = 0; tap < KH * KW; tap++)
        for (int c = lane * 4; c < Cp; c += CHANNELS) {
            Four<REAL> a[PIXELS], g[FEW];  // g: w[tap, c.., :], numbers 4 FEW in a row
#pragma unroll
            for (int q = 0; q < PIXELS; q++)
                a[q] = load_pixel(x, source[q], p0 + q < pixels, tap / KW * dh, tap % KW * dw, c, H, W, C, wide);
#pragma unroll
            for (int f = 0; f < FEW; f++) g[f] = load_four(w + ((tap * Cp + c) * FEW + 4 * f));
#pragma unroll
            for (int q = 0; q < PIXELS; q++)
#pragma unroll
                for (int k = 0; k < 4 * FEW; k++) sum[q * FEW + k % FEW] += a[q].e[k / FEW] * g[k / 4].e[k % 4];
        }
#pragma unroll
    for (int step = 1; step < SUMS; step *= 2) {
        const int half = SUMS / 2 / step;
        const bool upper = lane & half;
#pragma unroll
        for (int k = 0; k < SUMS / 2; k++)
            if (k < half) {
                const REAL low = sum[k], high = sum[k + half];
                sum[k] = (upper ? high : low) + __shfl_xor_sync(ALL_LANES, upper ? low : high, half);
            }
    }
    const int p = p0 + lane / FEW, o = lane % FEW;
    if (p < pixels && o < O)
        y[target(p, OH, OW, YH, YW, si, sj, i0, j0) * O + o] = activate(b ? sum[0] + b[o] : sum[0], activation);
}

// partial[split, o, u, v, c]: lanes and blockIdx.x channels c, blockIdx.y the tap, blockIdx.z the split of `pixels`
// pixels, which the block's rows of lanes share: runs of `run`.
extern "C" __global__ void __launch_bounds__(256, BLOCKS)
    conv2d_grad_w_partial(Out<REAL> partial, In<REAL> x, In<REAL> dy, int N, int H, int W, int C, int O, int KH, int KW,
                          int OH, int OW, int sh, int sw, int top, int left, int dh, int dw, int pixels, int run,
                          int wide) {
    __shared__ REAL scratch[WARPS][FEW * 4][LANES];
    const int thread = int(threadIdx.x), lane = thread % LANES, warp = thread / 32, split = int(blockIdx.z);
    const int c = int(blockIdx.x) * CHANNELS + lane * 4, tap = int(blockIdx.y), u = tap / KW * dh, v = tap % KW * dw;
    const int first = split * pixels + thread / LANES * run;
    const int end = min(min(first + run, (split + 1) * pixels), N * OH * OW);
    Walk walk;
    walk.start(first, OH, OW, sh, sw, top, left);
    REAL sum[FEW * 4] = {};
#pragma unroll 4
    for (int p = first; p < end; p++) {
        const Four<REAL> a = load_pixel(x, walk.source, true, u, v, c, H, W, C, wide);
#pragma unroll
        for (int f = 0; f < FEW; f++) {
            const REAL d = f < O ? dy[p * O + f] : REAL(0);
#pragma unroll
            for (int e = 0; e < 4; e++) sum[f * 4 + e] += d * a.e[e];
        }
        walk.next(OH, OW, sh, sw, top, left);
    }
#pragma unroll
    for (int k = 0; k < FEW * 4; k++) {
#pragma unroll
        for (int by = LANES; by < 32; by *= 2) sum[k] += __shfl_xor_sync(ALL_LANES, sum[k], by);
        if (thread % 32 < LANES) scratch[warp][k][lane] = sum[k];
    }
    __syncthreads();
    for (int k = thread; k < FEW * CHANNELS; k += 256) {  // (o, e, lane)
        REAL total = 0;
#pragma unroll
        for (int from = 0; from < WARPS; from++) total += scratch[from][k / LANES][k % LANES];
        const int o = k / CHANNELS, channel = int(blockIdx.x) * CHANNELS + k % LANES * 4 + k / LANES % 4;
        if (o < O && channel < C) partial[((split * O + o) * KH * KW + tap) * C + channel] = total;
    }
}
