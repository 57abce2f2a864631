// A block of 16 x 16 threads that makes BM x BN results: each thread BM / 16 x BN / 16 of them, in registers.
//
// Thread (tx, ty) owns rows 64 i + 4 ty + {0..3} and columns 64 j + 4 tx + {0..3}: groups of four, so that shared
// memory is read 16 bytes at a time, and groups of neighbouring threads side by side, so that they hit all 32 banks.
#pragma once
#include "conv/four.cuh"
#include "conv/geometry.cuh"

template <int BM, int BN>
struct Tile {
    static_assert(BM % 64 == 0 && BN % 64 == 0, "16 threads with groups of four make 64 rows and 64 columns");
    static constexpr int TM = BM / 16, TN = BN / 16;
    REAL sum[TM][TN];

    void clear() {
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) sum[i][j] = 0;
    }
    static int tx() { return int(threadIdx.x) % 16; }
    static int ty() { return int(threadIdx.x) / 16; }
    static int row(int i) { return i / 4 * 64 + ty() * 4 + i % 4; }
    static int column(int j) { return j / 4 * 64 + tx() * 4 + j % 4; }

    // sum += a b^T for one k: a[0..BM), b[0..BN) in shared memory, aligned to 16 bytes.
    void multiply(const REAL* a, const REAL* b) {
        Four<REAL> p[TM / 4], q[TN / 4];
#pragma unroll
        for (int i = 0; i < TM / 4; i++) p[i] = four(a + i * 64 + ty() * 4);
#pragma unroll
        for (int j = 0; j < TN / 4; j++) q[j] = four(b + j * 64 + tx() * 4);
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) sum[i][j] += p[i / 4].e[i % 4] * q[j / 4].e[j % 4];
    }

    // sum += a b for BK values of k: a (BM, BK) by rows of PITCH numbers, as cp.async leaves it, b (BK, BN).
    template <int BK, int PITCH>
    void multiply_rows(const REAL* a, const REAL* b) {
#pragma unroll 1                           // not more: the assembler would load so much ahead that registers spill
        for (int k = 0; k < BK; k += 2) {  // pairs: groups of four would take 32 registers
            Two<REAL> p[TM];
#pragma unroll
            for (int i = 0; i < TM; i++) p[i] = two(a + row(i) * PITCH + k);
#pragma unroll
            for (int e = 0; e < 2; e++) {
                Four<REAL> q[TN / 4];
#pragma unroll
                for (int j = 0; j < TN / 4; j++) q[j] = four(b + (k + e) * BN + column(4 * j));
#pragma unroll
                for (int i = 0; i < TM; i++)
#pragma unroll
                    for (int j = 0; j < TN; j++) sum[i][j] += p[i].e[e] * q[j / 4].e[j % 4];
            }
        }
    }

    // The four neighbours of row i from column 4 q on.
    Four<REAL> group(int i, int q) const {
        Four<REAL> v;
#pragma unroll
        for (int e = 0; e < 4; e++) v.e[e] = sum[i][q * 4 + e];
        return v;
    }
};

// y[k..] = v, at most `count` of the four; `wide`: all four at once, since k is a multiple of four and y aligned.
__device__ inline void store_group(Out<REAL> y, const Four<REAL>& v, int count, bool wide) {
    if (wide && count >= 4) return store_four(y, v);
#pragma unroll
    for (int e = 0; e < 4; e++)
        if (e < count) y[e] = v.e[e];
}

// The epilogue of one group of results: bias and activation, then the store.
__device__ inline void finish_group(Out<REAL> y, In<REAL> b, Four<REAL> v, int pixel, int o, int O, bool wide,
                                    int activation) {
#pragma unroll
    for (int e = 0; e < 4; e++) v.e[e] = activate(b && o + e < O ? v.e[e] + b[o + e] : v.e[e], activation);
    store_group(y + (pixel * O + o), v, O - o, wide);
}
