// The implicit GEMM on tensor cores in 16 bits, bf16 or fp16: sums, bias and results stay float.
//
// Math     y[p, o] = act(b[o] + sum over taps (u, v) and channels c of r(x[pixel of p at (u, v), c]) r(w[o,u,v,c])), r
//          rounding to bf16 (HALF 0: 7 bits of fraction) or fp16 (HALF 1: 10 bits, up to 65504), ties to even
// Layout   x in 16 bits (N, H, W, C), C a multiple of 8, by to_half of pack.cu; w packed (Op, KH, KW, Cp), zeros up to
//          multiples of BN and BK; y float (N, YH, YW, O)
// Threads  a block makes BM pixels (blockIdx.x) x BN channels (blockIdx.y), each of its 8 warps BM / 4 x BN / 2 of them
//          in pieces of 16 x 8; see mma_tile.cuh; blockIdx.z the part of the sum, which split.cu adds up
// Memory   half of step 7's bytes for a number; shared: STAGES (BM + BN) rows of 80 bytes of 32 channels, 60 KB for
//          128 x 128. Once before: 4 bytes read and 2 written for each number of x
// Limit    tensor cores: 2048 multiply-adds a clock and multiprocessor on Hopper, which mma.sync does not reach;
//          at 64 channels L2, which each tap reads again
// Step     16 numbers summed by one mma.sync instead of 8, and half the bytes everywhere. ldmatrix turns 16-bit
//          matrices, so grad_w needs no plain loads either
// Needs    sm_80
#include "conv/async.cuh"
#include "conv/mma_tile.cuh"

#ifndef TILE_M
#define TILE_M 64
#endif
#ifndef TILE_N
#define TILE_N 64
#endif
#ifndef HALF
#define HALF 0
#endif
constexpr int BM = TILE_M, BN = TILE_N;
constexpr int BK = 32;                             // 64 bytes
constexpr int PITCH = ROW_BYTES / 2;               // numbers
constexpr int PITCH_M = BM + 8, PITCH_N = BN + 8;  // grad_w: rows 16 bytes longer than a multiple of 128
static_assert(PITCH_M % 64 == 8 && PITCH_N % 64 == 8, "eight rows that ldmatrix reads must fall into 32 banks");
using Results = MmaTile<HALF ? F16 : BF16, BM, BN>;

extern "C" __global__ void __launch_bounds__(256, 2)
    conv2d(Out<float> y, In<u16> x, In<u16> w, In<float> b, int N, int H, int W, int C, int O, int KH, int KW, int OH,
           int OW, int sh, int sw, int top, int left, int dh, int dw, int YH, int YW, int si, int sj, int i0, int j0,
           int activation, int Cp, int each) {
    DYNAMIC_SHARED(u16, shared);  // STAGES x (BM + BN) rows
    constexpr int STAGE = (BM + BN) * PITCH;
    const int p0 = int(blockIdx.x) * BM, o0 = int(blockIdx.y) * BN, pixels = N * OH * OW, taps = KH * KW;
    ImageTile<u16, BM, BK, PITCH> image;
    image.start(p0, pixels, OH, OW, sh, sw, top, left);
    Chunks<BK> next;
    next.start(KH, KW, Cp, each);
    const int first = next.first, end = next.end;
    auto fetch = [&](int q) {  // chunk q, where there is one
        u16* stage = shared + q % STAGES * STAGE;
        if (q < end) {
            image.copy(stage, x, next.u * dh, next.v * dw, next.c0, H, W, C, true);
            copy_matrix<u16, BN, BK, PITCH>(stage + BM * PITCH, w + (o0 * taps * Cp + q * BK), taps * Cp);
            next.next(KW, Cp);
        }
        commit_copies();
    };
    Results results;
    results.clear();
    for (int q = first; q < first + STAGES - 1; q++) fetch(q);
    for (int q = first; q < end; q++) {
        wait_copies<STAGES - 2>();
        __syncthreads();  // chunk q is there for all, and nobody reads the buffer of q - 1 any more
        fetch(q + STAGES - 1);
        const u16* stage = shared + q % STAGES * STAGE;
        results.multiply_rows(stage, stage + BM * PITCH);
    }
    Out<float> to = y + part(N, YH, YW, O);
    results.each([&](int row, int column, float low, float high) {
        const int p = p0 + row;
        if (p >= pixels) return;
        const int pixel = target(p, OH, OW, YH, YW, si, sj, i0, j0);
        finish_pair(to, b, low, high, pixel, o0 + column, O, activation);
    });
}

// partial[split, o, u, v, c]: blockIdx.x the tap and BN channels c, blockIdx.y BM channels o, blockIdx.z the split of
// `pixels` pixels. dy has Op channels, a multiple of 8, x has Cp; dw has O and C.
extern "C" __global__ void __launch_bounds__(256, 2)
    conv2d_grad_w_partial(Out<float> partial, In<u16> x, In<u16> dy, int N, int H, int W, int C, int O, int KH, int KW,
                          int OH, int OW, int sh, int sw, int top, int left, int dh, int dw, int pixels, int Cp,
                          int Op) {
    DYNAMIC_SHARED(u16, shared);  // STAGES x BK x (BM + 8 + BN + 8)
    constexpr int STAGE = BK * (PITCH_M + PITCH_N);
    const int blocks = ceil_div(C, BN), tap = int(blockIdx.x) / blocks, u = tap / KW * dh, v = tap % KW * dw;
    const int c0 = int(blockIdx.x) % blocks * BN, o0 = int(blockIdx.y) * BM, split = int(blockIdx.z);
    const int first = split * pixels, end = min(first + pixels, N * OH * OW),
              chunks = ceil_div(max(end - first, 0), BK);
    auto fetch = [&](int q) {
        u16 *a = shared + q % STAGES * STAGE, *b = a + BK * PITCH_M;
        if (q < chunks) {
            const int p0 = first + q * BK;
            copy_pixels<u16, BK, BM, PITCH_M>(a, dy, p0, end, 0, 0, o0, OH, OW, Op, OH, OW, 1, 1, 0, 0, true);
            copy_pixels<u16, BK, BN, PITCH_N>(b, x, p0, end, u, v, c0, H, W, Cp, OH, OW, sh, sw, top, left, true);
        }
        commit_copies();
    };
    Results results;
    results.clear();
    const int m = Results::lane() / 8, r = Results::lane() % 8;
    for (int q = 0; q < STAGES - 1; q++) fetch(q);
    for (int q = 0; q < chunks; q++) {
        wait_copies<STAGES - 2>();
        __syncthreads();
        fetch(q + STAGES - 1);
        const u16 *a = shared + q % STAGES * STAGE, *b = a + BK * PITCH_M;
#pragma unroll
        for (int k = 0; k < BK; k += 16) {  // matrices of 8 pixels x 8 channels, turned
            unsigned p[Results::TM][4], s[Results::TN][2];
#pragma unroll
            for (int i = 0; i < Results::TM; i++)
                load_matrix_x4<true>(p[i],
                                     a + (k + m / 2 * 8 + r) * PITCH_M + Results::first_row() + i * 16 + m % 2 * 8);
#pragma unroll
            for (int j = 0; j < Results::TN; j += 2) {
                unsigned pair[4];
                load_matrix_x4<true>(pair,
                                     b + (k + m % 2 * 8 + r) * PITCH_N + Results::first_column() + j * 8 + m / 2 * 8);
                s[j][0] = pair[0], s[j][1] = pair[1], s[j + 1][0] = pair[2], s[j + 1][1] = pair[3];
            }
            results.multiply(p, s);
        }
    }
    results.each([&](int row, int column, float low, float high) {
        const int o = o0 + row, c = c0 + column;
        if (o >= O) return;
        Out<float> to = partial + ((split * O + o) * KH * KW + tap) * C;
        if (c < C) to[c] = low;
        if (c + 1 < C) to[c + 1] = high;
    });
}
