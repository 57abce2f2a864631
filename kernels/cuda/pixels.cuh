// Arrays seen as (pixels, channels). A thread keeps V neighbouring channels and walks over pixels, so that what belongs
// to a channel (a slope, a mean) is loaded once, and no element costs a division.
//
//   c = V (blockIdx.x blockDim.x + threadIdx.x)          first channel of the thread; idle where c >= channels
//   p = blockIdx.y blockDim.y + threadIdx.y, then every gridDim.y blockDim.y pixels
//
// With V = VECTOR a warp reads 512 bytes in a row; with few channels blockDim.x is small and blockDim.y large, and the
// warp still reads neighbouring bytes. Launched by `columns` in minunet/backends/cuda/columns.py.
#pragma once
#include "vector.cuh"

template <int V>
struct Group {  // V channels of one pixel
    REAL e[V];
};

template <int V>
__device__ inline Group<V> load_group(In<REAL> p) {
    Group<V> g;
    if constexpr (V == 1) {
        g.e[0] = *p;
    } else {
        const Vector v = load_vector(p);
#pragma unroll
        for (int e = 0; e < V; e++) g.e[e] = v.e[e];
    }
    return g;
}

template <int V>
__device__ inline void store_group(Out<REAL> p, const Group<V>& g) {
    if constexpr (V == 1) {
        *p = g.e[0];
    } else {
        Vector v;
#pragma unroll
        for (int e = 0; e < V; e++) v.e[e] = g.e[e];
        store_vector(p, v);
    }
}

// The thread's first channel, and whether it has one.
template <int V>
__device__ inline int first_channel() {
    return int(blockIdx.x * blockDim.x + threadIdx.x) * V;
}

// f(k, group) for the thread's pixels, k = p channels + c the group's place in the array. UNROLL loads are on their way
// before the first is used.
template <int V, class F>
__device__ void each_pixel(In<REAL> a, int pixels, int channels, int c, F f) {
    const int first = int(blockIdx.y * blockDim.y + threadIdx.y), step = int(gridDim.y * blockDim.y);
    for (int p = first; p < pixels; p += UNROLL * step) {
        Group<V> g[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            if (p + u * step < pixels) g[u] = load_group<V>(a + (p + u * step) * channels + c);
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            if (p + u * step < pixels) f((p + u * step) * channels + c, g[u]);
    }
}

// f(k, group of a, group of b).
template <int V, class F>
__device__ void each_pixel(In<REAL> a, In<REAL> b, int pixels, int channels, int c, F f) {
    const int first = int(blockIdx.y * blockDim.y + threadIdx.y), step = int(gridDim.y * blockDim.y);
    for (int p = first; p < pixels; p += UNROLL * step) {
        Group<V> g[UNROLL], h[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            if (p + u * step < pixels) {
                g[u] = load_group<V>(a + (p + u * step) * channels + c);
                h[u] = load_group<V>(b + (p + u * step) * channels + c);
            }
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            if (p + u * step < pixels) f((p + u * step) * channels + c, g[u], h[u]);
    }
}
