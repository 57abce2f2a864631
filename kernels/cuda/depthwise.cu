// Convolution of each channel by itself, and its two adjoints.
//
// Math     y[n,i,j,o] = act(b[o] + sum_{u,v} x[n, i sh + u dh - top, j sw + v dw - left, o / m] w[o,u,v]), m = O / C
// Layout   x (N, H, W, C), w (O, KH, KW), y (N, OH, OW, O), channels of x and y contiguous
// Threads  forward, grad_x: maps.cuh, a channel each; grad_w: pixels.cuh over y, blockIdx.z the tap u KW + v
// Memory   x, y once from DRAM, the KH KW repeats from L1; w from L1; grad_w reads x and dy once for each tap
// Limit    L1: KH KW loads for as many multiply-adds; grad_w: L2, KH KW times both arrays
// Step     neighbouring threads on neighbouring channels: every load of a warp is one line
// Needs    nothing
#include "maps.cuh"
#include "reduce.cuh"

extern "C" __global__ void depthwise_conv2d(Out<REAL> y, In<REAL> x, In<REAL> w, In<REAL> b, int N, int H, int W, int C,
                                            int O, int KH, int KW, int OH, int OW, int sh, int sw, int top, int left,
                                            int dh, int dw, int activation) {
    const int m = O / C;
    each_position<1>(N, OH, OW, O, [=](int n, int i, int j, int o, int k) {
        REAL sum = 0;
        for (int u = 0; u < KH; u++) {
            const int h = i * sh + u * dh - top;
            if (h < 0 || h >= H) continue;
            for (int v = 0; v < KW; v++) {
                const int q = j * sw + v * dw - left;
                if (q >= 0 && q < W) sum += x[((n * H + h) * W + q) * C + o / m] * w[(o * KH + u) * KW + v];
            }
        }
        y[k] = activate(b ? sum + b[o] : sum, activation);
    });
}

extern "C" __global__ void depthwise_conv2d_grad_x(Out<REAL> dx, In<REAL> dy, In<REAL> w, int N, int H, int W, int C,
                                                   int O, int KH, int KW, int OH, int OW, int sh, int sw, int top,
                                                   int left, int dh, int dw) {
    const int m = O / C;
    each_position<1>(N, H, W, C, [=](int n, int h, int q, int c, int k) {
        REAL sum = 0;
        for (int u = 0; u < KH; u++) {
            const int i = (h + top - u * dh) / sh;
            if (h + top - u * dh != i * sh || i < 0 || i >= OH) continue;
            for (int v = 0; v < KW; v++) {
                const int j = (q + left - v * dw) / sw;
                if (q + left - v * dw != j * sw || j < 0 || j >= OW) continue;
                for (int o = c * m; o < (c + 1) * m; o++)
                    sum += dy[((n * OH + i) * OW + j) * O + o] * w[(o * KH + u) * KW + v];
            }
        }
        dx[k] = sum;
    });
}

// partial (taps, parts, O): sums over each block's output pixels (channel_sum_finish adds them).
extern "C" __global__ void depthwise_conv2d_grad_w_partial(Out<REAL> partial, In<REAL> x, In<REAL> dy, int N, int H,
                                                           int W, int C, int O, int KH, int KW, int OH, int OW, int sh,
                                                           int sw, int top, int left, int dh, int dw) {
    __shared__ REAL scratch[256];
    const int tap = int(blockIdx.z), u = tap / KW, v = tap % KW, o = first_channel<1>(), m = O / C;
    REAL sum = 0;
    if (o < O)
        for (int p = int(blockIdx.y * blockDim.y + threadIdx.y); p < N * OH * OW; p += int(gridDim.y * blockDim.y)) {
            const int n = p / (OH * OW), i = p / OW % OH, j = p % OW;
            const int h = i * sh + u * dh - top, q = j * sw + v * dw - left;
            if (h >= 0 && h < H && q >= 0 && q < W) sum += dy[p * O + o] * x[((n * H + h) * W + q) * C + o / m];
        }
    sum = column_sum(sum, scratch);
    if (threadIdx.y == 0 && o < O) partial[(tap * int(gridDim.y) + int(blockIdx.y)) * O + o] = sum;
}
