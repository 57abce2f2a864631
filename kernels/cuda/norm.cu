// Batch normalisation: statistics, the normalised map, its gradient. (Ioffe & Szegedy 2015.)
//
// Math     y = act(gamma z + beta), z = (x - mean) / s, s = sqrt(var + eps); dbeta = sum dy, dgamma = sum dy z,
//          dx = gamma / s (dy - [training] (mean(dy) + z mean(dy z)))
// Layout   x, dy (pixels, channels), channels contiguous; the rest (channels)
// Threads  pixels.cuh: a thread keeps its channels' numbers in registers and walks over pixels
// Memory   moments: x once; normalise: x read, y written; gradient: dy and x twice, dx once
// Limit    DRAM bandwidth
// Step     moments in one pass without cancellation: four pixels at a time get mean and M2 = sum (x - mean)^2 of their
//          own, and are merged (Chan, Golub, LeVeque 1983); blocks are merged in the same way by a second kernel
// Needs    256 threads, blockDim.y a power of two
#include "pixels.cuh"
#include "reduce.cuh"

template <class T>
struct Moments {
    T n, mean, m2;
};

// a with b's numbers added: the means' difference counts for what lies between the two groups.
template <class T>
__device__ inline Moments<T> merged(const Moments<T>& a, const Moments<T>& b) {
    const T n = a.n + b.n;
    if (n == 0) return a;
    const T delta = b.mean - a.mean, share = b.n / n;
    return {n, a.mean + delta * share, a.m2 + b.m2 + delta * delta * a.n * share};
}

// The block's rows merged into row 0, as a tree. scratch: shared, three numbers for each thread.
template <class T>
__device__ Moments<T> column_merge(Moments<T> a, Moments<T>* scratch) {
    const int x = int(threadIdx.x), y = int(threadIdx.y), width = int(blockDim.x);
    __syncthreads();
    scratch[y * width + x] = a;
    for (int half = int(blockDim.y) / 2; half > 0; half /= 2) {
        __syncthreads();
        if (y < half) scratch[y * width + x] = merged(scratch[y * width + x], scratch[(y + half) * width + x]);
    }
    __syncthreads();
    return scratch[x];
}

template <int V>
__device__ void moments_body(Out<REAL> partial, In<REAL> x, int pixels, int channels, Moments<REAL>* scratch) {
    const int c = first_channel<V>(), first = int(blockIdx.y * blockDim.y + threadIdx.y),
              step = int(gridDim.y * blockDim.y);
    Moments<REAL> all[V] = {};
    if (c < channels)
        for (int p = first; p < pixels; p += UNROLL * step) {
            Group<V> g[UNROLL];
            const int count = min(UNROLL, ceil_div(pixels - p, step));
#pragma unroll
            for (int u = 0; u < UNROLL; u++)
                if (u < count) g[u] = load_group<V>(x + (p + u * step) * channels + c);
            const REAL n = REAL(count), each = 1 / n;
#pragma unroll
            for (int e = 0; e < V; e++) {
                REAL mean = 0, m2 = 0;
#pragma unroll
                for (int u = 0; u < UNROLL; u++)
                    if (u < count) mean += (g[u].e[e] - g[0].e[e]) * each;
                mean += g[0].e[e];
#pragma unroll
                for (int u = 0; u < UNROLL; u++)
                    if (u < count) m2 += (g[u].e[e] - mean) * (g[u].e[e] - mean);
                all[e] = merged(all[e], {n, mean, m2});
            }
        }
#pragma unroll
    for (int e = 0; e < V; e++) {
        const Moments<REAL> m = column_merge(all[e], scratch);
        if (threadIdx.y == 0 && c < channels) {
            const int k = (int(blockIdx.y) * channels + c + e) * 3;
            partial[k] = m.n;
            partial[k + 1] = m.mean;
            partial[k + 2] = m.m2;
        }
    }
}

// partial (parts, channels, 3): count, mean and M2 of each block's pixels.
extern "C" __global__ void channel_moments_partial(Out<REAL> partial, In<REAL> x, int pixels, int channels, int wide) {
    __shared__ Moments<REAL> scratch[256];
    if (wide) moments_body<VECTOR>(partial, x, pixels, channels, scratch);
    else moments_body<1>(partial, x, pixels, channels, scratch);
}

extern "C" __global__ void channel_moments_finish(Out<REAL> mean, Out<REAL> var, In<REAL> partial, int parts,
                                                  int channels) {
    __shared__ Moments<double> scratch[256];
    const int c = first_channel<1>();
    Moments<double> all = {};
    if (c < channels)
        for (int part = int(threadIdx.y); part < parts; part += int(blockDim.y)) {
            const int k = (part * channels + c) * 3;
            all = merged(all, {double(partial[k]), double(partial[k + 1]), double(partial[k + 2])});
        }
    all = column_merge(all, scratch);
    if (threadIdx.y == 0 && c < channels) {
        mean[c] = REAL(all.mean);
        var[c] = REAL(all.m2 / all.n);
    }
}

template <int V>
__device__ void normalise_body(Out<REAL> y, In<REAL> x, In<REAL> mean, In<REAL> var, In<REAL> gamma, In<REAL> beta,
                               int pixels, int channels, REAL eps, int activation) {
    const int c = first_channel<V>();
    if (c >= channels) return;
    REAL factor[V], centre[V], shift[V];
#pragma unroll
    for (int e = 0; e < V; e++) {
        factor[e] = gamma[c + e] / sqrt(var[c + e] + eps);
        centre[e] = mean[c + e];
        shift[e] = beta[c + e];
    }
    each_pixel<V>(x, pixels, channels, c, [&](int k, Group<V> g) {
#pragma unroll
        for (int e = 0; e < V; e++) g.e[e] = activate(factor[e] * (g.e[e] - centre[e]) + shift[e], activation);
        store_group<V>(y + k, g);
    });
}

extern "C" __global__ void batch_norm(Out<REAL> y, In<REAL> x, In<REAL> mean, In<REAL> var, In<REAL> gamma,
                                      In<REAL> beta, int pixels, int channels, REAL eps, int activation, int wide) {
    if (wide) normalise_body<VECTOR>(y, x, mean, var, gamma, beta, pixels, channels, eps, activation);
    else normalise_body<1>(y, x, mean, var, gamma, beta, pixels, channels, eps, activation);
}

// dy behind a ReLU of factor (x - centre) + shift, the number that `batch_norm` had: computed again, since y would be
// a third array to read.
__device__ inline REAL passed(REAL dy, REAL x, REAL factor, REAL centre, REAL shift, bool relu) {
    return !relu || factor * (x - centre) + shift > 0 ? dy : REAL(0);
}

// partial (2, parts, channels): sums of dy z, and of dy, over each block's pixels. beta: null where no ReLU follows.
template <int V>
__device__ void grad_partial_body(Out<REAL> partial, In<REAL> dy, In<REAL> x, In<REAL> mean, In<REAL> var,
                                  In<REAL> gamma, In<REAL> beta, int pixels, int channels, REAL eps, REAL* scratch) {
    const int c = first_channel<V>(), parts = int(gridDim.y);
    Group<V> dgamma = {}, dbeta = {};
    if (c < channels) {
        REAL each[V], centre[V], factor[V], shift[V];
#pragma unroll
        for (int e = 0; e < V; e++) {
            each[e] = 1 / sqrt(var[c + e] + eps);
            centre[e] = mean[c + e];
            factor[e] = gamma[c + e] / sqrt(var[c + e] + eps);
            shift[e] = beta ? beta[c + e] : 0;
        }
        each_pixel<V>(dy, x, pixels, channels, c, [&](int, const Group<V>& d, const Group<V>& g) {
#pragma unroll
            for (int e = 0; e < V; e++) {
                const REAL rest = passed(d.e[e], g.e[e], factor[e], centre[e], shift[e], bool(beta));
                dgamma.e[e] += rest * ((g.e[e] - centre[e]) * each[e]);
                dbeta.e[e] += rest;
            }
        });
    }
#pragma unroll
    for (int e = 0; e < V; e++) {
        const REAL a = column_sum(dgamma.e[e], scratch), b = column_sum(dbeta.e[e], scratch);
        if (threadIdx.y == 0 && c < channels) {
            partial[int(blockIdx.y) * channels + c + e] = a;
            partial[(parts + int(blockIdx.y)) * channels + c + e] = b;
        }
    }
}

extern "C" __global__ void batch_norm_grad_partial(Out<REAL> partial, In<REAL> dy, In<REAL> x, In<REAL> mean,
                                                   In<REAL> var, In<REAL> gamma, In<REAL> beta, int pixels,
                                                   int channels, REAL eps, int wide) {
    __shared__ REAL scratch[256];
    if (wide) grad_partial_body<VECTOR>(partial, dy, x, mean, var, gamma, beta, pixels, channels, eps, scratch);
    else grad_partial_body<1>(partial, dy, x, mean, var, gamma, beta, pixels, channels, eps, scratch);
}

template <int V>
__device__ void grad_body(Out<REAL> dx, In<REAL> dy, In<REAL> x, In<REAL> mean, In<REAL> var, In<REAL> gamma,
                          In<REAL> beta, In<REAL> dgamma, In<REAL> dbeta, int pixels, int channels, REAL eps,
                          REAL moving) {
    const int c = first_channel<V>();
    if (c >= channels) return;
    REAL factor[V], centre[V], shift[V], each[V], flat[V], slope[V];
#pragma unroll
    for (int e = 0; e < V; e++) {
        each[e] = 1 / sqrt(var[c + e] + eps);
        factor[e] = gamma[c + e] / sqrt(var[c + e] + eps);
        centre[e] = mean[c + e];
        shift[e] = beta ? beta[c + e] : 0;
        flat[e] = moving * dbeta[c + e];
        slope[e] = moving * dgamma[c + e];
    }
    each_pixel<V>(dy, x, pixels, channels, c, [&](int k, Group<V> d, const Group<V>& g) {
#pragma unroll
        for (int e = 0; e < V; e++)
            d.e[e] = factor[e] * (passed(d.e[e], g.e[e], factor[e], centre[e], shift[e], bool(beta)) -
                                  (flat[e] + (g.e[e] - centre[e]) * each[e] * slope[e]));
        store_group<V>(dx + k, d);
    });
}

// moving: 1 / pixels where mean and var move with x (training), else 0.
extern "C" __global__ void batch_norm_grad(Out<REAL> dx, In<REAL> dy, In<REAL> x, In<REAL> mean, In<REAL> var,
                                           In<REAL> gamma, In<REAL> beta, In<REAL> dgamma, In<REAL> dbeta,
                                           int pixels, int channels, REAL eps, REAL moving, int wide) {
    if (wide) grad_body<VECTOR>(dx, dy, x, mean, var, gamma, beta, dgamma, dbeta, pixels, channels, eps, moving);
    else grad_body<1>(dx, dy, x, mean, var, gamma, beta, dgamma, dbeta, pixels, channels, eps, moving);
}
