// U-Net's border weights: large where two cells are near.
//
// Math     y[n,i,j] = w0 exp(-(d1 + d2)^2 / (2 sigma^2)), d1 and d2 the distances to the nearest pixels of the two
//          nearest cells; 0 with fewer than two of them within reach
// Layout   cells (N, H, W), 0 between cells; y (N, OH, OW), the cells' middle
// Threads  maps.cuh: threadIdx.y columns, blockIdx.y rows of y
// Memory   output once; cells once from DRAM, and (2 reach + 1)^2 times from L1: a warp's reads are neighbours
// Limit    issue rate: four instructions for each pixel of the square of side 2 reach + 1; sigma 5 has 61 x 61, which
//          makes 0.14 G steps for 192 x 192 pixels
// Step     every pixel for itself. The CPU's distance transforms need a pass over a cell's box for each cell, one cell
//          after the other; here all pixels are under way at once
// Needs    reach < 2^15
#include "maps.cuh"

extern "C" __global__ void border_weights(Out<float> y, In<int> cells, int N, int OH, int OW, int H, int W, int reach,
                                          double w0, double sigma, int everywhere) {
    const int rim = (H - OH) / 2;
    each_position<1>(N, OH, OW, 1, [=](int n, int i, int j, int, int k) {
        const int row = i + rim, column = j + rim;
        In<int> section = cells + n * H * W;
        const int far = reach * reach + 1;
        int nearest = 0, first = far, second = far;  // the nearest cell, and squares of the two distances
        if (everywhere || section[row * W + column] <= 0)
            for (int u = max(row - reach, 0); u <= min(row + reach, H - 1); u++)
                for (int v = max(column - reach, 0); v <= min(column + reach, W - 1); v++) {
                    const int cell = section[u * W + v];
                    const int d = (u - row) * (u - row) + (v - column) * (v - column);
                    if (cell <= 0 || d >= second) continue;
                    if (cell == nearest) {
                        first = min(first, d);
                    } else if (d < first) {  // what was the nearest is now the second
                        second = first;
                        first = d;
                        nearest = cell;
                    } else {
                        second = d;
                    }
                }
        const double sum = sqrt(double(first)) + sqrt(double(second));
        y[k] = second < far ? float(w0 * exp(-(sum * sum) / (2 * sigma * sigma))) : 0.0f;
    });
}
