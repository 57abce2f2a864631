"""Losses of two classes: cross-entropy and focal loss on logits, overlap of probabilities."""

from __future__ import annotations

import numpy as np


def sigmoid_cross_entropy(sums, logits, target, weight_map=None, *, ignore_index):
    """sums = (sum w l, sum w, elements counted); l = max(x, 0) - x t + log(1 + exp(-|x|))."""
    counted = target != ignore_index
    x, t = logits[counted], target[counted]
    w = np.ones(x.shape) if weight_map is None else weight_map[counted]
    loss = np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))
    sums[...] = (w * loss).sum(), w.sum(), counted.sum()


def sigmoid_cross_entropy_grad(dlogits, logits, target, weight_map=None, *, ignore_index, scale):
    """dlogits = scale w (sigmoid(x) - t); 0 where ignored."""
    counted = target != ignore_index
    w = 1 if weight_map is None else weight_map[counted]
    dlogits[...] = 0  # whatever stands in the ignored logits
    dlogits[counted] = scale * w * (_sigmoid(logits[counted]) - target[counted])


def focal_loss(sums, logits, target, *, gamma, alpha, ignore_index):
    """sums = (sum l, elements counted); l = -a (1 - p_t)^gamma log p_t, p_t = sigmoid((2 t - 1) x)."""
    counted = target != ignore_index
    t = target[counted]
    z = (2 * t - 1) * logits[counted]
    a = t * alpha + (1 - t) * (1 - alpha)
    sums[...] = (a * _sigmoid(-z) ** gamma * _softplus(-z)).sum(), counted.sum()


def focal_loss_grad(dlogits, logits, target, *, gamma, alpha, ignore_index, scale):
    """dl/dz = -a q^gamma (gamma p_t softplus(-z) + q), q = 1 - p_t; dlogits = scale (2 t - 1) dl/dz; ignored: 0."""
    counted = target != ignore_index
    t = target[counted]
    z = (2 * t - 1) * logits[counted]
    q = _sigmoid(-z)
    a = t * alpha + (1 - t) * (1 - alpha)
    dlogits[...] = 0
    dlogits[counted] = -scale * (2 * t - 1) * a * q**gamma * (gamma * _sigmoid(z) * _softplus(-z) + q)


def overlap(sums, p, target):
    """sums = (sum p t, sum p, sum t)."""
    sums[...] = (p * target).sum(), p.sum(), target.sum()


def overlap_grad(dp, target, *, a, b):
    """dp = a t + b."""
    dp[...] = a * target + b


def _sigmoid(x):
    """1 / (1 + exp(-x)); exp() is only asked for numbers up to 1."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def _softplus(x):
    """log(1 + exp(x))."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
