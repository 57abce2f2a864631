// Small kernels, right and wrong on purpose: what the emulation must let pass, and what it must report or show as NaN.
#include "reduce.cuh"
#include "vector.cuh"
#include "ptx.cuh"

constexpr int BLOCK = 64;

// --- Barriers

extern "C" __global__ void reverse(Out<REAL> y, In<REAL> x) {
    __shared__ REAL tile[BLOCK];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[BLOCK - 1 - threadIdx.x];
}

extern "C" __global__ void reverse_without_barrier(Out<REAL> y, In<REAL> x) {
    __shared__ REAL tile[BLOCK];
    tile[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = tile[BLOCK - 1 - threadIdx.x];
}

// y = the neighbour's value in each of `rounds` rows of x; without the second barrier a quick thread overwrites what a
// slow one still has to read.
__device__ void shift_rows(Out<REAL> y, In<REAL> x, int rounds, bool second, REAL* tile) {
    for (int r = 0; r < rounds; r++) {
        tile[threadIdx.x] = x[r * BLOCK + threadIdx.x];
        __syncthreads();
        y[r * BLOCK + threadIdx.x] = tile[(threadIdx.x + 1) % BLOCK];
        if (second) __syncthreads();
    }
}

extern "C" __global__ void shift(Out<REAL> y, In<REAL> x, int rounds) {
    __shared__ REAL tile[BLOCK];
    shift_rows(y, x, rounds, true, tile);
}

extern "C" __global__ void shift_one_barrier(Out<REAL> y, In<REAL> x, int rounds) {
    __shared__ REAL tile[BLOCK];
    shift_rows(y, x, rounds, false, tile);
}

extern "C" __global__ void half_at_barrier(Out<REAL> y) {
    if (threadIdx.x < BLOCK / 2) __syncthreads();
    y[threadIdx.x] = 0;
}

extern "C" __global__ void two_barriers(Out<REAL> y) {
    if (threadIdx.x % 2) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    y[threadIdx.x] = 0;
}

extern "C" __global__ void leave_early(Out<REAL> y, int n) {
    if (int(threadIdx.x) >= n) return;
    __syncthreads();
    y[threadIdx.x] = 0;
}

extern "C" __global__ void half_a_warp_shuffles(Out<REAL> y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_down_sync(ALL_LANES, y[threadIdx.x], 1);
}

// --- Halo of a 3-point mean: y[i] = (x[i-1] + x[i] + x[i+1]) / 3, zeros outside

__device__ void mean_of_tile(Out<REAL> y, In<REAL> x, int n, int reach, REAL* tile) {
    const int first = int(blockIdx.x) * BLOCK, t = int(threadIdx.x);
    for (int k = t; k < BLOCK + reach; k += BLOCK) {
        const int i = first + k - 1;
        tile[k] = i >= 0 && i < n ? x[i] : REAL(0);
    }
    __syncthreads();
    if (first + t < n) y[first + t] = (tile[t] + tile[t + 1] + tile[t + 2]) / 3;
}

extern "C" __global__ void mean3(Out<REAL> y, In<REAL> x, int n) {
    __shared__ REAL tile[BLOCK + 2];
    mean_of_tile(y, x, n, 2, tile);
}

extern "C" __global__ void mean3_short_halo(Out<REAL> y, In<REAL> x, int n) {
    __shared__ REAL tile[BLOCK + 2];
    mean_of_tile(y, x, n, 1, tile);  // the tile's last element is never loaded
}

// --- Bounds

extern "C" __global__ void all_but_one(Out<REAL> y, int n) {
    if (int(threadIdx.x) < n - 1) y[threadIdx.x] = 1;
}

extern "C" __global__ void unwritten_register(Out<REAL> y, In<REAL> x, int n) {
    REAL a[2];
    for (int k = 0; k < n; k++) a[k] = x[2 * threadIdx.x + k];
    y[threadIdx.x] = a[0] + a[1];
}

extern "C" __global__ void write_behind(Out<REAL> y, int n) { y[n + int(threadIdx.x)] = 1; }

extern "C" __global__ void read_before(Out<REAL> y, In<REAL> x) { y[threadIdx.x] = x[int(threadIdx.x) - 1]; }

extern "C" __global__ void read_missing(Out<REAL> y, In<REAL> x) { y[threadIdx.x] = x ? x[0] : *x; }

extern "C" __global__ void vector_behind(Out<REAL> y, In<REAL> x, int n) { store_vector(y, load_vector(x + (n - 1))); }

extern "C" __global__ void vector_misaligned(Out<REAL> y, In<REAL> x) { store_vector(y, load_vector(x + 1)); }

extern "C" __global__ void beyond_fixed_array(Out<REAL> y, int k) {
    __shared__ REAL tile[BLOCK];
    tile[threadIdx.x] = 0;
    y[threadIdx.x] = tile[int(threadIdx.x) + k];
}

extern "C" __global__ void beyond_dynamic_array(Out<REAL> y, int n) {
    DYNAMIC_SHARED(REAL, tile);
    tile[n + int(threadIdx.x)] = 0;
    y[threadIdx.x] = 0;
}

extern "C" __global__ void overflow(Out<int> y, int a) { y[threadIdx.x] = a + int(threadIdx.x); }

extern "C" __global__ void divide(Out<int> y, int a) { y[threadIdx.x] = a / int(threadIdx.x); }

// --- Asynchronous copies

__device__ void copy_rows(Out<REAL> y, In<REAL> x, bool wait, REAL* tile) {
    const int each = 16 / int(sizeof(REAL)), k = int(threadIdx.x) * each;
    copy_async_16(tile + k, x + k, threadIdx.x % 2 == 0);  // the others get zeros
    commit_copies();
    if (wait) wait_copies<0>();
    __syncthreads();
    for (int e = 0; e < each; e++) y[k + e] = tile[k + e];
}

extern "C" __global__ void copy(Out<REAL> y, In<REAL> x) {
    __shared__ __align__(16) REAL tile[BLOCK * 16 / sizeof(REAL)];
    copy_rows(y, x, true, tile);
}

extern "C" __global__ void copy_without_wait(Out<REAL> y, In<REAL> x) {
    __shared__ __align__(16) REAL tile[BLOCK * 16 / sizeof(REAL)];
    copy_rows(y, x, false, tile);
}

// Two groups on their way, one waited for: the older one is there, the newer one is not.
extern "C" __global__ void copy_two_groups(Out<REAL> older, Out<REAL> newer, In<REAL> x) {
    __shared__ __align__(16) REAL tile[2][16 / sizeof(REAL)];
    if (threadIdx.x == 0)
        for (int g = 0; g < 2; g++) {
            copy_async_16(tile[g], x + g * (16 / int(sizeof(REAL))), true);
            commit_copies();
        }
    wait_copies<1>();
    __syncthreads();
    if (threadIdx.x == 0) {
        older[0] = tile[0][0];
        newer[0] = tile[1][0];
    }
}

// --- Warps

// sums[w]: of the warp's values; votes[w]: a bit for each odd one; half[w]: the sum of the first 16 lanes, by themselves.
extern "C" __global__ void warps(Out<REAL> sums, Out<unsigned> votes, Out<REAL> half, Out<REAL> whole, In<REAL> x,
                                 In<int> odd) {
    __shared__ REAL scratch[32];
    const int t = int(threadIdx.x), lane = t % 32;
    REAL a = x[t], h = a;
    if (lane < 16)  // a part of the warp, as often as it likes
        for (int by = 8; by > 0; by /= 2) h += __shfl_xor_sync(0xFFFFu, h, by);
    const REAL sum = warp_sum(a), block = block_sum(a, scratch);
    const unsigned vote = __ballot_sync(ALL_LANES, odd[t] % 2);
    if (lane == 0) {
        sums[t / 32] = sum;
        votes[t / 32] = vote;
        half[t / 32] = h;
    }
    if (t == 0) whole[0] = block;
}

extern "C" __global__ void count(InOut<int> histogram, In<int> values, int n) {
    if (global_thread() < n) atomicAdd(&histogram[values[global_thread()]], 1);
}

extern "C" __global__ void extremes(Out<float> high, Out<float> low, In<float> a, In<float> b, int n) {
    const int k = int(threadIdx.x);
    if (k >= n) return;
    high[k] = max(a[k], b[k]);
    low[k] = min(a[k], b[k]);
}

// --- Races that no order of threads shows

// Every thread adds to the sum of the block: the fibers do so one after the other.
extern "C" __global__ void add_up(Out<REAL> y, In<REAL> x) {
    __shared__ REAL sum;
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();
    sum += x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) y[0] = sum;
}

// Two blocks write the same numbers.
extern "C" __global__ void both_write(Out<REAL> y, In<REAL> x) { y[threadIdx.x] = x[threadIdx.x]; }

// A block reads what another one writes.
extern "C" __global__ void passes_on(Out<REAL> y, In<REAL> x) {
    const int k = int(blockIdx.x * blockDim.x + threadIdx.x);
    y[k] = x[k];
    if (blockIdx.x == 1 && y[0] > 1e9f) y[k] = 0;
}

// A thread waits for its own copy, and reads its neighbour's: `barrier` says whether it waits for that.
extern "C" __global__ void neighbours_copy(Out<REAL> y, In<REAL> x, int barrier) {
    __shared__ __align__(16) REAL tile[BLOCK * VECTOR];
    const int t = int(threadIdx.x);
    copy_async_16(tile + t * VECTOR, x + t * VECTOR, true);
    commit_copies();
    wait_copies<0>();
    if (barrier) __syncthreads();
    y[t] = tile[(t > 0 ? t - 1 : 0) * VECTOR];
}
