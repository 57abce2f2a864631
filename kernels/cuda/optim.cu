// Optimiser updates, in place: parameters and state may be one flat buffer for a whole network.
//
// Math     minunet/contract/optim.py
// Layout   any shape, contiguous: n elements
// Threads  flat: thread t takes the groups of 16 bytes t, t + T, t + 2T ..., T = threads of the grid
// Memory   sgd: 12 bytes read and 8 written for each float; adam: 16 and 12
// Limit    DRAM bandwidth
// Step     one pass: decay, moments and update without a temporary array
// Needs    an output may be the input of its place; no other two arrays share memory
#include "vector.cuh"

// f(array of the inputs' values at k) turns inputs into outputs, element by element; in[0 .. OUTPUTS) become outputs.
template <int OUTPUTS, int INPUTS, class F>
__device__ void update(InOut<REAL> (&out)[OUTPUTS], InOut<REAL> (&in)[INPUTS], int n, int vectors, F f) {
    for (int v = global_thread(); v < vectors; v += global_threads()) {
        Vector a[INPUTS];
#pragma unroll
        for (int i = 0; i < INPUTS; i++) a[i] = load_vector(in[i] + v * VECTOR);
#pragma unroll
        for (int e = 0; e < VECTOR; e++) {
            REAL one[INPUTS];
#pragma unroll
            for (int i = 0; i < INPUTS; i++) one[i] = a[i].e[e];
            f(one);
#pragma unroll
            for (int i = 0; i < OUTPUTS; i++) a[i].e[e] = one[i];
        }
#pragma unroll
        for (int i = 0; i < OUTPUTS; i++) store_vector(out[i] + v * VECTOR, a[i]);
    }
    for (int k = vectors * VECTOR + global_thread(); k < n; k += global_threads()) {
        REAL one[INPUTS];
#pragma unroll
        for (int i = 0; i < INPUTS; i++) one[i] = in[i][k];
        f(one);
#pragma unroll
        for (int i = 0; i < OUTPUTS; i++) out[i][k] = one[i];
    }
}

extern "C" __global__ void sgd(InOut<REAL> p_out, InOut<REAL> velocity_out, InOut<REAL> p, InOut<REAL> velocity,
                               InOut<REAL> g, int n, int vectors, REAL lr, REAL momentum, REAL weight_decay,
                               int nesterov) {
    InOut<REAL> out[] = {p_out, velocity_out}, in[] = {p, velocity, g};
    update(out, in, n, vectors, [=](REAL(&a)[3]) {
        const REAL h = a[2] + weight_decay * a[0];
        a[1] = momentum * a[1] + h;
        a[0] -= lr * (nesterov ? h + momentum * a[1] : a[1]);
    });
}

// correct1, correct2: 1 / (1 - beta^step), by the launcher in double.
extern "C" __global__ void adam(InOut<REAL> p_out, InOut<REAL> m_out, InOut<REAL> v_out, InOut<REAL> p, InOut<REAL> m,
                                InOut<REAL> v, InOut<REAL> g, int n, int vectors, REAL lr, REAL beta1, REAL beta2,
                                REAL rest1, REAL rest2, REAL eps, REAL weight_decay, REAL correct1, REAL correct2) {
    InOut<REAL> out[] = {p_out, m_out, v_out}, in[] = {p, m, v, g};
    update(out, in, n, vectors, [=](REAL(&a)[4]) {
        const REAL h = a[3] + weight_decay * a[0];
        a[1] = beta1 * a[1] + rest1 * h;  // rest1 = 1 - beta1, exact before it is rounded
        a[2] = beta2 * a[2] + rest2 * h * h;
        a[0] -= lr * (a[1] * correct1) / (sqrt(a[2] * correct2) + eps);
    });
}
