// 3 x 3 convolution by Winograd's F(4 x 4, 3 x 3): 36 products for 16 results instead of 144.
//
// Math     Y = A^T [sum over c of (G w G^T) (B^T d B)] A for each tile of 4 x 4 results of a channel, d its 6 x 6
//          numbers of x, products element by element; Lavin and Gray 2015 (arXiv 1509.09308), points 0, 1, -1, 2, -2
// Layout   x (N, H, W, C), y (N, OH, OW, O); v (36, Tp, Cp) transformed tiles of x, u (36, Cp, Op) filters,
//          m (36, Tp, Op) products; sizes rounded up to whole blocks of the product
// Threads  transforms: a tile (blockIdx.x, threadIdx.y) and channel (blockIdx.y, threadIdx.x) each; products: as
//          step 5, BM tiles (blockIdx.x) x BN channels (blockIdx.y) for each of the 36 (blockIdx.z)
// Memory   v and m are 2.25 times x and y, written once and read once; the launcher takes so many tiles at a time that
//          they stay under 256 MB
// Limit    at 64 channels the traffic of v and m, from 128 on the multiply-adds (computed)
// Step     a quarter of step 5's multiply-adds, for two passes over memory more. The transforms' factors up to 8 cost
//          about one decimal of precision: not for "strict"
// Needs    sm_80; 3 x 3, stride 1, dilation 1
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

// B^T d, in place.
__device__ inline void transform_image(REAL& d0, REAL& d1, REAL& d2, REAL& d3, REAL& d4, REAL& d5) {
    const REAL t0 = 4 * d0 - 5 * d2 + d4, t5 = 4 * d1 - 5 * d3 + d5;
    const REAL a = d4 - 4 * d2, b = d3 - 4 * d1, c = d4 - d2, e = 2 * (d3 - d1);
    d0 = t0, d1 = a + b, d2 = a - b, d3 = c + e, d4 = c - e, d5 = t5;
}

// u = G g.
__device__ inline void transform_filter(const REAL (&g)[3], REAL (&u)[6]) {
    const REAL a = (g[0] + g[2]) / -6, b = g[1] / -6, c = g[0] / 24 + g[2] / 6, e = g[1] / 12;
    u[0] = g[0] / 4, u[1] = a + b, u[2] = a - b, u[3] = c + e, u[4] = c - e, u[5] = g[2];
}

// y = A^T m.
__device__ inline void transform_result(const REAL (&m)[6], REAL (&y)[4]) {
    const REAL a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], e = m[3] - m[4];
    y[0] = m[0] + a + c, y[1] = b + 2 * e, y[2] = a + 4 * c, y[3] = b + 8 * e + m[5];
}

// The filter of channels k, n: w[first + q step_q + r step_r + k step_k + n step_n], as in pack.cu; gradients turn it.
extern "C" __global__ void __launch_bounds__(256, 1)
    winograd_filters(Out<REAL> u, In<REAL> w, int K, int Kp, int F, int Fp, int first, int step_q, int step_r,
                     int step_k, int step_n) {
    const int t = global_thread(), k = t / Fp, n = t % Fp;
    if (k >= Kp) return;
    REAL half[3][6];  // (column, row of u): G w
#pragma unroll
    for (int r = 0; r < 3; r++) {
        REAL g[3];
#pragma unroll
        for (int q = 0; q < 3; q++)
            g[q] = k < K && n < F ? w[first + q * step_q + r * step_r + k * step_k + n * step_n] : REAL(0);
        transform_filter(g, half[r]);
    }
#pragma unroll
    for (int i = 0; i < 6; i++) {
        const REAL g[3] = {half[0][i], half[1][i], half[2][i]};
        REAL row[6];
        transform_filter(g, row);
#pragma unroll
        for (int j = 0; j < 6; j++) u[((i * 6 + j) * Kp + k) * Fp + n] = row[j];
    }
}

// v of `tiles` tiles from tile `first_tile` on, (N, down, across) in all.
extern "C" __global__ void __launch_bounds__(256, 1)
    winograd_images(Out<REAL> v, In<REAL> x, int H, int W, int C, int Cp, int top, int left, int down, int across,
                    int first_tile, int tiles, int Tp) {
    const int t = int(blockIdx.x * blockDim.y + threadIdx.y), c = int(blockIdx.y * blockDim.x + threadIdx.x);
    if (t >= tiles || c >= Cp) return;
    const int tile = first_tile + t, n = tile / (down * across);
    const int h = tile / across % down * 4 - top, k = tile % across * 4 - left;
    REAL d[6][6];
#pragma unroll
    for (int i = 0; i < 6; i++)
#pragma unroll
        for (int j = 0; j < 6; j++) {
            const bool in = c < C && h + i >= 0 && h + i < H && k + j >= 0 && k + j < W;
            d[i][j] = in ? x[((n * H + h + i) * W + k + j) * C + c] : REAL(0);
        }
#pragma unroll
    for (int j = 0; j < 6; j++) transform_image(d[0][j], d[1][j], d[2][j], d[3][j], d[4][j], d[5][j]);
#pragma unroll
    for (int i = 0; i < 6; i++) {
        transform_image(d[i][0], d[i][1], d[i][2], d[i][3], d[i][4], d[i][5]);
#pragma unroll
        for (int j = 0; j < 6; j++) v[((i * 6 + j) * Tp + t) * Cp + c] = d[i][j];
    }
}

// m = v u for each of the 36; everything is padded to whole blocks.
extern "C" __global__ void __launch_bounds__(256, 2)
    winograd_multiply(Out<REAL> m, In<REAL> v, In<REAL> u, int Tp, int Cp, int Op) {
    __shared__ __align__(16) REAL as[2][BM * PITCH], bs[2][BK * BN];
    const int t0 = int(blockIdx.x) * BM, o0 = int(blockIdx.y) * BN, e = int(blockIdx.z), chunks = Cp / BK;
    In<REAL> tiles = v + (e * Tp + t0) * Cp, filters = u + (e * Cp * Op + o0);
    auto fetch = [&](int q) {
        if (q < chunks) {
            copy_matrix<REAL, BM, BK, PITCH>(as[q % 2], tiles + q * BK, Cp);
            copy_matrix<REAL, BK, BN, BN>(bs[q % 2], filters + q * BK * Op, Op);
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
        tile.multiply_rows<BK, PITCH>(as[q % 2], bs[q % 2]);
    }
#pragma unroll
    for (int i = 0; i < tile.TM; i++)
#pragma unroll
        for (int j = 0; j < tile.TN / 4; j++)
            store_four(m + ((e * Tp + t0 + tile.row(i)) * Op + o0 + tile.column(4 * j)), tile.group(i, j));
}

extern "C" __global__ void __launch_bounds__(256, 1)
    winograd_results(Out<REAL> y, In<REAL> m, In<REAL> b, int OH, int OW, int O, int Op, int down, int across,
                     int first_tile, int tiles, int Tp, int activation) {
    const int t = int(blockIdx.x * blockDim.y + threadIdx.y), o = int(blockIdx.y * blockDim.x + threadIdx.x);
    if (t >= tiles || o >= O) return;
    const int tile = first_tile + t, n = tile / (down * across);
    const int i0 = tile / across % down * 4, j0 = tile % across * 4;
    REAL half[6][4];  // (column, row of y): A^T m
#pragma unroll
    for (int j = 0; j < 6; j++) {
        REAL column[6];
#pragma unroll
        for (int i = 0; i < 6; i++) column[i] = m[((i * 6 + j) * Tp + t) * Op + o];
        transform_result(column, half[j]);
    }
    const REAL bias = b ? b[o] : REAL(0);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const REAL row[6] = {half[0][i], half[1][i], half[2][i], half[3][i], half[4][i], half[5][i]};
        REAL out[4];
        transform_result(row, out);
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (i0 + i < OH && j0 + j < OW)
                y[((n * OH + i0 + i) * OW + j0 + j) * O + o] = activate(out[j] + bias, activation);
    }
}
