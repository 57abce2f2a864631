// The implicit GEMM with two buffers: while one tile is multiplied, cp.async brings the next.
//
// Math     y[p, o] = act(b[o] + sum over taps (u, v) and channels c of x[pixel of p at (u, v), c] w[u,v,c,o])
// Layout   x (N, H, W, C), w packed (KH, KW, Cp, Op) with zeros up to multiples of BK and BN, y (N, YH, YW, O); see
//          geometry.cuh
// Threads  a block makes BM pixels (blockIdx.x) x BN channels (blockIdx.y), a thread BM / 16 x BN / 16 of them;
//          blockIdx.z the part of the sum, which split.cu adds up where there are several
// Memory   as step 4; shared: 2 (BM (BK + 4) + BK BN) numbers, 36 KB for 128 x 128 floats. No registers hold numbers
//          on their way, and 64 hold results
// Limit    multiply-adds; one barrier for BK of them
// Step     loads of the next tile overlap the products of this one: step 4 waits about 600 clocks for each tile, which
//          only other blocks of the multiprocessor hide. x lies as it comes, (pixel, channel), since cp.async cannot
//          transpose; a row is 16 bytes longer than its channels, so that rows start in different banks
// Needs    sm_80; where a row of channels is no multiple of 16 bytes, copies of 4 bytes (floats)
#include "conv/async.cuh"
#include "conv/tile.cuh"

#ifndef TILE_M
#define TILE_M 64
#endif
#ifndef TILE_N
#define TILE_N 64
#endif
constexpr int BM = TILE_M, BN = TILE_N;
constexpr int BK = 16;
constexpr int PITCH = BK + 4;
extern "C" __global__ void __launch_bounds__(256, 2)
    conv2d(Out<REAL> y, In<REAL> x, In<REAL> w, In<REAL> b, int N, int H, int W, int C, int O, int KH, int KW, int OH,
           int OW, int sh, int sw, int top, int left, int dh, int dw, int YH, int YW, int si, int sj, int i0, int j0,
           int activation, int Cp, int Op, int wide_x, int wide_y, int each) {
    __shared__ __align__(16) REAL as[2][BM * PITCH], bs[2][BK * BN];
    const int p0 = int(blockIdx.x) * BM, o0 = int(blockIdx.y) * BN, pixels = N * OH * OW;
    ImageTile<REAL, BM, BK, PITCH> image;
    image.start(p0, pixels, OH, OW, sh, sw, top, left);
    Chunks<BK> next;
    next.start(KH, KW, Cp, each);
    const int first = next.first, end = next.end;
    auto fetch = [&](int q) {  // chunk q, where there is one, into buffer q % 2
        if (q < end) {
            image.copy(as[q % 2], x, next.u * dh, next.v * dw, next.c0, H, W, C, wide_x);
            copy_matrix<REAL, BK, BN, BN>(bs[q % 2], w + (q * BK * Op + o0), Op);
            next.next(KW, Cp);
        }
        commit_copies();
    };
    Tile<BM, BN> tile;
    tile.clear();
    fetch(first);
    for (int q = first; q < end; q++) {
        wait_copies<0>();
        __syncthreads();  // chunk q is there for all, and nobody reads the other buffer any more
        fetch(q + 1);
        tile.multiply_rows<BK, PITCH>(as[q % 2], bs[q % 2]);
    }
    Out<REAL> to = y + part(N, YH, YW, O);
#pragma unroll
    for (int i = 0; i < tile.TM; i++) {
        const int p = p0 + tile.row(i);
        if (p >= pixels) continue;
        const int pixel = target(p, OH, OW, YH, YW, si, sj, i0, j0);
#pragma unroll
        for (int j = 0; j < tile.TN / 4; j++)
            finish_group(to, b, tile.group(i, j), pixel, o0 + tile.column(4 * j), O, wide_y, activation);
    }
}

// partial[split, o, u, v, c]: blockIdx.x the tap and BN channels c, blockIdx.y BM channels o, blockIdx.z the split of
// `pixels` pixels. dy and x lie as the product wants them: no transposition, no longer rows.
extern "C" __global__ void __launch_bounds__(256, 2)
    conv2d_grad_w_partial(Out<REAL> partial, In<REAL> x, In<REAL> dy, int N, int H, int W, int C, int O, int KH, int KW,
                          int OH, int OW, int sh, int sw, int top, int left, int dh, int dw, int pixels, int wide_x,
                          int wide_dy) {
    __shared__ __align__(16) REAL as[2][BK * BM], bs[2][BK * BN];
    const int blocks = ceil_div(C, BN), tap = int(blockIdx.x) / blocks, u = tap / KW * dh, v = tap % KW * dw;
    const int c0 = int(blockIdx.x) % blocks * BN, o0 = int(blockIdx.y) * BM, split = int(blockIdx.z);
    const int first = split * pixels, end = min(first + pixels, N * OH * OW),
              chunks = ceil_div(max(end - first, 0), BK);
    auto fetch = [&](int q) {
        if (q < chunks) {
            const int p0 = first + q * BK;
            copy_pixels<REAL, BK, BM, BM>(as[q % 2], dy, p0, end, 0, 0, o0, OH, OW, O, OH, OW, 1, 1, 0, 0, wide_dy);
            copy_pixels<REAL, BK, BN, BN>(bs[q % 2], x, p0, end, u, v, c0, H, W, C, OH, OW, sh, sw, top, left, wide_x);
        }
        commit_copies();
    };
    Tile<BM, BN> tile;
    tile.clear();
    fetch(0);
    for (int q = 0; q < chunks; q++) {
        wait_copies<0>();
        __syncthreads();
        fetch(q + 1);
#pragma unroll
        for (int k = 0; k < BK; k++) tile.multiply(as[q % 2] + k * BM, bs[q % 2] + k * BN);
    }
#pragma unroll
    for (int i = 0; i < tile.TM; i++) {
        const int o = o0 + tile.row(i);
        if (o >= O) continue;
#pragma unroll
        for (int j = 0; j < tile.TN / 4; j++) {
            const int c = c0 + tile.column(4 * j);
            store_group(partial + (((split * O + o) * KH * KW + tap) * C + c), tile.group(i, j), C - c, wide_x);
        }
    }
}
