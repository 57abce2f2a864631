// A convolution as the steps from the second on see it: rows of a matrix are pixels of the result, columns its
// channels, and the sum runs over taps and channels of the source.
//
// One kernel serves forward and both kinds of gradient in x. With stride 1 the gradient is a convolution of dy with
// the filter turned by 180 degrees. With stride s the pixels of dx fall into s x s phases by (h + top) % s, and each
// phase is such a convolution with every s-th tap, whose results lie s apart: so a result pixel (n, i, j) is written
// at (n, i si + i0, j sj + j0) of an image of YH x YW. Forward: si = sj = 1, i0 = j0 = 0.
#pragma once
#include "common.cuh"

// Pixel of a tap: x[n, h, w, :]. `in` is false outside of the image, where x counts as zero.
struct Source {
    int n, h, w;

    // Where result pixel p of (N, OH, OW) reads for tap (0, 0), which may lie outside.
    void start(int p, int OH, int OW, int sh, int sw, int top, int left) {
        n = p / (OH * OW), h = p / OW % OH * sh - top, w = p % OW * sw - left;
    }
    bool in(int dy, int dx, int H, int W) const { return h + dy >= 0 && h + dy < H && w + dx >= 0 && w + dx < W; }
    int pixel(int dy, int dx, int H, int W) const { return (n * H + h + dy) * W + w + dx; }
};

// Where result pixel p lies in the image that it is written to.
__device__ inline int target(int p, int OH, int OW, int YH, int YW, int si, int sj, int i0, int j0) {
    return (p / (OH * OW) * YH + p / OW % OH * si + i0) * YW + p % OW * sj + j0;
}

// A block's part of the sum: chunks of BK channels of a tap, one after the other, blockIdx.z-th of parts of `each`.
// With several parts a block's results are partial sums, (parts, N, YH, YW, O), which split.cu adds up.
template <int BK>
struct Chunks {
    int first, end;  // of the block's part
    int u, v, c0;    // of the next chunk: its tap and first channel

    void start(int KH, int KW, int Cp, int each) {
        const int tap = int(blockIdx.z) * each / (Cp / BK);
        first = int(blockIdx.z) * each, end = min(first + each, KH * KW * (Cp / BK));
        u = KW ? tap / KW : 0, v = KW ? tap % KW : 0;  // a phase of a strided gradient may have no tap
        c0 = first % (Cp / BK) * BK;
    }
    void next(int KW, int Cp) {
        c0 += BK;
        if (c0 < Cp) return;
        c0 = 0, v += 1;
        if (v < KW) return;
        v = 0, u += 1;
    }
};

// Where a block's part of the results starts.
__device__ inline int part(int N, int YH, int YW, int O) { return int(blockIdx.z) * N * YH * YW * O; }
