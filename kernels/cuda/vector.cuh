// 16 bytes at a time: one load instruction serves four floats, so that a memory-bound kernel needs a quarter of the
// instructions, and four loads in flight per thread hide the latency of DRAM (about 600 clocks).
#pragma once
#include "common.cuh"

constexpr int VECTOR = 16 / int(sizeof(REAL));  // 4 floats or 2 doubles
constexpr int UNROLL = 4;

struct alignas(16) Vector {
    REAL e[VECTOR];
};

// p must be a multiple of 16 bytes; launchers look at the addresses (`aligned` in launch.py).
__device__ inline Vector load_vector(In<REAL> p) {
#ifdef __CUDACC__
    return *reinterpret_cast<const Vector*>(p);
#else
    Vector v;
    memcpy(&v, p.aligned(VECTOR, 16), 16);
    return v;
#endif
}

__device__ inline void store_vector(Out<REAL> p, const Vector& v) {
#ifdef __CUDACC__
    *reinterpret_cast<Vector*>(p) = v;
#else
    memcpy(p.aligned(VECTOR, 16), &v, 16);
#endif
}

// y[k] = f(k, x[k]) for k < n. The first `vectors` groups of VECTOR elements go 16 bytes at a time (0 where an address
// is not aligned), the rest one by one.
template <class F>
__device__ void map(Out<REAL> y, In<REAL> x, int n, int vectors, F f) {
    const int first = global_thread(), step = global_threads();
    for (int v = first; v < vectors; v += UNROLL * step) {
        Vector a[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            if (v + u * step < vectors) a[u] = load_vector(x + (v + u * step) * VECTOR);
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            if (v + u * step < vectors) {
                const int k = (v + u * step) * VECTOR;
#pragma unroll
                for (int e = 0; e < VECTOR; e++) a[u].e[e] = f(k + e, a[u].e[e]);
                store_vector(y + k, a[u]);
            }
    }
    for (int k = vectors * VECTOR + first; k < n; k += step) y[k] = f(k, x[k]);
}

// y[k] = f(k, a[k], b[k]).
template <class F>
__device__ void map(Out<REAL> y, In<REAL> a, In<REAL> b, int n, int vectors, F f) {
    const int first = global_thread(), step = global_threads();
    for (int v = first; v < vectors; v += UNROLL * step) {
        Vector p[UNROLL], q[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            if (v + u * step < vectors) {
                p[u] = load_vector(a + (v + u * step) * VECTOR);
                q[u] = load_vector(b + (v + u * step) * VECTOR);
            }
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            if (v + u * step < vectors) {
                const int k = (v + u * step) * VECTOR;
#pragma unroll
                for (int e = 0; e < VECTOR; e++) p[u].e[e] = f(k + e, p[u].e[e], q[u].e[e]);
                store_vector(y + k, p[u]);
            }
    }
    for (int k = vectors * VECTOR + first; k < n; k += step) y[k] = f(k, a[k], b[k]);
}
