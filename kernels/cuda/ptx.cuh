// Every line of PTX that the kernels use, each with its host twin (host/ptx.h).
#pragma once
#include "common.cuh"

#ifdef __CUDACC__
// The 32-bit address that PTX wants for shared memory.
__device__ inline unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }
#endif

// --- cp.async (sm_80 and newer; older: an ordinary copy, which is complete at once)
// 16 bytes from global to shared memory without passing through registers; zeros where not `valid` (nothing is read
// then). Both addresses are multiples of 16. Other threads see them after wait_copies() and __syncthreads().
template <class T>
__device__ inline void copy_async_16(void* to, In<T> from, bool valid) {
#if !defined(__CUDACC__)
    host::copy_async(to, valid ? from.aligned(16 / int(sizeof(T)), 16) : nullptr, 16);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(valid ? 16 : 0)
                 : "memory");
#else
    *static_cast<uint4*>(to) = valid ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
#endif
}

// The same with 4 bytes, for rows that are not aligned.
template <class T>
__device__ inline void copy_async_4(void* to, In<T> from, bool valid) {
#if !defined(__CUDACC__)
    host::copy_async(to, valid ? from.aligned(4 / int(sizeof(T)), 4) : nullptr, 4);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 4 : 0)
                 : "memory");
#else
    *static_cast<unsigned*>(to) = valid ? *reinterpret_cast<const unsigned*>(from) : 0u;
#endif
}

// Closes the group of this thread's copies since the last call.
__device__ inline void commit_copies() {
#if !defined(__CUDACC__)
    host::commit_copies();
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most PENDING of this thread's groups, the newest, are still on their way.
template <int PENDING>
__device__ inline void wait_copies() {
#if !defined(__CUDACC__)
    host::wait_copies(PENDING);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

// --- 16-bit numbers: two in a register, the first in the low half. Rounded to nearest, ties to even.

__device__ inline unsigned pack_bf16(float low, float high) {
#if !defined(__CUDACC__)
    return host::bf16_bits(low) | unsigned(host::bf16_bits(high)) << 16;
#elif __CUDA_ARCH__ >= 800
    unsigned r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
#else
    const unsigned a = __float_as_uint(low), b = __float_as_uint(high);
    return (a + 0x7FFF + (a >> 16 & 1)) >> 16 | ((b + 0x7FFF + (b >> 16 & 1)) & 0xFFFF0000u);
#endif
}

__device__ inline unsigned pack_f16(float low, float high) {
#if !defined(__CUDACC__)
    return host::f16_bits(low) | unsigned(host::f16_bits(high)) << 16;
#else
    unsigned short a, b;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(a) : "f"(low));
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(b) : "f"(high));
    return a | unsigned(b) << 16;
#endif
}

__device__ inline float bf16_to_float(unsigned short bits) { return __uint_as_float(unsigned(bits) << 16); }

__device__ inline float f16_to_float(unsigned short bits) {
#if !defined(__CUDACC__)
    return host::f16_value(bits);
#else
    float a;
    asm("cvt.f32.f16 %0, %1;" : "=f"(a) : "h"(bits));
    return a;
#endif
}

// tf32, a float with 10 bits of fraction, rounded to nearest, ties away from zero. The tensor core itself only drops
// the other 13 bits, which doubles the error and is biased towards zero.
__device__ inline unsigned to_tf32(float a) {
#if defined(__CUDACC__) && __CUDA_ARCH__ >= 800
    unsigned r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(a));
    return r;
#else
    return (__float_as_uint(a) + 0x1000u) & 0xFFFFE000u;
#endif
}

// --- ldmatrix: r[m] of lane 4 g + t holds elements (g, 2 t) and (g, 2 t + 1) of the 8 x 8 matrix m of 16-bit numbers;
// TRANSPOSED: (2 t, g) and (2 t + 1, g). Lane 8 m + i gives the address of row i of matrix m, a multiple of 16 bytes.
template <bool TRANSPOSED = false>
__device__ inline void load_matrix_x4(unsigned (&r)[4], const void* row) {
#if !defined(__CUDACC__)
    host::load_matrices<4, TRANSPOSED>(r, row);
#else
    const unsigned p = shared_address(row);
    if constexpr (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(p)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(p)
                     : "memory");
#endif
}

template <bool TRANSPOSED = false>
__device__ inline void load_matrix_x2(unsigned (&r)[2], const void* row) {
#if !defined(__CUDACC__)
    host::load_matrices<2, TRANSPOSED>(r, row);
#else
    const unsigned p = shared_address(row);
    if constexpr (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1])
                     : "r"(p)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1])
                     : "r"(p)
                     : "memory");
#endif
}

// --- mma.sync: d += a b on a warp's tensor core, float accumulators (sm_80 and newer). Lane 4 g + t holds
//   d[0..3]        (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1)                                of 16 x 8
//   tf32   a[0..3] (g, t) (g+8, t) (g, t+4) (g+8, t+4) of 16 x 8;   b[0..1] (t, g) (t+4, g) of 8 x 8 (k, n)
//   16 bit a[0..3] (g, 2t..) (g+8, 2t..) (g, 2t+8..) (g+8, 2t+8..)  of 16 x 16, two neighbours in each;
//          b[0..1] (2t.., g) (2t+8.., g)                            of 16 x 8 (k, n)
#if !defined(__CUDACC__) || __CUDA_ARCH__ >= 800
#ifdef __CUDACC__
#define MMA(shape_and_types)                                                        \
    asm volatile("mma.sync.aligned." shape_and_types                                \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                   \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#endif

__device__ inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef __CUDACC__
    MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
#else
    host::mma_tf32(d, a, b);
#endif
}

__device__ inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef __CUDACC__
    MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
#else
    host::mma_16<host::bf16_value>(d, a, b);
#endif
}

__device__ inline void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef __CUDACC__
    MMA("m16n8k16.row.col.f32.f16.f16.f32");
#else
    host::mma_16<host::f16_value>(d, a, b);
#endif
}
#undef MMA
#endif
