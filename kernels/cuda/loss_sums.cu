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

// out[s] = sum over parts of partial[part, s]; one block of 256.
extern "C" __global__ void sums_finish(Out<double> out, In<double> partial, int parts, int sums) {
    __shared__ double scratch[32];
    for (int s = 0; s < sums; s++) {
        double a = 0;
        for (int part = int(threadIdx.x); part < parts; part += int(blockDim.x)) a += partial[part * sums + s];
        a = block_sum(a, scratch);
        if (threadIdx.x == 0) out[s] = a;
    }
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

extern "C" __global__ void sigmoid_cross_entropy_grad(Out<REAL> dlogits, In<REAL> logits, In<REAL> target,
                                                      In<REAL> weight_map, int n, REAL ignore_index, REAL scale) {
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

extern "C" __global__ void focal_loss_grad(Out<REAL> dlogits, In<REAL> logits, In<REAL> target, int n, REAL gamma,
                                           REAL alpha, REAL ignore_index, REAL scale) {
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

extern "C" __global__ void overlap_grad(Out<REAL> dp, In<REAL> target, int n, int vectors, REAL a, REAL b) {
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

extern "C" __global__ void distance_grad(Out<REAL> dx, In<REAL> x, In<REAL> target, int n, int vectors, int kind,
                                         REAL scale) {
    map(dx, x, target, n, vectors, [=](int, REAL a, REAL t) {
        const REAL d = a - t, sign = d > 0 ? REAL(1) : d < 0 ? REAL(-1) : REAL(0);
        return scale * (kind == 0 ? 2 * d : kind == 1 ? sign : abs(d) < 1 ? d : sign);
    });
}
