// The second stage of a sum that several blocks share: parts added up in their order, bias, activation.
//
// Math     y[n, i si + i0, j sj + j0, o] = act(b[o] + sum over parts s of partial[s, n, i, j, o])
// Layout   partial (parts, N, OH, OW, O) as steps 4, 5, 7 and 8 leave it, y (N, YH, YW, O); see geometry.cuh
// Threads  V channels of one pixel each, flat; V = 16 bytes where `wide`
// Memory   parts + 1 times y. Layer 10 of U-Net (784 pixels x 1024 channels) in 4 parts: 16 MB, which stay in L2
// Limit    bandwidth of L2, DRAM's where parts are larger than L2
// Step     none: it lets steps 4, 5, 7 and 8 split their sums where results alone are too few to fill a device: 784
//          pixels x 1024 channels are 56 tiles of 128 x 128 for 132 multiprocessors. Bias and activation move here
// Needs    `wide`: O a multiple of V, all arrays aligned to 16 bytes
#include "conv/geometry.cuh"
#include "pixels.cuh"

template <int V>
__device__ void add_parts(Out<REAL> y, In<REAL> partial, In<REAL> b, int parts, int results, int OH, int OW, int YH,
                          int YW, int O, int si, int sj, int i0, int j0, int activation) {
    for (int t = global_thread(); t < results / V; t += global_threads()) {
        const int k = t * V, p = k / O, o = k % O;
        Group<V> sum = load_group<V>(partial + k);
#pragma unroll 4
        for (int s = 1; s < parts; s++) {
            const Group<V> next = load_group<V>(partial + (s * results + k));
#pragma unroll
            for (int e = 0; e < V; e++) sum.e[e] += next.e[e];
        }
#pragma unroll
        for (int e = 0; e < V; e++) sum.e[e] = activate(b ? sum.e[e] + b[o + e] : sum.e[e], activation);
        store_group(y + (target(p, OH, OW, YH, YW, si, sj, i0, j0) * O + o), sum);
    }
}

extern "C" __global__ void __launch_bounds__(256)
    split_finish(Out<REAL> y, In<REAL> partial, In<REAL> b, int parts, int results, int OH, int OW, int YH, int YW,
                 int O, int si, int sj, int i0, int j0, int activation, int wide) {
    if (wide) add_parts<VECTOR>(y, partial, b, parts, results, OH, OW, YH, YW, O, si, sj, i0, j0, activation);
    else add_parts<1>(y, partial, b, parts, results, OH, OW, YH, YW, O, si, sj, i0, j0, activation);
}
