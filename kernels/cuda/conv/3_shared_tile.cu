// Convolution with a tile of the image, and its halo, in shared memory.
//
// Math     y[n,i,j,o] = act(b[o] + sum_{u,v,c} x[n, i sh + u dh - top, j sw + v dw - left, c] w[u,v,c,o])
// Layout   x (N, H, W, C), w packed (KH, KW, C, O), y (N, YH, YW, O), the last axis contiguous; see geometry.cuh
// Threads  one output element each; a block: TILE x TILE pixels (threadIdx.y, blockIdx.x) of 32 channels (threadIdx.x,
//          blockIdx.y)
// Memory   a block reads SIDE x SIDE pixels of x once, SIDE = (TILE - 1) stride + (KH - 1) dilation + 1, instead of
//          TILE x TILE KH KW times: 36 pixels instead of 144 for 3x3. Shared: SIDE x SIDE x SLICE numbers
// Limit    shared-memory loads: one load of x (the same for a whole warp) and one of w for each multiply-add
// Step     each pixel is fetched once for all taps; w stays where it was, in L1. grad_w: tiles of dy and x that
//          16 x 16 results share, so each number fetched serves 16 threads
// Needs    the halo of SLICE channels fits into 48 KB of shared memory; the chooser goes back to step 2 otherwise
#include "conv/geometry.cuh"

constexpr int TILE = 4;    // 16 pixels x 32 channels = 512 threads
constexpr int SLICE = 16;  // channels at a time: 64 bytes of a pixel are two whole sectors
static_assert(TILE * TILE * 32 <= 1024, "a block has at most 1024 threads");

extern "C" __global__ void __launch_bounds__(512, 2)
    conv2d(Out<REAL> y, In<REAL> x, In<REAL> w, In<REAL> b, int N, int H, int W, int C, int O, int KH, int KW, int OH,
           int OW, int sh, int sw, int top, int left, int dh, int dw, int YH, int YW, int si, int sj, int i0, int j0,
           int activation) {
    DYNAMIC_SHARED(REAL, tile);  // (rows, columns, SLICE) of x
    const int across = ceil_div(OW, TILE), down = ceil_div(OH, TILE), block = int(blockIdx.x);
    const int n = block / (down * across), top_i = block / across % down * TILE, left_j = block % across * TILE;
    const int o = int(blockIdx.y) * 32 + int(threadIdx.x), thread = int(threadIdx.y) * 32 + int(threadIdx.x);
    const int di = int(threadIdx.y) / TILE, dj = int(threadIdx.y) % TILE;
    const int rows = (TILE - 1) * sh + (KH - 1) * dh + 1, columns = (TILE - 1) * sw + (KW - 1) * dw + 1;
    const int slices = KH && KW ? ceil_div(C, SLICE) : 0;  // a phase of a strided gradient may have no tap
    REAL sum = 0;
    for (int slice = 0; slice < slices; slice++) {
        const int c0 = slice * SLICE;
        for (int t = thread; t < rows * columns * SLICE; t += 512) {
            const int h = top_i * sh - top + t / (columns * SLICE), k = left_j * sw - left + t / SLICE % columns;
            const int c = c0 + t % SLICE;
            const bool in = h >= 0 && h < H && k >= 0 && k < W && c < C;
            tile[t] = in ? x[((n * H + h) * W + k) * C + c] : REAL(0);
        }
        __syncthreads();
        if (o < O)
            for (int u = 0; u < KH; u++)
                for (int v = 0; v < KW; v++) {
                    const REAL* xp = tile + ((di * sh + u * dh) * columns + dj * sw + v * dw) * SLICE;
                    In<REAL> wp = w + ((u * KW + v) * C + c0) * O + o;  // w[u, v, c0:, o]
                    for (int c = 0; c < min(SLICE, C - c0); c++) sum += xp[c] * wp[c * O];
                }
        __syncthreads();
    }
    const int i = top_i + di, j = left_j + dj;
    if (o < O && i < OH && j < OW) {
        const int pixel = (n * YH + i * si + i0) * YW + j * sj + j0;
        y[pixel * O + o] = activate(b ? sum + b[o] : sum, activation);
    }
}

// partial[split, o, u, v, c]: threadIdx.x and blockIdx.x the channel c and the tap, threadIdx.y and blockIdx.y the
// channel o, blockIdx.z the split of `pixels` pixels.
extern "C" __global__ void __launch_bounds__(256)
    conv2d_grad_w_partial(Out<REAL> partial, In<REAL> x, In<REAL> dy, int N, int H, int W, int C, int O, int KH, int KW,
                          int OH, int OW, int sh, int sw, int top, int left, int dh, int dw, int pixels) {
    __shared__ REAL xs[16][17], dys[16][17];  // (pixel, channel); 17: rows start in different banks
    const int tx = int(threadIdx.x), ty = int(threadIdx.y), split = int(blockIdx.z);
    const int blocks = ceil_div(C, 16), tap = int(blockIdx.x) / blocks, u = tap / KW, v = tap % KW;
    const int c = int(blockIdx.x) % blocks * 16 + tx, o0 = int(blockIdx.y) * 16;
    const int end = min((split + 1) * pixels, N * OH * OW);
    REAL sum = 0;
    for (int p0 = split * pixels; p0 < end; p0 += 16) {
        const int p = p0 + ty;  // the pixel that this thread loads
        Source s;
        s.start(p, OH, OW, sh, sw, top, left);
        const bool in = p < end && s.in(u * dh, v * dw, H, W);
        xs[ty][tx] = in && c < C ? x[s.pixel(u * dh, v * dw, H, W) * C + c] : REAL(0);
        dys[ty][tx] = p < end && o0 + tx < O ? dy[p * O + o0 + tx] : REAL(0);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < 16; k++) sum += dys[k][ty] * xs[k][tx];
        __syncthreads();
    }
    if (c < C && o0 + ty < O) partial[((split * O + o0 + ty) * KH * KW + tap) * C + c] = sum;
}
