// Pooling over windows, and the gather by index that is un-pooling's adjoint.
//
// Math     max: y = maximum of a window, indices = h W + w of the first one; mean: sum / (KH KW), zeros outside
// Layout   x (N, H, W, C), y and indices (N, OH, OW, C), channels contiguous
// Threads  maps.cuh: threadIdx.x channels, threadIdx.y columns, blockIdx.y rows of the output
// Memory   output once; input once from DRAM where windows do not overlap, its repeats from L1
// Limit    DRAM bandwidth: for 2x2 in float, 16 bytes read and 8 written for each output
// Step     16 bytes of channels a thread; windows of 2x2 and 3x3 are loaded whole before they are compared
// Needs    nothing
#include "maps.cuh"

// The first of equals stays; a NaN replaces any number, and nothing replaces it.
template <int V>
__device__ void compare(Group<V>& best, int (&where)[V], const Group<V>& g, int index) {
#pragma unroll
    for (int e = 0; e < V; e++) {
        const REAL a = g.e[e], b = best.e[e];
        if (where[e] < 0 || a > b || (a != a && b == b)) {
            best.e[e] = a;
            where[e] = index;
        }
    }
}

// K: the window's height and width where they are known to the compiler, so that all its loads are on their way before
// the first comparison; 0 where they are not.
template <int V, int K>
__device__ void max_pool_body(Out<REAL> y, Out<int> indices, In<REAL> x, int N, int OH, int OW, int C, int H, int W,
                              int KH, int KW, int sh, int sw, int ph, int pw) {
    each_position<V>(N, OH, OW, C, [=](int n, int i, int j, int c, int k) {
        const int h0 = i * sh - ph, w0 = j * sw - pw;
        In<REAL> plane = x + (n * H * W * C + c);
        Group<V> best = filled<V>(0);
        int where[V];
#pragma unroll
        for (int e = 0; e < V; e++) where[e] = -1;
        if constexpr (K > 0) {
            Group<V> g[K][K];
#pragma unroll
            for (int u = 0; u < K * K; u++) {
                const int h = h0 + u / K, w = w0 + u % K;
                if (h >= 0 && h < H && w >= 0 && w < W) g[u / K][u % K] = load_group<V>(plane + (h * W + w) * C);
            }
#pragma unroll
            for (int u = 0; u < K * K; u++) {
                const int h = h0 + u / K, w = w0 + u % K;
                if (h >= 0 && h < H && w >= 0 && w < W) compare(best, where, g[u / K][u % K], h * W + w);
            }
        } else {
            for (int h = max(h0, 0); h < min(h0 + KH, H); h++)
                for (int w = max(w0, 0); w < min(w0 + KW, W); w++)
                    compare(best, where, load_group<V>(plane + (h * W + w) * C), h * W + w);
        }
        store_group<V>(y + k, best);
        store_ints<V>(indices + k, where);
    });
}

template <int K>
__device__ void max_pool(Out<REAL> y, Out<int> indices, In<REAL> x, int N, int OH, int OW, int C, int H, int W, int KH,
                         int KW, int sh, int sw, int ph, int pw, int wide) {
    if (wide) max_pool_body<VECTOR, K>(y, indices, x, N, OH, OW, C, H, W, KH, KW, sh, sw, ph, pw);
    else max_pool_body<1, K>(y, indices, x, N, OH, OW, C, H, W, KH, KW, sh, sw, ph, pw);
}

extern "C" __global__ void __launch_bounds__(256)
    max_pool2d(Out<REAL> y, Out<int> indices, In<REAL> x, int N, int OH, int OW, int C, int H, int W, int KH, int KW,
               int sh, int sw, int ph, int pw, int wide) {
    if (KH == 2 && KW == 2) max_pool<2>(y, indices, x, N, OH, OW, C, H, W, KH, KW, sh, sw, ph, pw, wide);
    else if (KH == 3 && KW == 3) max_pool<3>(y, indices, x, N, OH, OW, C, H, W, KH, KW, sh, sw, ph, pw, wide);
    else max_pool<0>(y, indices, x, N, OH, OW, C, H, W, KH, KW, sh, sw, ph, pw, wide);
}

template <int V>
__device__ void avg_pool_body(Out<REAL> y, In<REAL> x, int N, int OH, int OW, int C, int H, int W, int KH, int KW,
                              int sh, int sw, int ph, int pw) {
    const REAL factor = REAL(1) / REAL(KH * KW);
    each_position<V>(N, OH, OW, C, [=](int n, int i, int j, int c, int k) {
        const int h0 = i * sh - ph, w0 = j * sw - pw;
        Group<V> sum = filled<V>(0);
        for (int h = max(h0, 0); h < min(h0 + KH, H); h++)
            for (int w = max(w0, 0); w < min(w0 + KW, W); w++) {
                const Group<V> g = load_group<V>(x + (((n * H + h) * W + w) * C + c));
#pragma unroll
                for (int e = 0; e < V; e++) sum.e[e] += g.e[e];
            }
#pragma unroll
        for (int e = 0; e < V; e++) sum.e[e] *= factor;
        store_group<V>(y + k, sum);
    });
}

extern "C" __global__ void avg_pool2d(Out<REAL> y, In<REAL> x, int N, int OH, int OW, int C, int H, int W, int KH,
                                      int KW, int sh, int sw, int ph, int pw, int wide) {
    if (wide) avg_pool_body<VECTOR>(y, x, N, OH, OW, C, H, W, KH, KW, sh, sw, ph, pw);
    else avg_pool_body<1>(y, x, N, OH, OW, C, H, W, KH, KW, sh, sw, ph, pw);
}

// The windows that hold h: i sh - ph <= h < i sh - ph + KH.
__device__ inline int first_window(int h, int kernel, int stride, int pad) {
    return max(0, ceil_div(max(0, h + pad - kernel + 1), stride));
}
__device__ inline int last_window(int h, int stride, int pad, int windows) {
    return min(windows - 1, (h + pad) / stride);
}

template <int V>
__device__ void avg_pool_grad_body(Out<REAL> dx, In<REAL> dy, int N, int H, int W, int C, int OH, int OW, int KH,
                                   int KW, int sh, int sw, int ph, int pw) {
    const REAL factor = REAL(1) / REAL(KH * KW);
    each_position<V>(N, H, W, C, [=](int n, int h, int w, int c, int k) {
        Group<V> sum = filled<V>(0);
        for (int i = first_window(h, KH, sh, ph); i <= last_window(h, sh, ph, OH); i++)
            for (int j = first_window(w, KW, sw, pw); j <= last_window(w, sw, pw, OW); j++) {
                const Group<V> g = load_group<V>(dy + (((n * OH + i) * OW + j) * C + c));
#pragma unroll
                for (int e = 0; e < V; e++) sum.e[e] += g.e[e];
            }
#pragma unroll
        for (int e = 0; e < V; e++) sum.e[e] *= factor;
        store_group<V>(dx + k, sum);
    });
}

extern "C" __global__ void avg_pool2d_grad(Out<REAL> dx, In<REAL> dy, int N, int H, int W, int C, int OH, int OW,
                                           int KH, int KW, int sh, int sw, int ph, int pw, int wide) {
    if (wide) avg_pool_grad_body<VECTOR>(dx, dy, N, H, W, C, OH, OW, KH, KW, sh, sw, ph, pw);
    else avg_pool_grad_body<1>(dx, dy, N, H, W, C, OH, OW, KH, KW, sh, sw, ph, pw);
}

// out[n,i,j,c] = plane[n, indices[n,i,j,c], c], 0 where an index points outside, as scatter.cu drops it. Neighbouring
// channels read neighbouring pixels at most, so most of a fetched sector is used.
extern "C" __global__ void gather_by_index(Out<REAL> out, In<REAL> plane, In<int> indices, int N, int OH, int OW, int C,
                                           int pixels) {
    each_position<1>(N, OH, OW, C, [=](int n, int, int, int c, int k) {
        const int index = indices[k];
        out[k] = index >= 0 && index < pixels ? plane[(n * pixels + index) * C + c] : REAL(0);
    });
}

// dx[n,i,j,c] = factor dy[n,0,0,c].
template <int V>
__device__ void spread_body(Out<REAL> dx, In<REAL> dy, int N, int H, int W, int C, REAL factor) {
    each_position<V>(N, H, W, C, [=](int n, int, int, int c, int k) {
        Group<V> g = load_group<V>(dy + (n * C + c));
#pragma unroll
        for (int e = 0; e < V; e++) g.e[e] *= factor;
        store_group<V>(dx + k, g);
    });
}

extern "C" __global__ void global_avg_pool_grad(Out<REAL> dx, In<REAL> dy, int N, int H, int W, int C, REAL factor,
                                                int wide) {
    if (wide) spread_body<VECTOR>(dx, dy, N, H, W, C, factor);
    else spread_body<1>(dx, dy, N, H, W, C, factor);
}
