// The implicit GEMM on tensor cores, factors rounded to tf32: 10 bits of fraction, sums in float.
//
// Math     y[p, o] = act(b[o] + sum over taps (u, v) and channels c of r(x[pixel of p at (u, v), c]) r(w[o,u,v,c])), r
//          rounding to tf32, ties away from zero
// Layout   x (N, H, W, C), w packed (Op, KH, KW, Cp) and rounded, zeros up to multiples of BN and BK, y (N, YH, YW, O)
// Threads  a block makes BM pixels (blockIdx.x) x BN channels (blockIdx.y), each of its 8 warps BM / 4 x BN / 2 of them
//          in pieces of 16 x 8; see mma_tile.cuh; blockIdx.z the part of the sum, which split.cu adds up
// Memory   as step 5; shared: STAGES (BM + BN) rows of 80 bytes, 60 KB for 128 x 128
// Limit    tensor cores: 1024 multiply-adds a clock and multiprocessor on Hopper, which mma.sync does not reach
// Step     one instruction of a warp is 1024 multiply-adds instead of 32; ldmatrix brings its fragments without bank
//          conflicts, and both factors lie with the summed axis contiguous. Three buffers instead of two, since the
//          products of a tile now take less time than a copy's latency
// Needs    sm_80; where a row of channels is no multiple of 16 bytes, copies of 4 bytes
#include "conv/async.cuh"
#include "conv/mma_tile.cuh"

#ifndef TILE_M
#define TILE_M 64
#endif
#ifndef TILE_N
#define TILE_N 64
#endif
constexpr int BM = TILE_M, BN = TILE_N;
constexpr int BK = 16;                             // 64 bytes
constexpr int PITCH = ROW_BYTES / 4;               // floats
constexpr int PITCH_M = BM + 8, PITCH_N = BN + 8;  // grad_w: lanes (t, g) read bank 8 t + g, all different
static_assert(PITCH_M % 32 == 8 && PITCH_N % 32 == 8, "four rows of eight floats must fall into 32 banks");
using Results = MmaTile<TF32, BM, BN>;

extern "C" __global__ void __launch_bounds__(256, 2)
    conv2d(Out<float> y, In<float> x, In<float> w, In<float> b, int N, int H, int W, int C, int O, int KH, int KW,
           int OH, int OW, int sh, int sw, int top, int left, int dh, int dw, int YH, int YW, int si, int sj, int i0,
           int j0, int activation, int Cp, int wide_x, int each) {
    DYNAMIC_SHARED(float, shared);  // STAGES x (BM + BN) rows
    constexpr int STAGE = (BM + BN) * PITCH;
    const int p0 = int(blockIdx.x) * BM, o0 = int(blockIdx.y) * BN, pixels = N * OH * OW, taps = KH * KW;
    ImageTile<float, BM, BK, PITCH> image;
    image.start(p0, pixels, OH, OW, sh, sw, top, left);
    Chunks<BK> next;
    next.start(KH, KW, Cp, each);
    const int first = next.first, end = next.end;
    auto fetch = [&](int q) {  // chunk q, where there is one
        float* stage = shared + q % STAGES * STAGE;
        if (q < end) {
            image.copy(stage, x, next.u * dh, next.v * dw, next.c0, H, W, C, wide_x);
            copy_matrix<float, BN, BK, PITCH>(stage + BM * PITCH, w + (o0 * taps * Cp + q * BK), taps * Cp);
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
        const float* stage = shared + q % STAGES * STAGE;
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
// `pixels` pixels. The summed axis, pixels, is not contiguous here, and ldmatrix can turn 16-bit numbers only: plain
// loads.
extern "C" __global__ void __launch_bounds__(256, 2)
    conv2d_grad_w_partial(Out<float> partial, In<float> x, In<float> dy, int N, int H, int W, int C, int O, int KH,
                          int KW, int OH, int OW, int sh, int sw, int top, int left, int dh, int dw, int pixels,
                          int wide_x, int wide_dy) {
    DYNAMIC_SHARED(float, shared);  // STAGES x BK x (BM + 8 + BN + 8)
    constexpr int STAGE = BK * (PITCH_M + PITCH_N);
    const int blocks = ceil_div(C, BN), tap = int(blockIdx.x) / blocks, u = tap / KW * dh, v = tap % KW * dw;
    const int c0 = int(blockIdx.x) % blocks * BN, o0 = int(blockIdx.y) * BM, split = int(blockIdx.z);
    const int first = split * pixels, end = min(first + pixels, N * OH * OW),
              chunks = ceil_div(max(end - first, 0), BK);
    auto fetch = [&](int q) {
        float *a = shared + q % STAGES * STAGE, *b = a + BK * PITCH_M;
        if (q < chunks) {
            const int p0 = first + q * BK;
            copy_pixels<float, BK, BM, PITCH_M>(a, dy, p0, end, 0, 0, o0, OH, OW, O, OH, OW, 1, 1, 0, 0, wide_dy);
            copy_pixels<float, BK, BN, PITCH_N>(b, x, p0, end, u, v, c0, H, W, C, OH, OW, sh, sw, top, left, wide_x);
        }
        commit_copies();
    };
    Results results;
    results.clear();
    const int g = Results::lane() / 4, t = Results::lane() % 4;
    for (int q = 0; q < STAGES - 1; q++) fetch(q);
    for (int q = 0; q < chunks; q++) {
        wait_copies<STAGES - 2>();
        __syncthreads();
        fetch(q + STAGES - 1);
        const float *a = shared + q % STAGES * STAGE, *b = a + BK * PITCH_M;
#pragma unroll
        for (int k = 0; k < BK; k += 8) {
            unsigned p[Results::TM][4], r[Results::TN][2];
#pragma unroll
            for (int i = 0; i < Results::TM; i++)
#pragma unroll
                for (int e = 0; e < 4; e++)  // (g, t) (g + 8, t) (g, t + 4) (g + 8, t + 4) of (o, p)
                    p[i][e] = to_tf32(a[(k + t + e / 2 * 4) * PITCH_M + Results::first_row() + i * 16 + e % 2 * 8 + g]);
#pragma unroll
            for (int j = 0; j < Results::TN; j++)
#pragma unroll
                for (int e = 0; e < 2; e++)
                    r[j][e] = to_tf32(b[(k + t + e * 4) * PITCH_N + Results::first_column() + j * 8 + g]);
            results.multiply(p, r);
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
