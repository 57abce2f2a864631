// One element in, one element out.
//
// Math     y[k] = f(x[k]) or f(a[k], b[k]); the formulas stand in minunet/contract/pointwise.py
// Layout   any shape, contiguous: n elements; prelu: (pixels, channels), slope (channels); gate: maps
// Threads  flat: thread t takes the groups of 16 bytes t, t + T, t + 2T ..., T = threads of the grid; prelu:
//          pixels.cuh; gate: maps.cuh
// Memory   each array once: n sizeof(REAL) bytes for each input and output; registers for 4 groups of each input
// Limit    DRAM bandwidth: at most 20 operations for 8 bytes
// Step     four 16-byte loads are issued before the first is used (vector.cuh)
// Needs    nothing; where an array does not start at a multiple of 16 bytes, all of it goes element by element
#include "maps.cuh"
#include "reduce.cuh"

extern "C" __global__ void relu(Out<REAL> y, In<REAL> x, int n, int vectors) {
    map(y, x, n, vectors, [](int, REAL a) { return positive(a); });
}

extern "C" __global__ void relu_grad(Out<REAL> dx, In<REAL> dy, In<REAL> y, int n, int vectors) {
    map(dx, dy, y, n, vectors, [](int, REAL d, REAL a) { return a > 0 ? d : REAL(0); });
}

extern "C" __global__ void leaky_relu(Out<REAL> y, In<REAL> x, int n, int vectors, REAL slope) {
    map(y, x, n, vectors, [=](int, REAL a) { return a > 0 ? a : slope * a; });
}

extern "C" __global__ void leaky_relu_grad(Out<REAL> dx, In<REAL> dy, In<REAL> x, int n, int vectors, REAL slope) {
    map(dx, dy, x, n, vectors, [=](int, REAL d, REAL a) { return a > 0 ? d : slope * d; });
}

extern "C" __global__ void elu(Out<REAL> y, In<REAL> x, int n, int vectors, REAL alpha) {
    map(y, x, n, vectors, [=](int, REAL a) { return a > 0 ? a : alpha * expm1(a); });
}

extern "C" __global__ void elu_grad(Out<REAL> dx, In<REAL> dy, In<REAL> y, int n, int vectors, REAL alpha) {
    map(dx, dy, y, n, vectors, [=](int, REAL d, REAL a) { return a > 0 ? d : d * (a + alpha); });
}

// exp of a number that is not positive cannot overflow.
extern "C" __global__ void sigmoid(Out<REAL> y, In<REAL> x, int n, int vectors) {
    map(y, x, n, vectors, [](int, REAL a) {
        const REAL e = exp(a > 0 ? -a : a);
        return (a > 0 ? REAL(1) : e) / (1 + e);
    });
}

extern "C" __global__ void sigmoid_grad(Out<REAL> dx, In<REAL> dy, In<REAL> y, int n, int vectors) {
    map(dx, dy, y, n, vectors, [](int, REAL d, REAL a) { return d * a * (1 - a); });
}

extern "C" __global__ void tanh_forward(Out<REAL> y, In<REAL> x, int n, int vectors) {
    map(y, x, n, vectors, [](int, REAL a) { return tanh(a); });
}

extern "C" __global__ void tanh_grad(Out<REAL> dx, In<REAL> dy, In<REAL> y, int n, int vectors) {
    map(dx, dy, y, n, vectors, [](int, REAL d, REAL a) { return d * (1 - a * a); });
}

extern "C" __global__ void add(Out<REAL> y, In<REAL> a, In<REAL> b, int n, int vectors, REAL alpha, REAL beta) {
    map(y, a, b, n, vectors, [=](int, REAL p, REAL q) { return alpha * p + beta * q; });
}

extern "C" __global__ void scale(Out<REAL> y, In<REAL> x, int n, int vectors, REAL factor) {
    map(y, x, n, vectors, [=](int, REAL a) { return factor * a; });
}

// threshold = ceil(rate 2^24): u(seed, k) >= rate where the 24 random bits of element k are at least that. The random
// number is a function of (seed, k), so every device, and the backward pass, has the same mask.
extern "C" __global__ void dropout(Out<REAL> y, In<REAL> x, int n, int vectors, u64 seed, int threshold, REAL keep) {
    map(y, x, n, vectors, [=](int k, REAL a) {
        u64 z = seed + (u64(k) + 1) * 0x9E3779B97F4A7C15ull;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ z >> 27) * 0x94D049BB133111EBull;
        z ^= z >> 31;
        return int(z >> 40) >= threshold ? a / keep : REAL(0);
    });
}

template <int V>
__device__ void prelu_body(Out<REAL> y, In<REAL> x, In<REAL> slope, int pixels, int channels) {
    const int c = first_channel<V>();
    if (c >= channels) return;
    const Group<V> s = load_group<V>(slope + c);
    each_pixel<V>(x, pixels, channels, c, [=](int k, Group<V> g) {
#pragma unroll
        for (int e = 0; e < V; e++) g.e[e] = g.e[e] > 0 ? g.e[e] : s.e[e] * g.e[e];
        store_group<V>(y + k, g);
    });
}

extern "C" __global__ void prelu(Out<REAL> y, In<REAL> x, In<REAL> slope, int pixels, int channels, int wide) {
    if (wide) prelu_body<VECTOR>(y, x, slope, pixels, channels);
    else prelu_body<1>(y, x, slope, pixels, channels);
}

// dx, and for each block of pixels its part of dslope: partial[blockIdx.y, c] (channel_sum_finish adds the parts).
template <int V>
__device__ void prelu_grad_body(Out<REAL> dx, Out<REAL> partial, In<REAL> dy, In<REAL> x, In<REAL> slope, int pixels,
                                int channels, REAL* scratch) {
    const int c = first_channel<V>();
    Group<V> sum = {};
    if (c < channels) {
        const Group<V> s = load_group<V>(slope + c);
        each_pixel<V>(dy, x, pixels, channels, c, [&](int k, Group<V> d, const Group<V>& g) {
#pragma unroll
            for (int e = 0; e < V; e++) {
                const bool on = g.e[e] > 0;
                sum.e[e] += on ? REAL(0) : g.e[e] * d.e[e];
                d.e[e] = on ? d.e[e] : s.e[e] * d.e[e];
            }
            store_group<V>(dx + k, d);
        });
    }
#pragma unroll
    for (int e = 0; e < V; e++) {
        const REAL total = column_sum(sum.e[e], scratch);
        if (threadIdx.y == 0 && c < channels) partial[int(blockIdx.y) * channels + c + e] = total;
    }
}

extern "C" __global__ void prelu_grad(Out<REAL> dx, Out<REAL> partial, In<REAL> dy, In<REAL> x, In<REAL> slope,
                                      int pixels, int channels, int wide) {
    __shared__ REAL scratch[256];
    if (wide) prelu_grad_body<VECTOR>(dx, partial, dy, x, slope, pixels, channels, scratch);
    else prelu_grad_body<1>(dx, partial, dy, x, slope, pixels, channels, scratch);
}

// y[n,i,j,c] = x[n,i,j,c] g[n,c]
template <int V>
__device__ void gate_body(Out<REAL> y, In<REAL> x, In<REAL> g, int N, int H, int W, int C) {
    each_position<V>(N, H, W, C, [=](int n, int, int, int c, int k) {
        Group<V> a = load_group<V>(x + k);
        const Group<V> b = load_group<V>(g + (n * C + c));
#pragma unroll
        for (int e = 0; e < V; e++) a.e[e] *= b.e[e];
        store_group<V>(y + k, a);
    });
}

extern "C" __global__ void gate(Out<REAL> y, In<REAL> x, In<REAL> g, int N, int H, int W, int C, int wide) {
    if (wide) gate_body<VECTOR>(y, x, g, N, H, W, C);
    else gate_body<1>(y, x, g, N, H, W, C);
}
