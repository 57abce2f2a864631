"""U-Net's border weights: large where two cells are near.

Math     y[n,i,j] = w0 exp(-(d1 + d2)^2 / (2 sigma^2)), d1 and d2 the distances to the nearest pixels of the two
         nearest cells; 0 with fewer than two of them within reach
Layout   cells (N, H, W), 0 between cells; y (N, OH, OW, 1), the cells' middle
Threads  y columns, z rows of y
Memory   output once; cells once from DRAM, and (2 reach + 1)^2 times from L1: a warp's reads are neighbours
Limit    issue rate: some instructions for each pixel of the square of side 2 reach + 1
Step     every pixel for itself, where the CPU makes a distance transform for each cell
Needs    nothing
Twin     kernels/cuda/border.cu
"""

from __future__ import annotations

import math

from numba import cuda


@cuda.jit
def border_weights(y, cells, reach, w0, sigma, everywhere):
    _, j0, row0 = cuda.grid(3)
    _, js, rows = cuda.gridsize(3)
    N, OH, OW, _ = y.shape
    H, W = cells.shape[1], cells.shape[2]
    rim, far = (H - OH) // 2, reach * reach + 1
    for row in range(row0, N * OH, rows):
        n, r = row // OH, row % OH + rim
        for j in range(j0, OW, js):
            q = j + rim
            nearest, first, second = 0, far, far  # the nearest cell, and squares of the two distances
            if everywhere or cells[n, r, q] <= 0:
                for u in range(max(r - reach, 0), min(r + reach + 1, H)):
                    for v in range(max(q - reach, 0), min(q + reach + 1, W)):
                        cell = cells[n, u, v]
                        d = (u - r) * (u - r) + (v - q) * (v - q)
                        if cell > 0 and d < second:
                            if cell == nearest:
                                first = min(first, d)
                            elif d < first:  # what was the nearest is now the second
                                nearest, first, second = cell, d, first
                            else:
                                second = d
            total = math.sqrt(float(first)) + math.sqrt(float(second))
            y[n, r - rim, j, 0] = w0 * math.exp(-(total * total) / (2.0 * sigma * sigma)) if second < far else 0.0
