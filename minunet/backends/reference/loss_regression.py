"""Losses of a difference d = x - t."""

from __future__ import annotations

import numpy as np


def distance(loss, x, target, *, kind):
    """loss = mean l(d): d^2, |d|, or d^2 / 2 where |d| < 1 and |d| - 1/2 elsewhere."""
    d = x - target
    size = np.abs(d)
    each = {"mse": d**2, "mae": size, "smooth_l1": np.where(size < 1, d**2 / 2, size - 0.5)}[kind]
    loss[...] = each.mean()


def distance_grad(dx, x, target, dy, *, kind):
    """dx = dy l'(d) / n: 2 d, sign(d), or d held within -1..1."""
    d = x - target
    slope = {"mse": 2 * d, "mae": np.sign(d), "smooth_l1": np.clip(d, -1, 1)}[kind]
    dx[...] = dy.item() / d.size * slope
