// Sums in a fixed order: the same bits every run, on every device. No float atomics; a sum over many blocks is two
// kernels, the first of which leaves one partial sum for each block in a workspace.
#pragma once
#include "common.cuh"

constexpr unsigned ALL_LANES = 0xFFFFFFFFu;

// The sum over a warp's 32 lanes, in lane 0. All lanes must call.
template <class T>
__device__ T warp_sum(T a) {
#pragma unroll
    for (int by = 16; by > 0; by /= 2) a += __shfl_down_sync(ALL_LANES, a, by);
    return a;
}

// The sum over a block's threads, in thread (0, 0, 0). All threads must call; blocks are whole warps, at most 32.
// scratch : shared, one number for each warp
template <class T>
__device__ T block_sum(T a, T* scratch) {
    const int thread = int(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
    const int warps = int(blockDim.x * blockDim.y * blockDim.z) / 32;
    a = warp_sum(a);
    __syncthreads();  // an earlier sum may still be read
    if (thread % 32 == 0) scratch[thread / 32] = a;
    __syncthreads();
    if (thread < 32) a = warp_sum(thread < warps ? scratch[thread] : T(0));
    return a;
}

// Columns (threadIdx.x) of `a` added up over the rows (threadIdx.y) of a block, in row 0. All threads must call.
// scratch : shared, one number for each thread
template <class T>
__device__ T column_sum(T a, T* scratch) {
    const int x = int(threadIdx.x), y = int(threadIdx.y), width = int(blockDim.x), rows = int(blockDim.y);
    __syncthreads();
    scratch[y * width + x] = a;
    for (int half = rows / 2; half > 0; half /= 2) {  // rows is a power of two
        __syncthreads();
        if (y < half) scratch[y * width + x] += scratch[(y + half) * width + x];
    }
    __syncthreads();
    return scratch[x];
}

// A block's K sums, in double, as one row of partial (blocks, K). All threads must call.
template <int K>
__device__ void store_sums(Out<double> partial, const double (&sums)[K], double* scratch) {
#pragma unroll
    for (int k = 0; k < K; k++) {
        const double total = block_sum(sums[k], scratch);
        if (threadIdx.x == 0) partial[int(blockIdx.x) * K + k] = total;
    }
}

// The sum, or the maximum, over `lanes` neighbouring lanes (a power of two up to 32), in all of them.
__device__ inline REAL lanes_sum(REAL a, int lanes) {
    for (int by = lanes / 2; by > 0; by /= 2) a += __shfl_xor_sync(ALL_LANES, a, by);
    return a;
}

__device__ inline REAL lanes_max(REAL a, int lanes) {
    for (int by = lanes / 2; by > 0; by /= 2) a = max(a, __shfl_xor_sync(ALL_LANES, a, by));
    return a;
}
