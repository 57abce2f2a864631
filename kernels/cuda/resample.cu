// Up-sampling, nearest and bilinear, and the adjoints, which gather as well: each gradient is a sum over the outputs
// that its pixel reached, in a fixed order.
//
// Math     nearest: y[i,j] = x[i H / OH, j W / OW]; bilinear: y[i,j] = sum of four neighbours of src(i), src(j), each
//          weighted by its nearness; src(i) = i (H-1)/(OH-1) or max((i + 1/2) H/OH - 1/2, 0)
// Layout   x (N, H, W, C), y (N, OH, OW, C), channels contiguous
// Threads  maps.cuh: threadIdx.x channels, threadIdx.y columns, blockIdx.y rows of the output
// Memory   output once; input once from DRAM, its repeats (4 for bilinear) from L1
// Limit    DRAM bandwidth
// Step     src is a fraction of integers: exact, where float would lose 2^-24 of its size as a weight
// Needs    OH H, OW W < 2^30
#include "maps.cuh"

template <int V>
__device__ void add_to(Group<V>& sum, REAL factor, const Group<V>& g) {
#pragma unroll
    for (int e = 0; e < V; e++) sum.e[e] += factor * g.e[e];
}

template <int V>
__device__ void nearest_body(Out<REAL> y, In<REAL> x, int N, int OH, int OW, int C, int H, int W) {
    each_position<V>(N, OH, OW, C, [=](int n, int i, int j, int c, int k) {
        store_group<V>(y + k, load_group<V>(x + (((n * H + i * H / OH) * W + j * W / OW) * C + c)));
    });
}

extern "C" __global__ void upsample_nearest(Out<REAL> y, In<REAL> x, int N, int OH, int OW, int C, int H, int W,
                                            int wide) {
    if (wide) nearest_body<VECTOR>(y, x, N, OH, OW, C, H, W);
    else nearest_body<1>(y, x, N, OH, OW, C, H, W);
}

// Output rows i with i H / OH = h: from ceil(h OH / H) up to, not including, ceil((h + 1) OH / H).
template <int V>
__device__ void nearest_grad_body(Out<REAL> dx, In<REAL> dy, int N, int H, int W, int C, int OH, int OW) {
    each_position<V>(N, H, W, C, [=](int n, int h, int w, int c, int k) {
        Group<V> sum = filled<V>(0);
        for (int i = ceil_div(h * OH, H); i < ceil_div((h + 1) * OH, H); i++)
            for (int j = ceil_div(w * OW, W); j < ceil_div((w + 1) * OW, W); j++)
                add_to(sum, 1, load_group<V>(dy + (((n * OH + i) * OW + j) * C + c)));
        store_group<V>(dx + k, sum);
    });
}

extern "C" __global__ void upsample_nearest_grad(Out<REAL> dx, In<REAL> dy, int N, int H, int W, int C, int OH, int OW,
                                                 int wide) {
    if (wide) nearest_grad_body<VECTOR>(dx, dy, N, H, W, C, OH, OW);
    else nearest_grad_body<1>(dx, dy, N, H, W, C, OH, OW);
}

struct Source {  // src = low + part, the neighbours low and high
    int low, high;
    REAL part;
};

// src(i) = top / bottom, both integers: i (H-1) / (OH-1), or ((2 i + 1) H - OH) / (2 OH).
__device__ inline Source source(int i, int out, int size, int corners) {
    const int top = corners ? i * (size - 1) : max((2 * i + 1) * size - out, 0),
              bottom = corners ? max(out - 1, 1) : 2 * out;
    const int low = top / bottom;
    return {low, min(low + 1, size - 1), REAL(top - low * bottom) / REAL(bottom)};
}

// The share of input h in output i.
__device__ inline REAL weight(const Source& s, int h) {
    return (s.low == h ? 1 - s.part : REAL(0)) + (s.high == h ? s.part : REAL(0));
}

// The first output whose low neighbour is at least h; low never falls as i grows.
__device__ inline int first_output(int h, int out, int size, int corners) {
    int from = 0, to = out;
    while (from < to) {
        const int middle = (from + to) / 2;
        if (source(middle, out, size, corners).low >= h) to = middle;
        else from = middle + 1;
    }
    return from;
}

template <int V>
__device__ void bilinear_body(Out<REAL> y, In<REAL> x, int N, int OH, int OW, int C, int H, int W, int corners) {
    each_position<V>(N, OH, OW, C, [=](int n, int i, int j, int c, int k) {
        const Source a = source(i, OH, H, corners), b = source(j, OW, W, corners);
        In<REAL> low = x + ((n * H + a.low) * W * C + c), high = x + ((n * H + a.high) * W * C + c);
        Group<V> sum = filled<V>(0);
        add_to(sum, (1 - a.part) * (1 - b.part), load_group<V>(low + b.low * C));
        add_to(sum, (1 - a.part) * b.part, load_group<V>(low + b.high * C));
        add_to(sum, a.part * (1 - b.part), load_group<V>(high + b.low * C));
        add_to(sum, a.part * b.part, load_group<V>(high + b.high * C));
        store_group<V>(y + k, sum);
    });
}

extern "C" __global__ void upsample_bilinear(Out<REAL> y, In<REAL> x, int N, int OH, int OW, int C, int H, int W,
                                             int corners, int wide) {
    if (wide) bilinear_body<VECTOR>(y, x, N, OH, OW, C, H, W, corners);
    else bilinear_body<1>(y, x, N, OH, OW, C, H, W, corners);
}

template <int V>
__device__ void bilinear_grad_body(Out<REAL> dx, In<REAL> dy, int N, int H, int W, int C, int OH, int OW, int corners) {
    each_position<V>(N, H, W, C, [=](int n, int h, int w, int c, int k) {
        Group<V> sum = filled<V>(0);
        const int i1 = first_output(h + 1, OH, H, corners), j0 = first_output(w - 1, OW, W, corners);
        const int j1 = first_output(w + 1, OW, W, corners);
        for (int i = first_output(h - 1, OH, H, corners); i < i1; i++) {
            const REAL share = weight(source(i, OH, H, corners), h);
            for (int j = j0; j < j1; j++)
                add_to(sum, share * weight(source(j, OW, W, corners), w),
                       load_group<V>(dy + (((n * OH + i) * OW + j) * C + c)));
        }
        store_group<V>(dx + k, sum);
    });
}

extern "C" __global__ void upsample_bilinear_grad(Out<REAL> dx, In<REAL> dy, int N, int H, int W, int C, int OH, int OW,
                                                  int corners, int wide) {
    if (wide) bilinear_grad_body<VECTOR>(dx, dy, N, H, W, C, OH, OW, corners);
    else bilinear_grad_body<1>(dx, dy, N, H, W, C, OH, OW, corners);
}
