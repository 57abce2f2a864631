"""Training tiles on the CPU: windows that are cut or deformed, and their grey values; border.py has the weights.

The loops release the GIL, so that a thread can prepare the next tile while the network computes on this one. A tile
is one thread's work: a step of the network takes far longer.
"""

from __future__ import annotations

import numpy as np

from minunet.backends import formulas
from minunet.backends.cpu.border import border_weights
from minunet.jit import njit

__all__ = ["add_noise", "border_weights", "deform", "deform_nearest", "gamma_curve", "spline_weights", "stretch"]

_splitmix = njit(formulas.splitmix)


def deform(y, x, places, nodes, *, cubic):
    H, W = x.shape[1:3]
    for n, (section, top, left, turns, flip) in enumerate(places.tolist()):
        h, w = _window(y, turns)
        rows, cols = mirrored(top, h, H), mirrored(left, w, W)
        if nodes is None:
            tile = x[section][rows[:, None], cols]
        else:
            tile = np.empty((h, w, x.shape[3]), x.dtype)
            _deform(x[section], rows, cols, spline_weights(rows, H), spline_weights(cols, W), nodes[n], cubic, tile)
        y[n] = _turned(tile, turns, flip)


def deform_nearest(y, labels, places, nodes, *, outside):
    H, W = labels.shape[1:]
    for n, (section, top, left, turns, flip) in enumerate(places.tolist()):
        h, w = _window(y, turns)
        rows, cols = mirrored(top, h, H), mirrored(left, w, W)
        if nodes is None:
            tile = labels[section][rows[:, None], cols]
        else:
            tile = np.empty((h, w), np.int32)
            down, across = spline_weights(rows, H), spline_weights(cols, W)
            _deform_nearest(labels[section], rows, cols, down, across, nodes[n], outside, tile)
        i, j = np.arange(top, top + h), np.arange(left, left + w)
        tile[(i < 0) | (i >= H)] = outside
        tile[:, (j < 0) | (j >= W)] = outside
        y[n] = _turned(tile, turns, flip)


def _window(y: np.ndarray, turns: int) -> tuple[int, int]:
    """Height and width of a tile of y before it is turned."""
    return y.shape[1:3] if turns % 2 == 0 else y.shape[2:0:-1]


def _turned(tile: np.ndarray, turns: int, flip: int) -> np.ndarray:
    return np.rot90(tile[:, ::-1] if flip else tile, turns)


def spline_weights(positions: np.ndarray, n: int) -> np.ndarray:
    """Weights (len(positions), 3) of the nodes at 0, (n-1)/2 and n-1: the spline of the contract as a sum of nodes.

    a (1 - t) + b t + M (t^3 - t) / 6 for t <= 1, and the mirror image of that (a and c exchanged) beyond.
    """
    t = 2.0 * positions / (n - 1) if n > 1 else np.zeros(len(positions))
    s = np.where(t <= 1, t, 2 - t)
    bend = (s**3 - s) / 4  # M (s^3 - s) / 6 per unit of a - 2 b + c
    near, far = 1 - s + bend, bend
    return np.stack([np.where(t <= 1, near, far), s - 2 * bend, np.where(t <= 1, far, near)], axis=1)


@njit(nogil=True)
def reflect(i, n):
    """Position i of the mirrored line ... 2 1 0 1 2 ... n-2 n-1 n-2 ..., as an index into 0 .. n-1."""
    if 0 <= i < n:
        return i
    if n == 1:
        return 0
    period = 2 * (n - 1)
    i = i % period
    return i if i < n else period - i


@njit(nogil=True)
def mirrored(start, count, n):
    """The positions start, start + 1, ... of the mirrored line as indices into 0 .. n-1."""
    out = np.empty(count, np.int64)
    for k in range(count):
        out[k] = reflect(start + k, n)
    return out


@njit(nogil=True)
def _bend(weights, nodes, along):
    """along[a, m] = sum over k of weights[k] nodes[a, k, m]: the spline's values on one row of the image, (2, 3)."""
    for a in range(2):
        for m in range(3):
            along[a, m] = weights[0] * nodes[a, 0, m] + weights[1] * nodes[a, 1, m] + weights[2] * nodes[a, 2, m]


@njit(nogil=True)
def _source(row, col, along, weights):
    """Where the pixel at (row, col) comes from: (row, col) + along @ weights."""
    y = row + along[0, 0] * weights[0] + along[0, 1] * weights[1] + along[0, 2] * weights[2]
    x = col + along[1, 0] * weights[0] + along[1, 1] * weights[1] + along[1, 2] * weights[2]
    return y, x


@njit(nogil=True)
def _deform(image, rows, cols, down, across, nodes, cubic, out):
    """out[i, j, :] = image at (rows[i], cols[j]) + displacement, between pixels by cubic or linear sampling.

    image (H, W, C), rows (h,) and cols (w,) indices into it, down (h, 3) and across (w, 3) the spline weights of
    the three nodes, nodes (2, 3, 3) displacements in pixels (vertical, horizontal). Mirror border. Cubic: Keys'
    kernel with a = -1/2 (Catmull-Rom), which passes through the pixels and reproduces parabolas.
    """
    H, W, C = image.shape
    wy = np.empty(4)
    wx = np.empty(4)
    iy = np.empty(4, np.int64)
    ix = np.empty(4, np.int64)
    along = np.empty((2, 3))
    for i in range(rows.size):
        _bend(down[i], nodes, along)
        for j in range(cols.size):
            y, x = _source(rows[i], cols[j], along, across[j])
            y0 = int(np.floor(y))
            x0 = int(np.floor(x))
            if cubic:
                _keys(y - y0, wy)
                _keys(x - x0, wx)
                taps, y0, x0 = 4, y0 - 1, x0 - 1
            else:
                wy[0], wy[1] = 1 - (y - y0), y - y0
                wx[0], wx[1] = 1 - (x - x0), x - x0
                taps = 2
            for t in range(taps):
                iy[t] = reflect(y0 + t, H)
                ix[t] = reflect(x0 + t, W)
            for c in range(C):
                total = 0.0
                for t in range(taps):
                    line = 0.0
                    for u in range(taps):
                        line += wx[u] * image[iy[t], ix[u], c]
                    total += wy[t] * line
                out[i, j, c] = total


@njit(nogil=True)
def _keys(f, w):
    w[0] = ((-0.5 * f + 1.0) * f - 0.5) * f
    w[1] = (1.5 * f - 2.5) * f * f + 1.0
    w[2] = ((-1.5 * f + 2.0) * f + 0.5) * f
    w[3] = (0.5 * f - 0.5) * f * f


@njit(nogil=True)
def _deform_nearest(labels, rows, cols, down, across, nodes, outside, out):
    """As `_deform` for labels (H, W): the nearest pixel, `outside` where it lies beyond the border."""
    H, W = labels.shape
    along = np.empty((2, 3))
    for i in range(rows.size):
        _bend(down[i], nodes, along)
        for j in range(cols.size):
            y, x = _source(rows[i], cols[j], along, across[j])
            p = int(np.floor(y + 0.5))
            q = int(np.floor(x + 0.5))
            out[i, j] = labels[p, q] if 0 <= p < H and 0 <= q < W else outside


def gamma_curve(y, x, powers):
    one = x.dtype.type(1)
    for tile, source, power in zip(y, x, powers):
        tile[...] = source
        low, high = source.min(), source.max()
        if high > low:
            tile -= low
            tile *= one / (high - low)
            np.clip(tile, 0, 1, out=tile)  # the two roundings above may leave 1 by one unit
            np.power(tile, power, out=tile)
            tile *= high - low
            tile += low


def stretch(y, x, factor, shift):
    np.multiply(x, factor[:, None, None], out=y)
    y += shift[:, None, None]


def add_noise(y, x, sd, *, seed):
    size = x.size // max(len(sd), 1)
    for n, tile in enumerate(x.reshape(len(sd), size)):
        _add_noise(y[n].reshape(-1), tile, sd[n], np.uint64(seed), np.uint64(2 * n * size))


@njit(nogil=True)
def _add_noise(y, x, sd, seed, first):
    """`first`: the number of the first draw. Numba makes float of signed with unsigned, so all here is uint64."""
    unit = 2.0**-24
    for k in range(x.size):
        draw = first + np.uint64(2) * np.uint64(k)
        u = (_splitmix(seed, draw) + np.uint64(1)) * unit
        v = _splitmix(seed, draw + np.uint64(1)) * unit
        y[k] = x[k] + sd * np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)
