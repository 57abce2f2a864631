// Putting maps together, around and apart: all of it is reading a window of one array into a window of another.
//
// Math     y[n,i,j,c] = x[n, i + di, j + dj, c + dc] where that lies in x, else a value
// Layout   x (N, H, W, C), y (N, OH, OW, OC), channels contiguous
// Threads  maps.cuh: threadIdx.x channels, threadIdx.y columns, blockIdx.y rows of y
// Memory   each element of y written once, each of x read once; nothing in shared memory
// Limit    DRAM bandwidth
// Step     16 bytes of channels a thread where all channel counts and offsets allow it (`wide`)
// Needs    nothing
#include "maps.cuh"

template <int V>
__device__ void window_body(Out<REAL> y, In<REAL> x, int N, int OH, int OW, int OC, int H, int W, int C, int di, int dj,
                            int dc, REAL value) {
    each_position<V>(N, OH, OW, OC, [=](int n, int i, int j, int c, int k) {
        const int h = i + di, w = j + dj, s = c + dc;
        const bool inside = h >= 0 && h < H && w >= 0 && w < W && s >= 0 && s < C;
        store_group<V>(y + k, inside ? load_group<V>(x + (((n * H + h) * W + w) * C + s)) : filled<V>(value));
    });
}

// Crop (all of y lies in x), embed and pad (x lies in y).
extern "C" __global__ void window(Out<REAL> y, In<REAL> x, int N, int OH, int OW, int OC, int H, int W, int C, int di,
                                  int dj, int dc, REAL value, int wide) {
    if (wide) window_body<VECTOR>(y, x, N, OH, OW, OC, H, W, C, di, dj, dc, value);
    else window_body<1>(y, x, N, OH, OW, OC, H, W, C, di, dj, dc, value);
}

template <int V>
__device__ void crop_concat_body(Out<REAL> y, In<REAL> x, In<REAL> skip, int N, int H, int W, int C, int HS, int WS,
                                 int CS) {
    const int top = (HS - H) / 2, left = (WS - W) / 2;
    each_position<V>(N, H, W, C + CS, [=](int n, int i, int j, int c, int k) {
        const Group<V> g = c < C ? load_group<V>(x + (((n * H + i) * W + j) * C + c))
                                 : load_group<V>(skip + (((n * HS + i + top) * WS + j + left) * CS + c - C));
        store_group<V>(y + k, g);
    });
}

// y = [x, centre of skip] along channels.
extern "C" __global__ void crop_concat(Out<REAL> y, In<REAL> x, In<REAL> skip, int N, int H, int W, int C, int HS,
                                       int WS, int CS, int wide) {
    if (wide) crop_concat_body<VECTOR>(y, x, skip, N, H, W, C, HS, WS, CS);
    else crop_concat_body<1>(y, x, skip, N, H, W, C, HS, WS, CS);
}

// The source of position i of a padded axis: size 4, before 2, after 1 gives 2 1 0 1 2 3 2.
__device__ inline int mirrored(int i, int before, int size) {
    const int k = abs(i - before);
    return k < size ? k : 2 * (size - 1) - k;
}

template <int V>
__device__ void pad_reflect_body(Out<REAL> y, In<REAL> x, int N, int OH, int OW, int C, int H, int W, int top,
                                 int left) {
    each_position<V>(N, OH, OW, C, [=](int n, int i, int j, int c, int k) {
        const int h = mirrored(i, top, H), w = mirrored(j, left, W);
        store_group<V>(y + k, load_group<V>(x + (((n * H + h) * W + w) * C + c)));
    });
}

extern "C" __global__ void pad_reflect(Out<REAL> y, In<REAL> x, int N, int OH, int OW, int C, int H, int W, int top,
                                       int left, int wide) {
    if (wide) pad_reflect_body<VECTOR>(y, x, N, OH, OW, C, H, W, top, left);
    else pad_reflect_body<1>(y, x, N, OH, OW, C, H, W, top, left);
}

// The up to three positions of the padded axis that show source h: itself and its images in the two mirrors. -1: none.
__device__ inline int image(int which, int h, int before, int size, int padded) {
    const int i = which == 0 ? before + h : which == 1 ? before - h : before + 2 * (size - 1) - h;
    const bool second = which != 0 && (which == 1 ? h == 0 : h == size - 1);  // the edge itself is not mirrored
    return i < 0 || i >= padded || second ? -1 : i;
}

template <int V>
__device__ void pad_reflect_grad_body(Out<REAL> dx, In<REAL> dy, int N, int H, int W, int C, int OH, int OW, int top,
                                      int left) {
    each_position<V>(N, H, W, C, [=](int n, int h, int w, int c, int k) {
        Group<V> sum = filled<V>(0);
        for (int a = 0; a < 3; a++) {
            const int i = image(a, h, top, H, OH);
            if (i < 0) continue;
            for (int b = 0; b < 3; b++) {
                const int j = image(b, w, left, W, OW);
                if (j < 0) continue;
                const Group<V> g = load_group<V>(dy + (((n * OH + i) * OW + j) * C + c));
#pragma unroll
                for (int e = 0; e < V; e++) sum.e[e] += g.e[e];
            }
        }
        store_group<V>(dx + k, sum);
    });
}

extern "C" __global__ void pad_reflect_grad(Out<REAL> dx, In<REAL> dy, int N, int H, int W, int C, int OH, int OW,
                                            int top, int left, int wide) {
    if (wide) pad_reflect_grad_body<VECTOR>(dx, dy, N, H, W, C, OH, OW, top, left);
    else pad_reflect_grad_body<1>(dx, dy, N, H, W, C, OH, OW, top, left);
}
