// Four numbers at once: one 16-byte access of floats, two of doubles, to global and to shared memory.
#pragma once
#include "common.cuh"

template <class T>
struct alignas(16) Four {
    T e[4];
};

template <class T>
struct alignas(2 * sizeof(T)) Two {
    T e[2];
};

// p must be a multiple of 16 bytes.
__device__ inline Four<REAL> load_four(In<REAL> p) {
#ifdef __CUDACC__
    return *reinterpret_cast<const Four<REAL>*>(p);
#else
    Four<REAL> v;
    memcpy(&v, p.aligned(4, 16), sizeof v);
    return v;
#endif
}

__device__ inline void store_four(Out<REAL> p, const Four<REAL>& v) {
#ifdef __CUDACC__
    *reinterpret_cast<Four<REAL>*>(p) = v;
#else
    memcpy(p.aligned(4, 16), &v, sizeof v);
#endif
}

// At most `count` of the four, the rest zero: for the ends of rows, and rows that are not aligned.
__device__ inline Four<REAL> load_some(In<REAL> p, int count) {
    Four<REAL> v;
#pragma unroll
    for (int e = 0; e < 4; e++) v.e[e] = e < count ? p[e] : REAL(0);
    return v;
}

template <class T>
__device__ inline Four<T>& four(T* p) {
    return *reinterpret_cast<Four<T>*>(p);
}
template <class T>
__device__ inline const Four<T>& four(const T* p) {
    return *reinterpret_cast<const Four<T>*>(p);
}
template <class T>
__device__ inline const Two<T>& two(const T* p) {
    return *reinterpret_cast<const Two<T>*>(p);
}
