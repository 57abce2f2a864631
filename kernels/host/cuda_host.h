// Runs a CUDA kernel's source on a CPU, to test it: not fast, but strict.
//
// Blocks run one after the other. The threads of a block are fibers that run until they finish or have to wait, in
// ascending or in descending order of their index: a barrier that is missing shows in one order or the other, since
// shared memory is full of NaN (bytes 0xFF) when a block starts. What is reported, with block and thread:
//   a thread that left, or waits elsewhere, while others wait at __syncthreads or at a warp operation
//   an access outside of a global array, with the array's name and the index; a misaligned vector access
//   an index outside of an array of fixed size, an integer overflow, a division by zero (the compiler's sanitizer)
//   a write behind the dynamic shared memory that was asked for
//   in a mode of its own, any two accesses that a barrier should separate, whether or not the order shows it (races.h)
// What it cannot show: time and bank conflicts.
//
// memory.h: arrays and shared memory; races.h: who touched them; warp.h: shuffles, votes, atomics; ptx.h: cp.async,
// ldmatrix, mma; run.h: launches
#pragma once
#include <cmath>
#include <cstdarg>
#include <cstring>

#include "fiber.h"

// Device functions get internal linkage, so that their shared arrays may lie in one section of the library; functions
// inside of a struct carry no mark (NVRTC compiles with -default-device).
#define __device__ static
#define __global__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static __attribute__((section("minunet_shared")))
#define __constant__ static const

struct uint3 {
    unsigned x, y, z;
};
using dim3 = uint3;
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;

using std::abs, std::ceil, std::exp, std::expm1, std::floor, std::fma, std::isfinite, std::isinf, std::isnan, std::log,
    std::log1p, std::pow, std::sqrt, std::tanh;
template <class T>
static inline T cospi(T a) {
    return std::cos(T(3.141592653589793) * a);
}
// As in CUDA, of a NaN and a number it is the number.
template <class T>
static inline T max(T a, T b) {
    return a < b || a != a ? b : a;
}
template <class T>
static inline T min(T a, T b) {
    return b < a || a != a ? b : a;
}
static inline float __int_as_float(int bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static inline int __float_as_int(float x) {
    int bits;
    memcpy(&bits, &x, 4);
    return bits;
}
static inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}

namespace host {

enum State { READY, AT_BARRIER, IN_WARP, DONE };
constexpr int MOST_THREADS = 1024, LANES = 32, SLOT = 64, MOST_COPIES = 128;

struct Copy {  // a cp.async on its way
    char* to;
    const char* from;  // nullptr: zeros
    int bytes, group;
};

struct Thread {
    Fiber* fiber;
    State state;
    uint3 index;
    int line;                                     // of the barrier or warp operation where it waits
    unsigned mask;                                // of that warp operation
    alignas(16) char offered[SLOT], given[SLOT];  // its value for that operation, before and after all have arrived
    int copies, group;
    Copy copy[MOST_COPIES];
};

static Thread threads[MOST_THREADS];
static Thread* current;
static Context scheduler;
static int n_threads;
static const char* kernel_name;
static char message[1024];
static bool failed;

static inline void suspend() { switch_context(&current->fiber->context, &scheduler); }

// Reports, and ends the launch: the thread is never resumed.
static void fail(const char* format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void fail(const char* format, ...) {
    const uint3 t = current->index, b = blockIdx;
    int used = snprintf(message, sizeof message, "%s: block (%u, %u, %u), thread (%u, %u, %u): ", kernel_name, b.x, b.y,
                        b.z, t.x, t.y, t.z);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message + used, sizeof message - used, format, arguments);
    va_end(arguments);
    failed = true;
    for (;;) suspend();
}

static void barrier(int line) {
    current->state = AT_BARRIER;
    current->line = line;
    suspend();
}

}  // namespace host

#define __syncthreads() ::host::barrier(__LINE__)

#include "memory.h"
#include "races.h"
#include "warp.h"
#include "ptx.h"
#include "run.h"
