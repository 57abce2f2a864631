// Softmax and cross-entropy over the classes of a pixel, safe for any logits: nothing larger than exp(0) is computed.
//
// Math     softmax: y_k = exp(x_k - m) / S, m = max x, S = sum exp(x_k - m); loss: l = (m - x_t) + log S, t the target
// Layout   logits (pixels, classes), target and weight map (pixels): classes contiguous
// Threads  `lanes` neighbouring threads (a power of two up to 32) share a pixel; pixel = thread of the grid / lanes
// Memory   logits once from DRAM (twice more from L1), gradient or softmax once; no softmax is stored for the gradient
// Limit    DRAM bandwidth; with few classes the latency of the exponentials
// Step     one thread a pixel up to 8 classes, where a warp's loads still share sectors; more lanes above
// Needs    blocks of 256; a target outside of the classes, unless it is the ignored one, gives NaN
#include "reduce.cuh"

// f(pixel, valid) for the lanes' pixels; all threads of a warp call it equally often, as shuffles want.
template <class F>
__device__ void each_row(int pixels, int lanes, F f) {
    const int per_block = int(blockDim.x) / lanes;
    for (int base = int(blockIdx.x) * per_block; base < pixels; base += int(gridDim.x) * per_block) {
        const int p = base + int(threadIdx.x) / lanes;
        f(min(p, pixels - 1), p < pixels);
    }
}

struct Peak {
    REAL top, sum;  // m, S
};

__device__ inline Peak peak(In<REAL> x, int classes, int lane, int lanes) {
    REAL top = x[min(lane, classes - 1)];
    for (int k = lane + lanes; k < classes; k += lanes) top = max(top, x[k]);
    top = lanes_max(top, lanes);
    REAL sum = 0;
    for (int k = lane; k < classes; k += lanes) sum += exp(x[k] - top);
    return {top, lanes_sum(sum, lanes)};
}

extern "C" __global__ void softmax(Out<REAL> y, In<REAL> x, int pixels, int classes, int lanes) {
    const int lane = int(threadIdx.x) % lanes;
    each_row(pixels, lanes, [=](int p, bool valid) {
        In<REAL> row = x + p * classes;
        const Peak a = peak(row, classes, lane, lanes);
        if (valid)
            for (int k = lane; k < classes; k += lanes) y[p * classes + k] = exp(row[k] - a.top) / a.sum;
    });
}

// dx = y (dy - sum_k dy_k y_k)
extern "C" __global__ void softmax_grad(Out<REAL> dx, In<REAL> dy, In<REAL> y, int pixels, int classes, int lanes) {
    const int lane = int(threadIdx.x) % lanes;
    each_row(pixels, lanes, [=](int p, bool valid) {
        REAL dot = 0;
        for (int k = lane; k < classes; k += lanes) dot += dy[p * classes + k] * y[p * classes + k];
        dot = lanes_sum(dot, lanes);
        if (valid)
            for (int k = lane; k < classes; k += lanes)
                dx[p * classes + k] = y[p * classes + k] * (dy[p * classes + k] - dot);
    });
}

// w_p = weight_map_p class_weight_t, a missing factor being 1. NaN for a target that is no class: it must show.
__device__ inline REAL pixel_weight(In<REAL> weight_map, In<REAL> class_weight, int p, int t, int classes) {
    if (t < 0 || t >= classes) return not_a_number();
    return (weight_map ? weight_map[p] : REAL(1)) * (class_weight ? class_weight[t] : REAL(1));
}

__device__ inline REAL cross_entropy(const Peak& a, In<REAL> row, int t, int classes) {
    return t < 0 || t >= classes ? not_a_number() : (a.top - row[t]) + log(a.sum);
}

// partial (blocks, 3): sum w l, sum w, pixels counted.
extern "C" __global__ void softmax_cross_entropy_partial(Out<double> partial, In<REAL> logits, In<int> target,
                                                         In<REAL> weight_map, In<REAL> class_weight, int pixels,
                                                         int classes, int lanes, int ignore_index) {
    __shared__ double scratch[32];
    const int lane = int(threadIdx.x) % lanes;
    double sums[3] = {0, 0, 0};
    each_row(pixels, lanes, [&](int p, bool valid) {
        In<REAL> row = logits + p * classes;
        const Peak a = peak(row, classes, lane, lanes);
        const int t = target[p];
        if (!valid || lane != 0 || t == ignore_index) return;
        const REAL w = pixel_weight(weight_map, class_weight, p, t, classes);
        sums[0] += double(w) * cross_entropy(a, row, t, classes);
        sums[1] += w;
        sums[2] += 1;
    });
    store_sums(partial, sums, scratch);
}

// dlogits_pk = dy factor w_p (softmax_pk - [k = t]); 0 on ignored pixels, whatever stands there. dy and factor are one
// number each, in the device's memory: a broadcast load for a thread, where the host would have had to wait for them.
extern "C" __global__ void softmax_cross_entropy_grad(Out<REAL> dlogits, In<REAL> logits, In<int> target, In<REAL> dy,
                                                      In<REAL> factor, In<REAL> weight_map, In<REAL> class_weight,
                                                      int pixels, int classes, int lanes, int ignore_index) {
    const int lane = int(threadIdx.x) % lanes;
    const REAL scale = dy[0] * factor[0];
    each_row(pixels, lanes, [=](int p, bool valid) {
        In<REAL> row = logits + p * classes;
        const Peak a = peak(row, classes, lane, lanes);
        const int t = target[p];
        if (!valid) return;
        const bool counts = t != ignore_index;
        const REAL w = counts ? scale * pixel_weight(weight_map, class_weight, p, t, classes) : REAL(0);
        for (int k = lane; k < classes; k += lanes)
            dlogits[p * classes + k] =
                counts ? w * (exp(row[k] - a.top) / a.sum - (k == t ? REAL(1) : REAL(0))) : REAL(0);
    });
}

// l_p, or -1 where the target is ignored.
extern "C" __global__ void pixel_cross_entropy(Out<REAL> loss, In<REAL> logits, In<int> target, int pixels, int classes,
                                               int lanes, int ignore_index) {
    const int lane = int(threadIdx.x) % lanes;
    each_row(pixels, lanes, [=](int p, bool valid) {
        In<REAL> row = logits + p * classes;
        const Peak a = peak(row, classes, lane, lanes);
        const int t = target[p];
        if (valid && lane == 0) loss[p] = t == ignore_index ? REAL(-1) : cross_entropy(a, row, t, classes);
    });
}
