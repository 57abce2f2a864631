// Convolution with neighbouring threads on neighbouring channels, which is how NHWC lies in memory.
//
// Math     y[n,i,j,o] = act(b[o] + sum_{u,v,c} x[n, i sh + u dh - top, j sw + v dw - left, c] w[u,v,c,o])
// Layout   x (N, H, W, C), w packed (KH, KW, C, O), y (N, YH, YW, O), the last axis contiguous; see geometry.cuh
// Threads  one output element each: threadIdx.x and blockIdx.y the channel, threadIdx.y and blockIdx.x the pixel
// Memory   a warp's load of w is 32 neighbours, 128 bytes (float), all used; its load of x is one number for all lanes
// Limit    load instructions: still two for one multiply-add, now mostly out of L1
// Step     lanes run over channels instead of pixels: 4 sectors for 32 numbers of w instead of 32, and y is written in
//          whole sectors. Its price is the packed copy of w. grad_w is split over rows of pixels, since its results
//          alone are too few to fill a device: partial sums go to a workspace and are added in fixed order
// Needs    nothing: any sizes, strides, padding, dilation
#include "conv/geometry.cuh"

extern "C" __global__ void conv2d(Out<REAL> y, In<REAL> x, In<REAL> w, In<REAL> b, int N, int H, int W, int C, int O,
                                  int KH, int KW, int OH, int OW, int sh, int sw, int top, int left, int dh, int dw,
                                  int YH, int YW, int si, int sj, int i0, int j0, int activation) {
    const int o = int(blockIdx.y * blockDim.x + threadIdx.x), p = int(blockIdx.x * blockDim.y + threadIdx.y);
    if (o >= O || p >= N * OH * OW) return;
    Source s;
    s.start(p, OH, OW, sh, sw, top, left);
    REAL sum = 0;
    for (int u = 0; u < KH; u++)
        for (int v = 0; v < KW; v++) {
            if (!s.in(u * dh, v * dw, H, W)) continue;
            In<REAL> xp = x + s.pixel(u * dh, v * dw, H, W) * C;  // x[n, h, w, :]
            In<REAL> wp = w + (u * KW + v) * C * O + o;           // w[u, v, :, o]
            for (int c = 0; c < C; c++) sum += xp[c] * wp[c * O];
        }
    y[target(p, OH, OW, YH, YW, si, sj, i0, j0) * O + o] = activate(b ? sum + b[o] : sum, activation);
}

// partial[split, o, u, v, c] = sum of dy[n,i,j,o] x[n, i sh + u dh - top, j sw + v dw - left, c] over the split's rows
// (n, i), of which there are `rows`.
extern "C" __global__ void conv2d_grad_w_partial(Out<REAL> partial, In<REAL> x, In<REAL> dy, int N, int H, int W, int C,
                                                 int O, int KH, int KW, int OH, int OW, int sh, int sw, int top,
                                                 int left, int dh, int dw, int rows) {
    const int t = global_thread(), o = int(blockIdx.y), split = int(blockIdx.z);
    if (t >= KH * KW * C) return;
    const int u = t / (KW * C), v = t / C % KW, c = t % C;
    REAL sum = 0;
    for (int row = split * rows; row < min((split + 1) * rows, N * OH); row++) {
        const int n = row / OH, h = row % OH * sh + u * dh - top;
        if (h < 0 || h >= H) continue;
        for (int j = 0; j < OW; j++) {
            const int k = j * sw + v * dw - left;
            if (k >= 0 && k < W) sum += dy[(row * OW + j) * O + o] * x[((n * H + h) * W + k) * C + c];
        }
    }
    partial[(split * O + o) * KH * KW * C + t] = sum;
}
