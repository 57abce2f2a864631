// Products of matrices, one for each sample.
//
// Math     y[n,m,p] = sum_k A[n,m,k] B[n,k,p]; A, B are a, b or their transposes
// Layout   a (N, M, K) or (N, K, M), b (N, K, P) or (N, P, K), y (N, M, P), the last axis contiguous
// Threads  a block owns 32 x 32 of y, a thread 4 rows of one column; blockIdx.z the sample
// Memory   a block reads 2 tiles of 32 x 32 for each 32 of K: every number serves 32 products; 8 KB shared (float)
// Limit    shared memory: 5 loads for 4 multiply-adds
// Step     tiles in shared memory; the load walks along the contiguous axis whether or not the matrix is transposed
// Needs    nothing
#include "common.cuh"

constexpr int TILE = 32, OWN = 4, STEP = TILE / OWN;

// tile[i][j] = matrix[r0 + i, c0 + j], zeros outside of rows x columns; transposed: the memory holds (columns, rows).
__device__ void load_tile(REAL (&tile)[TILE][TILE + 1], In<REAL> matrix, int rows, int columns, int r0, int c0,
                          int transposed) {
    const int x = int(threadIdx.x);
    for (int y = int(threadIdx.y); y < TILE; y += STEP) {
        const int r = r0 + (transposed ? x : y), c = c0 + (transposed ? y : x);
        const REAL a = r < rows && c < columns ? matrix[transposed ? c * rows + r : r * columns + c] : REAL(0);
        if (transposed) tile[x][y] = a;
        else tile[y][x] = a;
    }
}

extern "C" __global__ void __launch_bounds__(256)
    matmul(Out<REAL> y, In<REAL> a, In<REAL> b, int M, int K, int P, int transpose_a, int transpose_b) {
    __shared__ REAL left[TILE][TILE + 1], right[TILE][TILE + 1];  // a column more: transposed stores meet 32 banks
    const int n = int(blockIdx.z), m0 = int(blockIdx.y) * TILE, p0 = int(blockIdx.x) * TILE;
    const int column = int(threadIdx.x), row = int(threadIdx.y);
    REAL sum[OWN] = {};
    for (int k0 = 0; k0 < K; k0 += TILE) {
        load_tile(left, a + n * M * K, M, K, m0, k0, transpose_a);
        load_tile(right, b + n * K * P, K, P, k0, p0, transpose_b);
        __syncthreads();
        for (int k = 0; k < TILE; k++)
#pragma unroll
            for (int e = 0; e < OWN; e++) sum[e] += left[row + e * STEP][k] * right[k][column];
        __syncthreads();
    }
#pragma unroll
    for (int e = 0; e < OWN; e++) {
        const int m = m0 + row + e * STEP, p = p0 + column;
        if (m < M && p < P) y[(n * M + m) * P + p] = sum[e];
    }
}
