// Normalisation within a pixel, and a batch normalisation folded into the convolution before it.
//
// Math     lrn: y_c = x_c / s_c^beta, s_c = 1 + alpha / size sum of x_k^2 over `size` neighbours; l2: y = x / max(|x|,
//          eps); fold: w' = f w, b' = f (b - mean) + beta, f = gamma / sqrt(var + eps)
// Layout   x (pixels, channels), channels contiguous; w with any axis as its output channels
// Threads  lrn, fold: flat, an element each; l2: `lanes` neighbouring threads share a pixel
// Memory   each array once from DRAM, neighbours and the second pass of l2 from L1; lrn's gradient keeps s: once more
// Limit    DRAM bandwidth up to about 9 neighbours, then L1
// Step     the gradient of lrn reads s where it would compute each s_k `size` times
// Needs    l2: blocks of 256
#include "reduce.cuh"

// s_c over k = c - size / 2 .. c + (size - 1) / 2
extern "C" __global__ void lrn_scale(Out<REAL> s, In<REAL> x, int n, int channels, int size, REAL share) {
    for (int k = global_thread(); k < n; k += global_threads()) {
        const int c = k % channels;
        REAL sum = 0;
        for (int e = max(c - size / 2, 0); e <= min(c + (size - 1) / 2, channels - 1); e++) {
            const REAL a = x[k - c + e];
            sum += a * a;
        }
        s[k] = 1 + share * sum;
    }
}

extern "C" __global__ void lrn(Out<REAL> y, In<REAL> x, In<REAL> s, int n, REAL beta) {
    for (int k = global_thread(); k < n; k += global_threads()) y[k] = x[k] * pow(s[k], -beta);
}

// dx_c = dy_c / s_c^beta - 2 share beta x_c sum of dy_k x_k / s_k^(beta + 1), k = c - (size - 1) / 2 .. c + size / 2
extern "C" __global__ void lrn_grad(Out<REAL> dx, In<REAL> dy, In<REAL> x, In<REAL> s, int n, int channels, int size,
                                    REAL share, REAL beta) {
    for (int k = global_thread(); k < n; k += global_threads()) {
        const int c = k % channels;
        REAL sum = 0;
        for (int e = max(c - (size - 1) / 2, 0); e <= min(c + size / 2, channels - 1); e++) {
            const int i = k - c + e;
            sum += dy[i] * x[i] * pow(s[i], -beta - 1);
        }
        dx[k] = dy[k] * pow(s[k], -beta) - 2 * share * beta * x[k] * sum;
    }
}

extern "C" __global__ void l2_normalize(Out<REAL> y, In<REAL> x, int pixels, int channels, int lanes, REAL eps) {
    const int lane = int(threadIdx.x) % lanes, per_block = int(blockDim.x) / lanes;
    for (int base = int(blockIdx.x) * per_block; base < pixels; base += int(gridDim.x) * per_block) {
        const int p = base + int(threadIdx.x) / lanes, first = min(p, pixels - 1) * channels;
        REAL sum = 0;
        for (int c = lane; c < channels; c += lanes) sum += x[first + c] * x[first + c];
        const REAL factor = 1 / at_least(sqrt(lanes_sum(sum, lanes)), eps);
        if (p < pixels)
            for (int c = lane; c < channels; c += lanes) y[first + c] = x[first + c] * factor;
    }
}

// dx = (dy - y sum_k dy_k y_k) / r where r > eps, y = x / r; else dy / eps
extern "C" __global__ void l2_normalize_grad(Out<REAL> dx, In<REAL> dy, In<REAL> x, int pixels, int channels, int lanes,
                                             REAL eps) {
    const int lane = int(threadIdx.x) % lanes, per_block = int(blockDim.x) / lanes;
    for (int base = int(blockIdx.x) * per_block; base < pixels; base += int(gridDim.x) * per_block) {
        const int p = base + int(threadIdx.x) / lanes, first = min(p, pixels - 1) * channels;
        REAL sum = 0, dot = 0;
        for (int c = lane; c < channels; c += lanes) {
            sum += x[first + c] * x[first + c];
            dot += dy[first + c] * x[first + c];
        }
        const REAL r = sqrt(lanes_sum(sum, lanes)), along = lanes_sum(dot, lanes), factor = 1 / at_least(r, eps);
        const REAL share = r > eps ? along * factor * factor : REAL(0);
        if (p < pixels)
            for (int c = lane; c < channels; c += lanes)
                dx[first + c] = (dy[first + c] - x[first + c] * share) * factor;
    }
}

// w'[k] = f w[k], the channel of k being k / inner % channels.
extern "C" __global__ void fold_weights(Out<REAL> folded, In<REAL> w, In<REAL> var, In<REAL> gamma, int n, int inner,
                                        int channels, REAL eps) {
    for (int k = global_thread(); k < n; k += global_threads()) {
        const int c = k / inner % channels;
        folded[k] = w[k] * (gamma[c] / sqrt(var[c] + eps));
    }
}

extern "C" __global__ void fold_bias(Out<REAL> folded, In<REAL> mean, In<REAL> var, In<REAL> gamma, In<REAL> beta,
                                     In<REAL> b, int channels, REAL eps) {
    for (int c = global_thread(); c < channels; c += global_threads())
        folded[c] = gamma[c] / sqrt(var[c] + eps) * ((b ? b[c] : REAL(0)) - mean[c]) + beta[c];
}
