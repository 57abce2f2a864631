"""Training tiles: windows of sections, cut or deformed by a spline through 3 x 3 nodes, flipped and turned.

Math     y[n,i,j,c] = x[section] at the place that tile n shows at (i, j), plus the spline's displacement there:
         16 pixels (cubic) or 4 (linear) around it, each weighted by its nearness; labels take the nearest pixel
Layout   x (S, H, W, C), labels (S, H, W), y (N, OH, OW, C); places (N, 5): section, top, left, turns, flip;
         nodes (N, 2, 3, 3) in double
Threads  x channels, y columns, z rows of the tiles
Memory   output once; the window once from DRAM, its repeats from L1
Limit    plain cuts: DRAM bandwidth; deformed ones: double arithmetic, on consumer GPUs 1/64 of single
Step     a kernel for plain cuts, which have no nodes; in the twin a null pointer says so
Needs    places inside of the stack
Twin     kernels/cuda/augment.cu
"""

from __future__ import annotations

from numba import cuda


@cuda.jit(device=True)
def _mirrored(i, n):
    """Position i of the line ... 2 1 0 1 2 ... n-2 n-1 n-2 ..., as an index into 0 .. n-1."""
    if n == 1:
        return 0
    i = abs(i) % (2 * (n - 1))
    return i if i < n else 2 * (n - 1) - i


@cuda.jit(device=True)
def _shown(place, i, j, h, w):
    """Row and column of the section that the tile (h, w) shows at (i, j): rot90(window[:, ::-1] if flip, turns)."""
    turns = place[3]
    if turns == 0:
        down, across = i, j
    elif turns == 1:
        down, across = j, h - 1 - i
    elif turns == 2:
        down, across = h - 1 - i, w - 1 - j
    else:
        down, across = w - 1 - j, i
    if place[4] != 0:
        across = (h if turns % 2 == 1 else w) - 1 - across
    return place[1] + down, place[2] + across


@cuda.jit(device=True)
def _spline(i, n):
    """Weights at i of the natural cubic spline's nodes at 0, (n-1)/2 and n-1."""
    t = 2.0 * i / (n - 1) if n > 1 else 0.0
    s = t if t <= 1.0 else 2.0 - t
    bend = (s * s * s - s) / 4.0
    near, far = 1.0 - s + bend, bend
    return near if t <= 1.0 else far, s - 2.0 * bend, far if t <= 1.0 else near


@cuda.jit(device=True)
def _moved(nodes, down, across):
    """The spline's value for the weights of both axes; nodes (3, 3)."""
    total = 0.0
    for m in range(3):
        total += (down[0] * nodes[0, m] + down[1] * nodes[1, m] + down[2] * nodes[2, m]) * across[m]
    return total


@cuda.jit(device=True)
def _source(nodes, row, column, h, w):
    """(row, column), which lies in the section (h, w), plus the displacement there; nodes (2, 3, 3)."""
    down, across = _spline(row, h), _spline(column, w)
    return row + _moved(nodes[0], down, across), column + _moved(nodes[1], down, across)


@cuda.jit(device=True)
def _floor(a):
    """The integer at or below `a`; math.floor gives a float on the GPU, which is no index."""
    low = int(a)
    return low - 1 if low > a else low


@cuda.jit(device=True)
def _nearness(f, cubic):
    """Weights of the pixels at -1, 0, 1, 2 for a place at 0 <= f < 1: Keys' cubic, a = -1/2, or linear."""
    if not cubic:
        return 0.0, 1.0 - f, f, 0.0
    return (
        ((-0.5 * f + 1.0) * f - 0.5) * f,
        (1.5 * f - 2.5) * f * f + 1.0,
        ((-1.5 * f + 2.0) * f + 0.5) * f,
        (0.5 * f - 0.5) * f * f,
    )


@cuda.jit
def cut(y, x, places):
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, OH, OW, C = y.shape
    H, W = x.shape[1], x.shape[2]
    for row in range(row0, N * OH, rows):
        n, i = row // OH, row % OH
        for j in range(j0, OW, js):
            r, q = _shown(places[n], i, j, OH, OW)
            for c in range(c0, C, cs):
                y[n, i, j, c] = x[places[n, 0], _mirrored(r, H), _mirrored(q, W), c]


@cuda.jit
def deform(y, x, places, nodes, cubic):
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, OH, OW, C = y.shape
    H, W = x.shape[1], x.shape[2]
    for row in range(row0, N * OH, rows):
        n, i = row // OH, row % OH
        for j in range(j0, OW, js):
            r, q = _shown(places[n], i, j, OH, OW)
            at_row, at_column = _source(nodes[n], _mirrored(r, H), _mirrored(q, W), H, W)
            top, left = _floor(at_row), _floor(at_column)
            down, across = _nearness(at_row - top, cubic), _nearness(at_column - left, cubic)
            for c in range(c0, C, cs):
                total = 0.0
                for u in range(4):
                    line = 0.0
                    for v in range(4):
                        a, b = _mirrored(top + u - 1, H), _mirrored(left + v - 1, W)
                        line += across[v] * x[places[n, 0], a, b, c]
                    total += down[u] * line
                y[n, i, j, c] = total


@cuda.jit
def cut_labels(y, labels, places, outside):
    """y (N, OH, OW, 1), labels (S, H, W)."""
    _, j0, row0 = cuda.grid(3)
    _, js, rows = cuda.gridsize(3)
    N, OH, OW, _ = y.shape
    H, W = labels.shape[1], labels.shape[2]
    for row in range(row0, N * OH, rows):
        n, i = row // OH, row % OH
        for j in range(j0, OW, js):
            r, q = _shown(places[n], i, j, OH, OW)
            known = 0 <= r < H and 0 <= q < W
            y[n, i, j, 0] = labels[places[n, 0], r, q] if known else outside


@cuda.jit
def deform_labels(y, labels, places, nodes, outside):
    """As `cut_labels`. Double decides which pixel is the nearest, as on the host."""
    _, j0, row0 = cuda.grid(3)
    _, js, rows = cuda.gridsize(3)
    N, OH, OW, _ = y.shape
    H, W = labels.shape[1], labels.shape[2]
    for row in range(row0, N * OH, rows):
        n, i = row // OH, row % OH
        for j in range(j0, OW, js):
            r, q = _shown(places[n], i, j, OH, OW)
            label = outside
            if 0 <= r < H and 0 <= q < W:
                at_row, at_column = _source(nodes[n], r, q, H, W)
                r, q = _floor(at_row + 0.5), _floor(at_column + 0.5)
                if 0 <= r < H and 0 <= q < W:
                    label = labels[places[n, 0], r, q]
            y[n, i, j, 0] = label
