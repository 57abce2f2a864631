// Sums over pixels, one for each channel: a bias's gradient; with samples, a mean over each map. The second stage
// serves every kernel that leaves partial sums for blocks of pixels.
//
// Math     db[n, c] = factor sum_p dy[n, p, c]
// Layout   dy (samples, pixels, channels), channels contiguous; partial (samples, parts, channels)
// Threads  stage 1: pixels.cuh, blockIdx.y is the part; stage 2: x channels, y parts; blockIdx.z the sample
// Memory   dy once; parts channels sizeof(REAL) written and read again, under 1 % of it; 1 KB shared
// Limit    DRAM bandwidth: one addition for 4 bytes
// Step     a thread adds its pixels in a register, a block its rows in shared memory, a second kernel the blocks: a
//          fixed order for a given shape, without atomics
// Needs    256 threads, blockDim.y a power of two
#include "pixels.cuh"
#include "reduce.cuh"

template <int V>
__device__ void partial_body(Out<REAL> partial, In<REAL> dy, int pixels, int channels, REAL* scratch) {
    const int c = first_channel<V>(), n = int(blockIdx.z);
    Group<V> sum = {};
    if (c < channels)
        each_pixel<V>(dy + n * pixels * channels, pixels, channels, c, [&](int, const Group<V>& d) {
#pragma unroll
            for (int e = 0; e < V; e++) sum.e[e] += d.e[e];
        });
#pragma unroll
    for (int e = 0; e < V; e++) {
        const REAL total = column_sum(sum.e[e], scratch);
        if (threadIdx.y == 0 && c < channels)
            partial[(n * int(gridDim.y) + int(blockIdx.y)) * channels + c + e] = total;
    }
}

extern "C" __global__ void channel_sum_partial(Out<REAL> partial, In<REAL> dy, int pixels, int channels, int wide) {
    __shared__ REAL scratch[256];
    if (wide) partial_body<VECTOR>(partial, dy, pixels, channels, scratch);
    else partial_body<1>(partial, dy, pixels, channels, scratch);
}

// As channel_sum_partial, of the products dy x.
template <int V>
__device__ void product_body(Out<REAL> partial, In<REAL> dy, In<REAL> x, int pixels, int channels, REAL* scratch) {
    const int c = first_channel<V>(), n = int(blockIdx.z);
    Group<V> sum = {};
    if (c < channels)
        each_pixel<V>(dy + n * pixels * channels, x + n * pixels * channels, pixels, channels, c,
                      [&](int, const Group<V>& d, const Group<V>& g) {
#pragma unroll
                          for (int e = 0; e < V; e++) sum.e[e] += d.e[e] * g.e[e];
                      });
#pragma unroll
    for (int e = 0; e < V; e++) {
        const REAL total = column_sum(sum.e[e], scratch);
        if (threadIdx.y == 0 && c < channels)
            partial[(n * int(gridDim.y) + int(blockIdx.y)) * channels + c + e] = total;
    }
}

extern "C" __global__ void product_sum_partial(Out<REAL> partial, In<REAL> dy, In<REAL> x, int pixels, int channels,
                                               int wide) {
    __shared__ REAL scratch[256];
    if (wide) product_body<VECTOR>(partial, dy, x, pixels, channels, scratch);
    else product_body<1>(partial, dy, x, pixels, channels, scratch);
}

// out[n sample_step + c channel_step] = factor sum over parts of partial[n, part, c], in double: few terms.
extern "C" __global__ void channel_sum_finish(Out<REAL> out, In<REAL> partial, int parts, int channels, REAL factor,
                                              int sample_step, int channel_step) {
    __shared__ double scratch[256];
    const int c = first_channel<1>(), n = int(blockIdx.z);
    double sum = 0;
    if (c < channels)
        for (int part = int(threadIdx.y); part < parts; part += int(blockDim.y))
            sum += partial[(n * parts + part) * channels + c];
    sum = column_sum(sum, scratch);
    if (threadIdx.y == 0 && c < channels) out[n * sample_step + c * channel_step] = REAL(sum * factor);
}
