// What every kernel file starts with. One text, two compilers: NVRTC for the GPU, and a C++17 compiler for the host,
// where host/cuda_host.h supplies threadIdx, __syncthreads and the rest.
//
// REAL is float or double, given by -DREAL=...: a file is compiled once for each. Arrays are arguments of the types
//   In<REAL> x       read only, shares no memory with an output
//   Out<REAL> y      written, shares no memory with anything
//   InOut<REAL> p    may be the same array as another argument (optimisers work in place)
// On the GPU these are plain pointers; on the host they know their length and check every access. Sizes are int: the
// launcher refuses arrays of 2^31 elements. A missing optional array is a null pointer: `if (b) ...`.
#pragma once

#ifdef __CUDACC__
template <class T>
using In = const T* __restrict__;
template <class T>
using Out = T* __restrict__;
template <class T>
using InOut = T*;
// `T* name`, the block's dynamic shared memory, aligned to 128 bytes. One kernel can have one.
#define DYNAMIC_SHARED(T, name)                                      \
    extern __shared__ __align__(128) unsigned char dynamic_shared[]; \
    T* name = reinterpret_cast<T*>(dynamic_shared)
#else
#include "cuda_host.h"
#endif

#ifndef REAL
#error "REAL must be float or double: compile with -DREAL=float"
#endif

using u8 = unsigned char;
using u16 = unsigned short;
using u64 = unsigned long long;

// Where a flat loop over elements starts and how far it steps: neighbouring threads on neighbouring elements.
__device__ inline int global_thread() { return int(blockIdx.x * blockDim.x + threadIdx.x); }
__device__ inline int global_threads() { return int(gridDim.x * blockDim.x); }

__device__ inline REAL not_a_number() { return REAL(__int_as_float(0x7FFFFFFF)); }
__device__ inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// max(a, 0); a NaN stays one.
__device__ inline REAL positive(REAL a) { return a <= 0 ? REAL(0) : a; }

// max(a, least) of a number `least`; a NaN stays one, which CUDA's max would drop.
__device__ inline REAL at_least(REAL a, REAL least) { return a < least ? least : a; }

// The activation in a kernel's epilogue: codes of `ACTIVATION` in minunet/backends/cuda/launch.py.
__device__ inline REAL activate(REAL a, int activation) { return activation == 1 ? positive(a) : a; }
