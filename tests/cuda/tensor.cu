// Tensor-core wrappers by themselves: one warp, one product, fragments given register by register or by ldmatrix.
#include "ptx.cuh"

// d (32, 4) += products of fragments a (32, 4), b (32, 2): the registers of each lane, in its row.
__device__ void product(Out<float> d, In<unsigned> a, In<unsigned> b, int kind) {
    const int lane = int(threadIdx.x);
    float sum[4];
    unsigned fa[4], fb[2];
    for (int k = 0; k < 4; k++) {
        sum[k] = d[lane * 4 + k];
        fa[k] = a[lane * 4 + k];
    }
    for (int k = 0; k < 2; k++) fb[k] = b[lane * 2 + k];
    if (kind == 0) mma_tf32(sum, fa, fb);
    if (kind == 1) mma_bf16(sum, fa, fb);
    if (kind == 2) mma_f16(sum, fa, fb);
    for (int k = 0; k < 4; k++) d[lane * 4 + k] = sum[k];
}

extern "C" __global__ void product_tf32(Out<float> d, In<unsigned> a, In<unsigned> b) { product(d, a, b, 0); }
extern "C" __global__ void product_bf16(Out<float> d, In<unsigned> a, In<unsigned> b) { product(d, a, b, 1); }
extern "C" __global__ void product_f16(Out<float> d, In<unsigned> a, In<unsigned> b) { product(d, a, b, 2); }

// d (16, 8) = a (16, 16) b, b as (8, 16) rows of k or, transposed, as (16, 8): bf16 bits, through shared memory.
__device__ void through_shared(Out<float> d, In<u16> a, In<u16> b, bool transposed, u16* ta, u16* tb) {
    const int lane = int(threadIdx.x), g = lane / 4, t = lane % 4, columns = transposed ? 8 : 16;
    for (int k = lane; k < 256; k += 32) ta[k / 16 * 24 + k % 16] = a[k];  // rows 48 bytes apart: eight rows, 32 banks
    for (int k = lane; k < 128; k += 32) tb[k / columns * 24 + k % columns] = b[k];
    __syncthreads();
    unsigned fa[4], fb[2];
    load_matrix_x4(fa, ta + lane % 16 * 24 + lane / 16 * 8);  // rows 0-7, 8-15 of k 0-7, then of k 8-15
    if (transposed) load_matrix_x2<true>(fb, tb + lane % 16 * 24);
    else load_matrix_x2(fb, tb + lane % 8 * 24 + lane / 8 % 2 * 8);
    float sum[4] = {0, 0, 0, 0};
    mma_bf16(sum, fa, fb);
    for (int k = 0; k < 4; k++) d[(g + k / 2 * 8) * 8 + 2 * t + k % 2] = sum[k];
}

extern "C" __global__ void bf16_rows(Out<float> d, In<u16> a, In<u16> b) {
    __shared__ __align__(16) u16 ta[16 * 24], tb[16 * 24];
    through_shared(d, a, b, false, ta, tb);
}

extern "C" __global__ void bf16_columns(Out<float> d, In<u16> a, In<u16> b) {
    __shared__ __align__(16) u16 ta[16 * 24], tb[16 * 24];
    through_shared(d, a, b, true, ta, tb);
}

// The conversions, each as the hardware rounds: tf32 as float bits, two bf16 and two f16 in a register, and back.
extern "C" __global__ void convert(Out<unsigned> tf32, Out<unsigned> bf16, Out<unsigned> f16, Out<float> from_bf16,
                                   Out<float> from_f16, In<float> x, int n) {
    const int k = global_thread();
    if (k >= n) return;
    tf32[k] = to_tf32(x[k]);
    bf16[k] = pack_bf16(x[k], -x[k]);
    f16[k] = pack_f16(x[k], -x[k]);
    from_bf16[k] = bf16_to_float(u16(bf16[k]));
    from_f16[k] = f16_to_float(u16(f16[k]));
}
