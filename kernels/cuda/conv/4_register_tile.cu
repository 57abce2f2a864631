// Convolution as a product of matrices that are never written: an implicit GEMM with results in registers.
//
// Math     y[p, o] = act(b[o] + sum over taps (u, v) and channels c of x[pixel of p at (u, v), c] w[u,v,c,o])
// Layout   x (N, H, W, C), w packed (KH, KW, Cp, Op) with zeros up to multiples of BK and BN, y (N, YH, YW, O); see
//          geometry.cuh
// Threads  a block makes BM pixels (blockIdx.x) x BN channels (blockIdx.y), a thread BM / 16 x BN / 16 of them;
//          blockIdx.z the part of the sum, which split.cu adds up where there are several
// Memory   for BK channels of one tap a block reads BM BK numbers of x and BK BN of w: BM BN / (BM + BN) multiply-adds
//          for each number read. Shared: (BM + BN) BK numbers, 16 KB for 128 x 128 floats; registers: the results
// Limit    multiply-adds where BM = BN = 128: 4 loads of 16 bytes from shared memory for 64 of them; smaller tiles, or
//          parts of sums, where 128 x 128 would leave multiprocessors idle
// Step     results in registers: a number loaded from shared memory is used 8 times instead of once. grad_w the same:
//          rows are channels of dy, columns channels of x at a tap, and the sum runs over a split's pixels
// Needs    nothing; where a row of channels is no multiple of 16 bytes, x is read number by number
#include "conv/tile.cuh"

#ifndef TILE_M
#define TILE_M 64
#endif
#ifndef TILE_N
#define TILE_N 64
#endif
constexpr int BM = TILE_M, BN = TILE_N;
constexpr int BK = 16;
constexpr int GROUPS = BK / 4;              // of four channels in a row of x
constexpr int LOADS_A = BM * GROUPS / 256;  // groups of x for each of 256 threads
constexpr int LOADS_B = BN / 4 * BK / 256;  // groups of w
static_assert(LOADS_A * 256 == BM * GROUPS && LOADS_B * 1024 == BN * BK, "all threads load equally many groups");

extern "C" __global__ void __launch_bounds__(256, 1)
    conv2d(Out<REAL> y, In<REAL> x, In<REAL> w, In<REAL> b, int N, int H, int W, int C, int O, int KH, int KW, int OH,
           int OW, int sh, int sw, int top, int left, int dh, int dw, int YH, int YW, int si, int sj, int i0, int j0,
           int activation, int Cp, int Op, int wide_x, int wide_y, int each) {
    __shared__ __align__(16) REAL as[BK][BM + 4], bs[BK][BN];  // + 4: the transposed stores hit different banks
    const int thread = int(threadIdx.x), p0 = int(blockIdx.x) * BM, o0 = int(blockIdx.y) * BN, pixels = N * OH * OW;
    Source source[LOADS_A];
#pragma unroll
    for (int l = 0; l < LOADS_A; l++) source[l].start(p0 + (thread + 256 * l) / GROUPS, OH, OW, sh, sw, top, left);
    Tile<BM, BN> tile;
    tile.clear();
    Chunks<BK> chunk;
    chunk.start(KH, KW, Cp, each);
    for (int q = chunk.first; q < chunk.end; q++) {
        const int u = chunk.u * dh, v = chunk.v * dw, c0 = chunk.c0;
#pragma unroll
        for (int l = 0; l < LOADS_A; l++) {  // as[c][p] = x[pixel of p, c0 + c]
            const int row = (thread + 256 * l) / GROUPS, c = (thread + 256 * l) % GROUPS * 4;
            const bool in = p0 + row < pixels && source[l].in(u, v, H, W);
            In<REAL> xp = x + (source[l].pixel(u, v, H, W) * C + c0 + c);
            const int count = in ? C - c0 - c : 0;
            const Four<REAL> a = wide_x && count > 0 ? load_four(xp) : load_some(xp, count);
#pragma unroll
            for (int e = 0; e < 4; e++) as[c + e][row] = a.e[e];
        }
#pragma unroll
        for (int l = 0; l < LOADS_B; l++) {  // bs[c][o] = w[u, v, c0 + c, o0 + o]
            const int c = (thread + 256 * l) / (BN / 4), o = (thread + 256 * l) % (BN / 4) * 4;
            four(&bs[c][o]) = load_four(w + ((q * BK + c) * Op + o0 + o));
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < BK; k++) tile.multiply(as[k], bs[k]);
        __syncthreads();
        chunk.next(KW, Cp);
    }
    Out<REAL> to = y + part(N, YH, YW, O);
#pragma unroll
    for (int i = 0; i < tile.TM; i++) {
        const int p = p0 + tile.row(i);
        if (p >= pixels) continue;
        const int pixel = target(p, OH, OW, YH, YW, si, sj, i0, j0);
#pragma unroll
        for (int q = 0; q < tile.TN / 4; q++)
            finish_group(to, b, tile.group(i, q), pixel, o0 + tile.column(4 * q), O, wide_y, activation);
    }
}

// partial[split, o, u, v, c]: blockIdx.x the tap and BN channels c, blockIdx.y BM channels o, blockIdx.z the split of
// `pixels` pixels.
extern "C" __global__ void __launch_bounds__(256, 1)
    conv2d_grad_w_partial(Out<REAL> partial, In<REAL> x, In<REAL> dy, int N, int H, int W, int C, int O, int KH, int KW,
                          int OH, int OW, int sh, int sw, int top, int left, int dh, int dw, int pixels, int wide_x,
                          int wide_dy) {
    __shared__ __align__(16) REAL as[BK][BM], bs[BK][BN];  // (pixel, channel)
    const int thread = int(threadIdx.x), blocks = ceil_div(C, BN), tap = int(blockIdx.x) / blocks;
    const int c0 = int(blockIdx.x) % blocks * BN, o0 = int(blockIdx.y) * BM, split = int(blockIdx.z);
    const int u = tap / KW * dh, v = tap % KW * dw, end = min((split + 1) * pixels, N * OH * OW);
    Tile<BM, BN> tile;
    tile.clear();
    for (int p0 = split * pixels; p0 < end; p0 += BK) {
#pragma unroll
        for (int l = 0; l < LOADS_A; l++) {  // as[p][o] = dy[p, o]
            const int k = (thread + 256 * l) / (BM / 4), o = (thread + 256 * l) % (BM / 4) * 4;
            const int count = p0 + k < end ? O - o0 - o : 0;
            In<REAL> dyp = dy + ((p0 + k) * O + o0 + o);
            four(&as[k][o]) = wide_dy && count > 0 ? load_four(dyp) : load_some(dyp, count);
        }
#pragma unroll
        for (int l = 0; l < LOADS_B; l++) {  // bs[p][c] = x[pixel of p, c]
            const int k = (thread + 256 * l) / (BN / 4), c = (thread + 256 * l) % (BN / 4) * 4;
            Source source;
            source.start(p0 + k, OH, OW, sh, sw, top, left);
            const int count = p0 + k < end && source.in(u, v, H, W) ? C - c0 - c : 0;
            In<REAL> xp = x + (source.pixel(u, v, H, W) * C + c0 + c);
            four(&bs[k][c]) = wide_x && count > 0 ? load_four(xp) : load_some(xp, count);
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < BK; k++) tile.multiply(as[k], bs[k]);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < tile.TM; i++) {
        const int o = o0 + tile.row(i);
        if (o >= O) continue;
#pragma unroll
        for (int q = 0; q < tile.TN / 4; q++) {
            const int c = c0 + tile.column(4 * q);
            store_group(partial + (((split * O + o) * KH * KW + tap) * C + c), tile.group(i, q), C - c, wide_x);
        }
    }
}
