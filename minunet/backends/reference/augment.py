"""Training tiles: pixel by pixel where they come from, by the formulas of the contract."""

from __future__ import annotations

import numpy as np

from minunet.backends.reference.pointwise import uniform


def deform(y, x, places, nodes, *, cubic):
    """The deformed section at the window's places, between pixels by a weighted sum of its neighbours."""
    for n, (section, *window) in enumerate(places):
        r, q = _shown(window, y.shape[1:3])
        size, image = x.shape[1:3], x[section]
        if nodes is None:
            y[n] = image[_mirror(r, size[0]), _mirror(q, size[1])]
            continue
        r, q = _sources(r, q, size, nodes[n])
        y[n] = 0
        for u in range(-1, 3):
            for v in range(-1, 3):
                a, b = np.floor(r).astype(int) + u, np.floor(q).astype(int) + v
                weight = _kernel(r - a, cubic) * _kernel(q - b, cubic)
                y[n] += weight[:, :, None] * image[_mirror(a, size[0]), _mirror(b, size[1])]


def deform_nearest(y, labels, places, nodes, *, outside):
    """The label of the nearest pixel; `outside` where a mirror would show it."""
    _, h, w = labels.shape
    for n, (section, *window) in enumerate(places):
        r, q = _shown(window, y.shape[1:])
        known = (r >= 0) & (r < h) & (q >= 0) & (q < w)
        if nodes is not None:
            r, q = (np.floor(p + 0.5).astype(int) for p in _sources(r, q, (h, w), nodes[n]))
            known &= (r >= 0) & (r < h) & (q >= 0) & (q < w)
        y[n] = np.where(known, labels[section, _mirror(r, h), _mirror(q, w)], outside)


def _shown(window, size):
    """Rows and columns (h, w) of the section's plane that the tile shows, mirrored ones by their place beyond it."""
    top, left, turns, flip = window
    h, w = size if turns % 2 == 0 else size[::-1]
    r, q = np.meshgrid(top + np.arange(h), left + np.arange(w), indexing="ij")
    return (np.rot90(p[:, ::-1] if flip else p, turns) for p in (r, q))


def _mirror(p, n):
    """-2 -1 | 0 1 2 3 | 4 5 of size 4 is 2 1 | 0 1 2 3 | 2 1, and so on."""
    return np.abs((p + n - 1) % (2 * n - 2) - (n - 1)) if n > 1 else np.zeros_like(p)


def _sources(r, q, size, nodes):
    """Where what is shown at (r, q) was before the deformation."""
    r, q = (_mirror(p, n).astype(float) for p, n in zip((r, q), size))
    down, across = _spline(r, size[0]), _spline(q, size[1])  # (3, h, w)
    dr, dq = np.einsum("kij,akm,mij->aij", down, nodes, across)
    return r + dr, q + dq


def _spline(p, n):
    """(3, *p.shape): the spline through 1, 0, 0, through 0, 1, 0 and through 0, 0, 1 at the positions p."""
    t = 2 * p / (n - 1) if n > 1 else np.zeros_like(p)
    splines = []
    for a, b, c in np.eye(3):
        bend = 1.5 * (a - 2 * b + c)
        left = a * (1 - t) + b * t + bend * (t**3 - t) / 6
        s = 2 - t
        right = c * (1 - s) + b * s + bend * (s**3 - s) / 6
        splines.append(np.where(t <= 1, left, right))
    return np.stack(splines)


def _kernel(d, cubic):
    """Weight of a pixel at distance d: Keys' cubic, a = -1/2, or a triangle."""
    d = np.abs(d)
    if not cubic:
        return np.maximum(1 - d, 0)
    return np.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))


def gamma_curve(y, x, powers):
    """y = low + (high - low) ((x - low) / (high - low))^powers[n]."""
    for n, power in enumerate(powers):
        low, high = x[n].min(), x[n].max()
        y[n] = low + (high - low) * ((x[n] - low) / (high - low)) ** power if high > low else x[n]


def stretch(y, x, factor, shift):
    """y[n,i,j,c] = factor[n,c] x[n,i,j,c] + shift[n,c]."""
    y[...] = factor[:, None, None] * x + shift[:, None, None]


def add_noise(y, x, sd, *, seed):
    """y = x + sd[n] sqrt(-2 ln u) cos(2 pi v)."""
    pairs = uniform(seed, 2 * x.size).reshape(*x.shape, 2)
    u, v = pairs[..., 0] + 2.0**-24, pairs[..., 1]
    y[...] = x + sd[:, None, None, None] * np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)


def border_weights(y, cells, *, w0, sigma, reach, everywhere):
    """y = w0 exp(-(d1 + d2)^2 / (2 sigma^2)): the distance to every pixel of every cell, the least of each, the two
    least of these.
    """
    _, h, w = y.shape
    rim = (cells.shape[1] - h) // 2
    for n, section in enumerate(cells):
        i, j = np.indices((h, w)) + rim
        nearest = [np.full((h, w), np.inf)] * 2
        for k in np.unique(section[section > 0]):
            squares = [(i - a) ** 2 + (j - b) ** 2 for a, b in zip(*np.nonzero(section == k))]
            d = np.sqrt(np.min(squares, axis=0))
            nearest.append(np.where(d <= reach, d, np.inf))
        d1, d2 = np.sort(nearest, axis=0)[:2]
        y[n] = w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
        if not everywhere:
            y[n][section[rim : rim + h, rim : rim + w] > 0] = 0
