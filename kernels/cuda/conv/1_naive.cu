// Convolution and its two adjoints, as the formulas stand: the step that every other step is measured against.
//
// Math     y[n,i,j,o] = act(b[o] + sum_{u,v,c} x[n, i sh + u dh - top, j sw + v dw - left, c] w[o,u,v,c])
// Layout   x (N, H, W, C), w (O, KH, KW, C), y (N, OH, OW, O), the last axis contiguous
// Threads  one output element each: neighbouring threads on neighbouring pixels, blockIdx.y the channel of the output
// Memory   each element reads KH KW C numbers of x and as many of w; neighbours of a warp read x C numbers apart, so a
//          load of 32 numbers touches 32 sectors of 32 bytes and uses 1/8 of each (float)
// Limit    load instructions: two for one multiply-add, and L1 bandwidth, of which 7/8 is thrown away
// Step     the first: no reuse, no shared memory
// Needs    nothing: any sizes, strides, padding, dilation
#include "common.cuh"

extern "C" __global__ void conv2d(Out<REAL> y, In<REAL> x, In<REAL> w, In<REAL> b, int N, int H, int W, int C, int O,
                                  int KH, int KW, int OH, int OW, int sh, int sw, int top, int left, int dh, int dw,
                                  int activation) {
    const int pixel = global_thread(), o = int(blockIdx.y);
    if (pixel >= N * OH * OW) return;
    const int n = pixel / (OH * OW), i = pixel / OW % OH, j = pixel % OW;
    REAL sum = 0;
    for (int u = 0; u < KH; u++) {
        const int h = i * sh + u * dh - top;
        if (h < 0 || h >= H) continue;
        for (int v = 0; v < KW; v++) {
            const int k = j * sw + v * dw - left;
            if (k < 0 || k >= W) continue;
            In<REAL> xp = x + ((n * H + h) * W + k) * C;    // x[n, h, k, :]
            In<REAL> wp = w + ((o * KH + u) * KW + v) * C;  // w[o, u, v, :]
            for (int c = 0; c < C; c++) sum += xp[c] * wp[c];
        }
    }
    y[pixel * O + o] = activate(b ? sum + b[o] : sum, activation);
}

// dx[n,h,k,c] = act(b[c] + sum of dy[n,i,j,o] w[o,u,v,c] over the outputs (i, j) whose tap (u, v) reads (h, k)):
// i sh = h + top - u dh, where that is a multiple of sh.
extern "C" __global__ void conv2d_grad_x(Out<REAL> dx, In<REAL> dy, In<REAL> w, In<REAL> b, int N, int H, int W, int C,
                                         int O, int KH, int KW, int OH, int OW, int sh, int sw, int top, int left,
                                         int dh, int dw, int activation) {
    const int pixel = global_thread(), c = int(blockIdx.y);
    if (pixel >= N * H * W) return;
    const int n = pixel / (H * W), h = pixel / W % H, k = pixel % W;
    REAL sum = 0;
    for (int u = 0; u < KH; u++) {
        const int i = (h + top - u * dh) / sh;
        if (h + top - u * dh != i * sh || i < 0 || i >= OH) continue;
        for (int v = 0; v < KW; v++) {
            const int j = (k + left - v * dw) / sw;
            if (k + left - v * dw != j * sw || j < 0 || j >= OW) continue;
            In<REAL> dyp = dy + ((n * OH + i) * OW + j) * O;  // dy[n, i, j, :]
            for (int o = 0; o < O; o++) sum += dyp[o] * w[((o * KH + u) * KW + v) * C + c];
        }
    }
    dx[pixel * C + c] = activate(b ? sum + b[c] : sum, activation);
}

// dw[o,u,v,c] = sum_{n,i,j} dy[n,i,j,o] x[n, i sh + u dh - top, j sw + v dw - left, c]: one thread adds all of it, row
// by row, since a row's sum loses less to rounding than one long sum would.
extern "C" __global__ void conv2d_grad_w(Out<REAL> dw_, In<REAL> x, In<REAL> dy, int N, int H, int W, int C, int O,
                                         int KH, int KW, int OH, int OW, int sh, int sw, int top, int left, int dh,
                                         int dw) {
    const int t = global_thread(), o = int(blockIdx.y);
    if (t >= KH * KW * C) return;
    const int u = t / (KW * C), v = t / C % KW, c = t % C;
    REAL sum = 0;
    for (int n = 0; n < N; n++)
        for (int i = 0; i < OH; i++) {
            const int h = i * sh + u * dh - top;
            if (h < 0 || h >= H) continue;
            REAL row = 0;
            for (int j = 0; j < OW; j++) {
                const int k = j * sw + v * dw - left;
                if (k < 0 || k >= W) continue;
                row += dy[((n * OH + i) * OW + j) * O + o] * x[((n * H + h) * W + k) * C + c];
            }
            sum += row;
        }
    dw_[o * KH * KW * C + t] = sum;
}
