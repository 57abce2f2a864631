// Filters in the order in which a step reads them, and images in 16-bit numbers: copies before the work.
//
// Math     by_k[q, r, k, n] = by_n[n, q, r, k] = w[first + q step_q + r step_r + k step_k + n step_n], zero for k >= K
//          or n >= F. k is the channel that is summed over, n that of the result, (q, r) the tap: forward k = c, n = o;
//          gradient in x k = o, n = c, and negative steps turn the filter
// Layout   w (O, KH, KW, C) as it is; by_k (Q, R, Kp, Fp) and by_n (Fp, Q, R, Kp), sizes rounded up to whole tiles
// Threads  one number of the result each, in its order
// Memory   w is read once, in the worst case 32 bytes for 4; 31 M weights, the whole of U-Net, are 250 MB of traffic
// Limit    bandwidth; 0.1 % of a layer's time at 64 channels
// Step     none: steps 2 to 8 use it. Padding with zeros here saves them every mask on filters
// Needs    nothing
#include "ptx.cuh"

__device__ inline REAL filter(In<REAL> w, int q, int r, int k, int n, int K, int F, int first, int step_q, int step_r,
                              int step_k, int step_n) {
    return k < K && n < F ? w[first + q * step_q + r * step_r + k * step_k + n * step_n] : REAL(0);
}

extern "C" __global__ void __launch_bounds__(256)
    pack_by_k(Out<REAL> out, In<REAL> w, int total, int R, int K, int Kp, int F, int Fp, int first, int step_q,
              int step_r, int step_k, int step_n) {
    for (int t = global_thread(); t < total; t += global_threads()) {
        const int tap = t / (Kp * Fp), k = t / Fp % Kp, n = t % Fp;
        out[t] = filter(w, tap / R, tap % R, k, n, K, F, first, step_q, step_r, step_k, step_n);
    }
}

// Rounded to tf32, so that the tensor core, which drops the low bits, has none to drop.
extern "C" __global__ void __launch_bounds__(256)
    pack_by_n_tf32(Out<float> out, In<REAL> w, int total, int taps, int R, int K, int Kp, int F, int first, int step_q,
                   int step_r, int step_k, int step_n) {
    for (int t = global_thread(); t < total; t += global_threads()) {
        const int n = t / (taps * Kp), tap = t / Kp % taps, k = t % Kp;
        const REAL a = filter(w, tap / R, tap % R, k, n, K, F, first, step_q, step_r, step_k, step_n);
        out[t] = __uint_as_float(to_tf32(float(a)));
    }
}

extern "C" __global__ void __launch_bounds__(256)
    pack_by_n_half(Out<u16> out, In<REAL> w, int total, int taps, int R, int K, int Kp, int F, int first, int step_q,
                   int step_r, int step_k, int step_n, int bf16) {
    for (int t = global_thread(); t < total; t += global_threads()) {
        const int n = t / (taps * Kp), tap = t / Kp % taps, k = t % Kp;
        const float a = float(filter(w, tap / R, tap % R, k, n, K, F, first, step_q, step_r, step_k, step_n));
        out[t] = u16(bf16 ? pack_bf16(a, 0) : pack_f16(a, 0));
    }
}

// y (pixels, Cp) in 16 bits of x (pixels, C), zero behind C. Cp is a multiple of 8: 16 bytes never cross a pixel.
extern "C" __global__ void __launch_bounds__(256) to_half(Out<u16> y, In<REAL> x, int total, int C, int Cp, int bf16) {
    for (int t = global_thread(); t < total; t += global_threads()) {
        const int c = t % Cp;
        const float a = c < C ? float(x[t / Cp * C + c]) : 0.0f;
        y[t] = u16(bf16 ? pack_bf16(a, 0) : pack_f16(a, 0));
    }
}
