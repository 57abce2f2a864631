// Arrays seen as maps (N, H, W, C): a loop over the output that needs no division for an element.
//
//   row n OH + i    blockIdx.y, then every gridDim.y rows
//   column j        blockIdx.x blockDim.y + threadIdx.y
//   channel c       V threadIdx.x, then every V blockDim.x
//
// Launched by `maps` in minunet/backends/cuda/maps.py.
#pragma once
#include "pixels.cuh"

// f(n, i, j, c, k) for the thread's groups of V channels of an output (N, OH, OW, OC); k is the group's place in it.
template <int V, class F>
__device__ void each_position(int N, int OH, int OW, int OC, F f) {
    const int j = int(blockIdx.x * blockDim.y + threadIdx.y);
    if (j >= OW) return;
    for (int row = int(blockIdx.y); row < N * OH; row += int(gridDim.y)) {
        const int n = row / OH, i = row - n * OH;
        for (int c = int(threadIdx.x) * V; c < OC; c += int(blockDim.x) * V) f(n, i, j, c, (row * OW + j) * OC + c);
    }
}

template <int V>
__device__ inline Group<V> filled(REAL a) {
    Group<V> g;
#pragma unroll
    for (int e = 0; e < V; e++) g.e[e] = a;
    return g;
}

// V numbers of an array of int, beside a group of channels.
template <int V>
__device__ inline void store_ints(Out<int> p, const int (&a)[V]) {
    if constexpr (V == 1) {
        *p = a[0];
    } else {
        struct alignas(4 * V) Ints {
            int e[V];
        } v;
#pragma unroll
        for (int e = 0; e < V; e++) v.e[e] = a[e];
#ifdef __CUDACC__
        *reinterpret_cast<Ints*>(p) = v;
#else
        memcpy(p.aligned(V, 4 * V), &v, 4 * V);
#endif
    }
}
