// A block of 8 warps that makes BM x BN results on tensor cores: 4 x 2 warps, each BM / 4 rows and BN / 2 columns in
// pieces of 16 x 8.
//
// Shared rows are 64 bytes of numbers and 16 of padding: 80 bytes, so that the eight rows that ldmatrix reads at once
// start in banks 0, 20, 8, 28, 16, 4, 24, 12 and cover all 32. 32 bytes are one mma.sync: 8 tf32 or 16 16-bit numbers.
#pragma once
#include "ptx.cuh"

enum Kind { TF32, BF16, F16 };
constexpr int ROW_BYTES = 80;
constexpr int STAGES = 3;  // tiles on their way or in use: products take less time than one copy's latency

template <Kind KIND>
__device__ inline void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if !defined(__CUDACC__) || __CUDA_ARCH__ >= 800
    if constexpr (KIND == TF32) mma_tf32(d, a, b);
    else if constexpr (KIND == BF16) mma_bf16(d, a, b);
    else mma_f16(d, a, b);
#endif
}

template <Kind KIND, int BM, int BN>
struct MmaTile {
    static_assert(BM % 64 == 0 && BN % 32 == 0, "4 warps make 16 rows each, 2 warps pairs of 8 columns");
    static constexpr int TM = BM / 64, TN = BN / 16;
    float d[TM][TN][4];

    void clear() {
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) d[i][j][e] = 0;
    }
    static int lane() { return int(threadIdx.x) % 32; }
    static int first_row() { return int(threadIdx.x) / 32 % 4 * (BM / 4); }
    static int first_column() { return int(threadIdx.x) / 128 * (BN / 2); }

    void multiply(const unsigned (&a)[TM][4], const unsigned (&b)[TN][2]) {
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) mma<KIND>(d[i][j], a[i], b[j]);
    }

    // d += a b^T, a BM and b BN rows of 64 bytes along the axis that is summed over.
    void multiply_rows(const void* a, const void* b) {
        const int m = lane() / 8, r = lane() % 8;  // this lane gives ldmatrix the address of row r of matrix m
#pragma unroll
        for (int byte = 0; byte < 64; byte += 32) {
            unsigned p[TM][4], q[TN][2];
            const char* rows = static_cast<const char*>(a) + (first_row() + m % 2 * 8 + r) * ROW_BYTES;
#pragma unroll
            for (int i = 0; i < TM; i++) {
                load_matrix_x4(p[i], rows + i * 16 * ROW_BYTES + byte + m / 2 * 16);
                if constexpr (KIND == TF32) {  // filters are rounded when they are packed, images here
#pragma unroll
                    for (int e = 0; e < 4; e++) p[i][e] = to_tf32(__uint_as_float(p[i][e]));
                }
            }
            const char* columns = static_cast<const char*>(b) + (first_column() + m / 2 * 8 + r) * ROW_BYTES;
#pragma unroll
            for (int j = 0; j < TN; j += 2) {
                unsigned pair[4];
                load_matrix_x4(pair, columns + j * 8 * ROW_BYTES + byte + m % 2 * 16);
                q[j][0] = pair[0], q[j][1] = pair[1], q[j + 1][0] = pair[2], q[j + 1][1] = pair[3];
            }
            multiply(p, q);
        }
    }

    // f(row, column, two neighbours) for all results of this thread.
    template <class F>
    void each(F f) const {
        const int g = lane() / 4, t = lane() % 4;
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int j = 0; j < TN; j++)
                    f(first_row() + i * 16 + half * 8 + g, first_column() + j * 8 + 2 * t, d[i][j][2 * half],
                      d[i][j][2 * half + 1]);
    }
};

// Bias, activation and store of two neighbouring channels of a pixel.
__device__ inline void finish_pair(Out<float> y, In<float> b, float low, float high, int pixel, int o, int O,
                                   int activation) {
    if (o < O) y[pixel * O + o] = float(activate(b ? low + b[o] : low, activation));
    if (o + 1 < O) y[pixel * O + o + 1] = float(activate(b ? high + b[o + 1] : high, activation));
}
