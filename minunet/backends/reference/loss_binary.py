"""Losses of two classes: cross-entropy and focal loss on logits, overlap of probabilities."""

from __future__ import annotations

import numpy as np


def inverse(divisor):
    """1 / divisor, or 0 where that is not positive."""
    return 1 / divisor if divisor > 0 else 0


def sigmoid_cross_entropy(loss, factor, logits, target, weight_map=None, *, ignore_index, reduction):
    """loss = factor sum w l; l = max(x, 0) - x t + log(1 + exp(-|x|)); factor = 1 / divisor."""
    counted = target != ignore_index
    x, t = logits[counted], target[counted]
    w = np.ones(x.shape) if weight_map is None else weight_map[counted]
    each = np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))
    factor[...] = inverse({"mean": counted.sum(), "sum": 1, "weighted": w.sum()}[reduction])
    loss[...] = (w * each).sum() * factor


def sigmoid_cross_entropy_grad(dlogits, logits, target, dy, factor, weight_map=None, *, ignore_index):
    """dlogits = dy factor w (sigmoid(x) - t); 0 where ignored."""
    counted = target != ignore_index
    w = 1 if weight_map is None else weight_map[counted]
    dlogits[...] = 0  # whatever stands in the ignored logits
    dlogits[counted] = dy.item() * factor.item() * w * (_sigmoid(logits[counted]) - target[counted])


def focal_loss(loss, factor, logits, target, *, gamma, alpha, ignore_index, reduction):
    """loss = factor sum l; l = -a (1 - p_t)^gamma log p_t, p_t = sigmoid((2 t - 1) x); factor = 1 / divisor."""
    counted = target != ignore_index
    t = target[counted]
    z = (2 * t - 1) * logits[counted]
    a = t * alpha + (1 - t) * (1 - alpha)
    factor[...] = inverse(counted.sum()) if reduction == "mean" else 1
    loss[...] = (a * _sigmoid(-z) ** gamma * _softplus(-z)).sum() * factor


def focal_loss_grad(dlogits, logits, target, dy, factor, *, gamma, alpha, ignore_index):
    """dl/dz = -a q^gamma (gamma p_t softplus(-z) + q), q = 1 - p_t; dlogits = dy factor (2 t - 1) dl/dz; ignored: 0."""
    counted = target != ignore_index
    t = target[counted]
    z = (2 * t - 1) * logits[counted]
    q = _sigmoid(-z)
    a = t * alpha + (1 - t) * (1 - alpha)
    dlogits[...] = 0
    slope = -(2 * t - 1) * a * q**gamma * (gamma * _sigmoid(z) * _softplus(-z) + q)
    dlogits[counted] = dy.item() * factor.item() * slope


def overlap(loss, slopes, p, target, *, kind, smooth):
    """loss = 1 - u / v: u = 2 I + smooth and v = P + T + smooth, or u = I + smooth and v = P + T - I + smooth."""
    both, either = (p * target).sum(), p.sum() + target.sum()
    u, v = (2 * both + smooth, either + smooth) if kind == "dice" else (both + smooth, either - both + smooth)
    if v == 0:
        loss[...], slopes[...] = 0, 0
        return
    loss[...] = 1 - u / v
    slopes[...] = -2 / v if kind == "dice" else -(u + v) / v**2, u / v**2


def overlap_grad(dp, target, dy, slopes):
    """dp = dy (slopes_0 t + slopes_1)."""
    dp[...] = dy.item() * (slopes[0] * target + slopes[1])


def _sigmoid(x):
    """1 / (1 + exp(-x)); exp() is only asked for numbers up to 1."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def _softplus(x):
    """log(1 + exp(x))."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
