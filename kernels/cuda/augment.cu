// Training tiles: windows of sections, cut or deformed by a spline through 3 x 3 nodes, flipped and turned.
//
// Math     y[n,i,j,c] = x[section] at the place that tile n shows at (i, j), plus the spline's displacement there:
//          16 pixels (cubic) or 4 (linear) around it, each weighted by its nearness; labels take the nearest pixel
// Layout   x (S, H, W, C), labels (S, H, W), y (N, OH, OW, C); places (N, 5): section, top, left, turns, flip;
//          nodes (N, 2, 3, 3) in double, null for a plain cut
// Threads  maps.cuh: threadIdx.x channels, threadIdx.y columns, blockIdx.y rows of the tiles
// Memory   output once; the window once from DRAM, its repeats from L1; places and nodes from L1, all threads alike
// Limit    a plain cut: DRAM bandwidth; deformed: some 60 double operations a pixel for the place, which consumer GPUs
//          do at 1/64 rate: 572 x 572 pixels are 20 MFLOP, so still far below the network's time
// Step     turns are undone in the indices of the reads, so that the tile is written in order; a window turned by 90
//          degrees is read down its columns, a sector of 32 bytes for each pixel until L1 has them
// Needs    places inside of the stack; displacements within the range of an int
#include "maps.cuh"

// Position i of the line ... 2 1 0 1 2 ... n-2 n-1 n-2 ..., as an index into 0 .. n-1.
__device__ inline int mirrored(int i, int n) {
    if (n == 1) return 0;
    i = abs(i) % (2 * (n - 1));
    return i < n ? i : 2 * (n - 1) - i;
}

struct Shown {  // what a tile shows: the place may lie beyond the section
    int section, row, column;
};

// What tile n (h, w) shows at (i, j): rot90(window[:, ::-1] if flip, turns), undone for one pixel.
__device__ inline Shown shown(In<int> places, int n, int i, int j, int h, int w) {
    In<int> p = places + n * 5;  // section, top, left, turns, flip
    const int turns = p[3];
    const int down = turns == 0 ? i : turns == 1 ? j : turns == 2 ? h - 1 - i : w - 1 - j;
    int across = turns == 0 ? j : turns == 1 ? h - 1 - i : turns == 2 ? w - 1 - j : i;
    if (p[4]) across = (turns % 2 ? h : w) - 1 - across;
    return {p[0], p[1] + down, p[2] + across};
}

// Weights at i of the natural cubic spline's nodes at 0, (n-1)/2 and n-1.
__device__ inline void spline(int i, int n, double& first, double& middle, double& last) {
    const double t = n > 1 ? 2.0 * i / (n - 1) : 0.0, s = t <= 1 ? t : 2 - t;
    const double bend = (s * s * s - s) / 4, near = 1 - s + bend;
    first = t <= 1 ? near : bend;
    middle = s - 2 * bend;
    last = t <= 1 ? bend : near;
}

struct Source {
    double row, column;
};

// (row, column), which lies in the section, plus the displacement there; nodes (2, 3, 3) of this tile.
__device__ inline Source source(In<double> nodes, int row, int column, int H, int W) {
    double a, b, c, moved[2];
    spline(row, H, a, b, c);
    double d, e, f;
    spline(column, W, d, e, f);
#pragma unroll
    for (int k = 0; k < 2; k++) {
        In<double> m = nodes + k * 9;
        const double left = a * m[0] + b * m[3] + c * m[6], middle = a * m[1] + b * m[4] + c * m[7],
                     right = a * m[2] + b * m[5] + c * m[8];
        moved[k] = left * d + middle * e + right * f;
    }
    return {row + moved[0], column + moved[1]};
}

// Weights of the pixels at -1, 0, 1, 2 for a place at 0 <= f < 1: Keys' cubic, a = -1/2, or linear.
__device__ inline void nearness(REAL f, int cubic, REAL (&w)[4]) {
    w[0] = cubic ? ((REAL(-0.5) * f + 1) * f - REAL(0.5)) * f : REAL(0);
    w[1] = cubic ? (REAL(1.5) * f - REAL(2.5)) * f * f + 1 : 1 - f;
    w[2] = cubic ? ((REAL(-1.5) * f + 2) * f + REAL(0.5)) * f : f;
    w[3] = cubic ? (REAL(0.5) * f - REAL(0.5)) * f * f : REAL(0);
}

// Channel c of section (H, W, C) at a place between pixels.
__device__ inline REAL sampled(In<REAL> section, const Source& at, int H, int W, int C, int c, int cubic) {
    const double top = floor(at.row), left = floor(at.column);
    REAL down[4], across[4], sum = 0;
    nearness(REAL(at.row - top), cubic, down);
    nearness(REAL(at.column - left), cubic, across);
#pragma unroll
    for (int u = 0; u < 4; u++) {
        if (!cubic && (u == 0 || u == 3)) continue;
        In<REAL> row = section + mirrored(int(top) + u - 1, H) * W * C;
        REAL line = 0;
#pragma unroll
        for (int v = 0; v < 4; v++) {
            if (!cubic && (v == 0 || v == 3)) continue;
            line += across[v] * row[mirrored(int(left) + v - 1, W) * C + c];
        }
        sum += down[u] * line;
    }
    return sum;
}

extern "C" __global__ void __launch_bounds__(256) deform(Out<REAL> y, In<REAL> x, In<int> places, In<double> nodes,
                                                         int N, int OH, int OW, int C, int H, int W, int cubic) {
    each_position<1>(N, OH, OW, C, [=](int n, int i, int j, int c, int k) {
        const Shown at = shown(places, n, i, j, OH, OW);
        const int row = mirrored(at.row, H), column = mirrored(at.column, W);
        In<REAL> section = x + at.section * H * W * C;
        if (nodes) y[k] = sampled(section, source(nodes + n * 18, row, column, H, W), H, W, C, c, cubic);
        else y[k] = section[(row * W + column) * C + c];
    });
}

// Labels, of one channel. Double decides which pixel is the nearest, as on the host.
extern "C" __global__ void __launch_bounds__(256)
    deform_nearest(Out<int> y, In<int> labels, In<int> places, In<double> nodes, int N, int OH, int OW, int H, int W,
                   int outside) {
    each_position<1>(N, OH, OW, 1, [=](int n, int i, int j, int, int k) {
        const Shown at = shown(places, n, i, j, OH, OW);
        int row = at.row, column = at.column;
        bool known = row >= 0 && row < H && column >= 0 && column < W;
        if (known && nodes) {
            const Source from = source(nodes + n * 18, row, column, H, W);
            row = int(floor(from.row + 0.5));
            column = int(floor(from.column + 0.5));
            known = row >= 0 && row < H && column >= 0 && column < W;
        }
        y[k] = known ? labels[(at.section * H + row) * W + column] : outside;
    });
}
