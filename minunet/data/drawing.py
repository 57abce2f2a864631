"""The per-pixel loop of the synthetic stack, compiled by Numba."""

from __future__ import annotations

import numpy as np

from minunet.jit import njit


@njit(nogil=True)
def wall_distance(centres, power, organelle, warp_y, warp_x, spacing, rim):
    """Distance of each pixel to the wall of its cell, the cell's number, and its place in the cell's organelle.

    centres (2, n, n) in px: centre [a, b] stays in its own square of side `spacing`, the square (rim, rim) having
    its corner at pixel (0, 0). A pixel belongs to the centre with the smallest d^2 - power; its distance to the
    wall towards another centre is half the difference of these values over the distance between the centres.
    Only the 5 x 5 squares around the pixel can matter. warp_y, warp_x (H, W): displacement of the plane in px.
    The last array is the distance from the organelle's centre over its radius, 9 where there is none.
    """
    n = power.shape[0]
    H, W = warp_y.shape
    depth = np.empty((H, W), np.float32)
    cell = np.empty((H, W), np.int32)
    blob = np.empty((H, W), np.float32)
    for i in range(H):
        for j in range(W):
            y = i + warp_y[i, j]
            x = j + warp_x[i, j]
            p = min(max(int(np.floor(y / spacing)) + rim, 2), n - 3)
            q = min(max(int(np.floor(x / spacing)) + rim, 2), n - 3)
            best, ba, bb = 1e30, 0, 0
            for a in range(p - 2, p + 3):
                for b in range(q - 2, q + 3):
                    d = (y - centres[0, a, b]) ** 2 + (x - centres[1, a, b]) ** 2 - power[a, b]
                    if d < best:
                        best, ba, bb = d, a, b
            cy, cx = centres[0, ba, bb], centres[1, ba, bb]
            wall = 1e30
            for a in range(max(ba - 2, 0), min(ba + 3, n)):
                for b in range(max(bb - 2, 0), min(bb + 3, n)):
                    if a != ba or b != bb:
                        d = (y - centres[0, a, b]) ** 2 + (x - centres[1, a, b]) ** 2 - power[a, b]
                        apart = np.sqrt((cy - centres[0, a, b]) ** 2 + (cx - centres[1, a, b]) ** 2)
                        wall = min(wall, (d - best) / (2 * apart))
            depth[i, j] = wall
            cell[i, j] = ba * n + bb
            radius = organelle[ba, bb]
            # an ellipse, 3 : 2, off the centre of its cell
            dy, dx = y - cy - 0.4 * radius, (x - cx + 0.5 * radius) / 1.5
            blob[i, j] = np.sqrt(dy * dy + dx * dx) / radius if radius > 0 else 9.0
    return depth, cell, blob
