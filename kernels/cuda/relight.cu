// Grey values of training tiles: a gamma curve over the tile's own range, contrast and brightness, noise.
//
// Math     gamma: y = low + (high - low) ((x - low) / (high - low))^power of the tile, low and high its extremes;
//          stretch: y = factor[n,c] x + shift[n,c]; noise: y = x + sd[n] sqrt(-2 ln u) cos(2 pi v), u and v random bits
//          of (seed, index)
// Layout   x and y (N, H, W, C), `size` elements a tile; powers and sd (N), factor and shift (N, C)
// Threads  gamma: blockIdx.y tiles, x elements; stretch: maps.cuh; noise: a flat loop
// Memory   input and output once; gamma reads the input twice, the second time from L2
// Limit    DRAM bandwidth; noise: two 64-bit hashes, a logarithm and a cosine an element
// Step     extremes have no order, so that each block leaves its own, and every block of the second kernel joins them
// Needs    gamma: blocks of 256 threads
#include "maps.cuh"
#include "reduce.cuh"

// The extremes of each block's elements, ranges (tiles, blocks, 2).
extern "C" __global__ void __launch_bounds__(256) gamma_range(Out<REAL> ranges, In<REAL> x, int size) {
    __shared__ REAL lows[8], highs[8];
    In<REAL> tile = x + int(blockIdx.y) * size;
    const int thread = int(threadIdx.x);
    REAL low = tile[0], high = low;
    for (int k = int(blockIdx.x) * 256 + thread; k < size; k += int(gridDim.x) * 256) {
        low = min(low, tile[k]);
        high = max(high, tile[k]);
    }
    low = -lanes_max(-low, 32);
    high = lanes_max(high, 32);
    if (thread % 32 == 0) {
        lows[thread / 32] = low;
        highs[thread / 32] = high;
    }
    __syncthreads();
    if (thread == 0) {
        for (int warp = 1; warp < 8; warp++) {
            low = min(low, lows[warp]);
            high = max(high, highs[warp]);
        }
        Out<REAL> range = ranges + (int(blockIdx.y) * int(gridDim.x) + int(blockIdx.x)) * 2;
        range[0] = low;
        range[1] = high;
    }
}

extern "C" __global__ void __launch_bounds__(256)
    gamma_curve(Out<REAL> y, In<REAL> x, In<REAL> ranges, In<REAL> powers, int size) {
    const int n = int(blockIdx.y), parts = int(gridDim.x);
    In<REAL> range = ranges + n * parts * 2;
    REAL low = range[0], high = range[1];
    for (int part = 1; part < parts; part++) {
        low = min(low, range[2 * part]);
        high = max(high, range[2 * part + 1]);
    }
    const REAL power = powers[n], span = high - low;
    for (int k = int(blockIdx.x) * 256 + int(threadIdx.x); k < size; k += parts * 256) {
        const REAL a = x[n * size + k];
        // (a - low) / span is at most 1, being a quotient of rounded numbers the larger of which is below.
        y[n * size + k] = span > 0 ? low + span * pow((a - low) / span, power) : a;
    }
}

extern "C" __global__ void stretch(Out<REAL> y, In<REAL> x, In<REAL> factor, In<REAL> shift, int N, int H, int W,
                                   int C) {
    each_position<1>(N, H, W, C,
                     [=](int n, int, int, int c, int k) { y[k] = factor[n * C + c] * x[k] + shift[n * C + c]; });
}

// The upper 24 bits of splitmix64(seed, index), as in dropout.
__device__ inline REAL random_bits(u64 seed, u64 index) {
    u64 z = seed + (index + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return REAL(int((z ^ z >> 31) >> 40));
}

extern "C" __global__ void __launch_bounds__(256)
    add_noise(Out<REAL> y, In<REAL> x, In<REAL> sd, int n, int size, u64 seed) {
    const REAL unit = REAL(1) / REAL(1 << 24);
    for (int k = global_thread(); k < n; k += global_threads()) {
        const REAL u = (random_bits(seed, 2 * u64(k)) + 1) * unit, v = random_bits(seed, 2 * u64(k) + 1) * unit;
        y[k] = x[k] + sd[k / size] * sqrt(-2 * log(u)) * cospi(2 * v);
    }
}
