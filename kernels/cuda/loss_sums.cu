// Losses that are sums over elements: two classes by one logit, overlap of probabilities, differences.
//
// Math     sums_s = sum_k f_s(k), in double; the formulas stand in minunet/contract/loss.py
// Layout   any shape, contiguous: n elements; partial (blocks, sums)
// Threads  flat: thread t takes elements t, t + T, t + 2T ..., T = threads of the grid; the last stage is one block
// Memory   each array once; 256 bytes shared
// Limit    DRAM bandwidth; on devices with few double units (1 of 64) the three double additions for 8 bytes come close
// Step     a thread adds in registers, a block by shuffles, a second kernel the blocks: a fixed order, without atomics
// Needs    blocks of 256
#include "vector.cuh"
#include "reduce.cuh"

__device__ inline REAL logistic(REAL x) {
    const REAL e = exp(x > 0 ? -x : x);
    return (x > 0 ? REAL(1) : e) / (1 + e);
}

// log(1 + exp(x))
__device__ inline REAL softplus(REAL x) { return (x > 0 ? x : REAL(0)) + log1p(exp(x > 0 ? -x : x)); }

// The sum over parts of partial[part, s], in thread 0; all threads of the block must call.
__device__ inline double over_parts(In<double> partial, int parts, int sums, int s, double* scratch) {
    double a = 0;
    for (int part = int(threadIdx.x); part < parts; part += int(blockDim.x)) a += partial[part * sums + s];
    return block_sum(a, scratch);
}

// factor = 1 / (sum number `divisor`), 0 where that is not positive; with divisor < 0 it is 1 / count.
// loss = factor (sum number 0). One block of 256; the numbers stay on the device.
extern "C" __global__ void loss_finish(Out<REAL> loss, Out<REAL> factor, In<double> partial, int parts, int sums,
                                       int divisor, int count) {
    __shared__ double scratch[32];
    const double total = over_parts(partial, parts, sums, 0, scratch);
    const double by = divisor < 0 ? double(count) : over_parts(partial, parts, sums, divisor, scratch);
    if (threadIdx.x != 0) return;
    const double inverse = by > 0 ? 1 / by : 0;
    loss[0] = REAL(total * inverse);
    if (factor) factor[0] = REAL(inverse);
}

// loss = 1 - u / v and slopes = (a, b), dloss/dp = a t + b, of the sums p t, p, t. kind: 0 Dice, 1 Jaccard.
extern "C" __global__ void overlap_finish(Out<REAL> loss, Out<REAL> slopes, In<double> partial, int parts, int kind,
                                          double smooth) {
    __shared__ double scratch[32];
    const double both = over_parts(partial, parts, 3, 0, scratch);
    const double either = over_parts(partial, parts, 3, 1, scratch) + over_parts(partial, parts, 3, 2, scratch);
    if (threadIdx.x != 0) return;
    const double u = (kind == 0 ? 2 * both : both) + smooth, v = (kind == 0 ? either : either - both) + smooth;
    const bool nothing = v == 0;  // there, and found
    loss[0] = nothing ? REAL(0) : REAL(1 - u / v);
    slopes[0] = nothing ? REAL(0) : REAL(kind == 0 ? -2 / v : -(u + v) / (v * v));
    slopes[1] = nothing ? REAL(0) : REAL(u / (v * v));
}

// sum w l, sum w, elements counted; l = max(x, 0) - x t + log(1 + exp(-|x|))
extern "C" __global__ void sigmoid_cross_entropy_partial(Out<double> partial, In<REAL> logits, In<REAL> target,
                                                         In<REAL> weight_map, int n, REAL ignore_index) {
    __shared__ double scratch[32];
    double sums[3] = {0, 0, 0};
    for (int k = global_thread(); k < n; k += global_threads()) {
        const REAL x = logits[k], t = target[k], w = weight_map ? weight_map[k] : REAL(1);
        if (t == ignore_index) continue;
        sums[0] += double(w) * (positive(x) - x * t + log1p(exp(x > 0 ? -x : x)));
        sums[1] += w;
        sums[2] += 1;
    }
    store_sums(partial, sums, scratch);
}

extern "C" __global__ void sigmoid_cross_entropy_grad(Out<REAL> dlogits, In<REAL> logits, In<REAL> target, In<REAL> dy,
                                                      In<REAL> factor, In<REAL> weight_map, int n, REAL ignore_index) {
    const REAL scale = dy[0] * factor[0];
    for (int k = global_thread(); k < n; k += global_threads()) {
        const REAL t = target[k], w = weight_map ? weight_map[k] : REAL(1);
        dlogits[k] = t == ignore_index ? REAL(0) : scale * w * (logistic(logits[k]) - t);
    }
}

// sum l, elements counted; z = (2 t - 1) x, l = a sigmoid(-z)^gamma log(1 + exp(-z))
extern "C" __global__ void focal_loss_partial(Out<double> partial, In<REAL> logits, In<REAL> target, int n, REAL gamma,
                                              REAL alpha, REAL ignore_index) {
    __shared__ double scratch[32];
    double sums[2] = {0, 0};
    for (int k = global_thread(); k < n; k += global_threads()) {
        const REAL t = target[k], z = (2 * t - 1) * logits[k], a = t * alpha + (1 - t) * (1 - alpha);
        if (t == ignore_index) continue;
        sums[0] += a * pow(logistic(-z), gamma) * softplus(-z);
        sums[1] += 1;
    }
    store_sums(partial, sums, scratch);
}

extern "C" __global__ void focal_loss_grad(Out<REAL> dlogits, In<REAL> logits, In<REAL> target, In<REAL> dy,
                                           In<REAL> factor, int n, REAL gamma, REAL alpha, REAL ignore_index) {
    const REAL scale = dy[0] * factor[0];
    for (int k = global_thread(); k < n; k += global_threads()) {
        const REAL t = target[k], side = 2 * t - 1, z = side * logits[k], a = t * alpha + (1 - t) * (1 - alpha);
        const REAL q = logistic(-z);
        dlogits[k] =
            t == ignore_index ? REAL(0) : -scale * side * a * pow(q, gamma) * (gamma * logistic(z) * softplus(-z) + q);
    }
}

// sum p t, sum p, sum t
extern "C" __global__ void overlap_partial(Out<double> partial, In<REAL> p, In<REAL> target, int n) {
    __shared__ double scratch[32];
    double sums[3] = {0, 0, 0};
    for (int k = global_thread(); k < n; k += global_threads()) {
        const double a = p[k], t = target[k];
        sums[0] += a * t;
        sums[1] += a;
        sums[2] += t;
    }
    store_sums(partial, sums, scratch);
}

extern "C" __global__ void overlap_grad(Out<REAL> dp, In<REAL> target, In<REAL> dy, In<REAL> slopes, int n,
                                        int vectors) {
    const REAL a = dy[0] * slopes[0], b = dy[0] * slopes[1];
    map(dp, target, n, vectors, [=](int, REAL t) { return a * t + b; });
}

// kind: 0 d^2, 1 |d|, 2 d^2 / 2 where |d| < 1 and |d| - 1/2 elsewhere
extern "C" __global__ void distance_partial(Out<double> partial, In<REAL> x, In<REAL> target, int n, int kind) {
    __shared__ double scratch[32];
    double sums[1] = {0};
    for (int k = global_thread(); k < n; k += global_threads()) {
        const REAL d = x[k] - target[k], size = abs(d);
        sums[0] += kind == 0 ? d * d : kind == 1 ? size : size < 1 ? d * d / 2 : size - REAL(0.5);
    }
    store_sums(partial, sums, scratch);
}

extern "C" __global__ void distance_grad(Out<REAL> dx, In<REAL> x, In<REAL> target, In<REAL> dy, int n, int vectors,
                                         int kind) {
    const REAL scale = dy[0] / n;
    map(dx, x, target, n, vectors, [=](int, REAL a, REAL t) {
        const REAL d = a - t, sign = d > 0 ? REAL(1) : d < 0 ? REAL(-1) : d;  // 0 and NaN stay
        return scale * (kind == 0 ? 2 * d : kind == 1 ? sign : abs(d) < 1 ? d : sign);
    });
}
