"""Softmax and cross-entropy. The other losses: loss_binary, loss_regression."""

from __future__ import annotations

import numpy as np

from minunet.backends.reference.loss_binary import (
    focal_loss,
    focal_loss_grad,
    inverse,
    overlap,
    overlap_grad,
    sigmoid_cross_entropy,
    sigmoid_cross_entropy_grad,
)
from minunet.backends.reference.loss_regression import distance, distance_grad

__all__ = [
    "distance",
    "distance_grad",
    "focal_loss",
    "focal_loss_grad",
    "overlap",
    "overlap_grad",
    "pixel_cross_entropy",
    "sigmoid_cross_entropy",
    "sigmoid_cross_entropy_grad",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_grad",
    "softmax_grad",
]


def softmax(y, x):
    """y = exp(x - max x) / sum exp(x - max x) over the last axis."""
    y[...] = _softmax(x)


def softmax_grad(dx, dy, y):
    """dx = y (dy - sum_k dy_k y_k)."""
    dx[...] = y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def softmax_cross_entropy(loss, factor, logits, target, weight_map=None, class_weight=None, *, ignore_index, reduction):
    """loss = factor sum_p w_p l_p; l_p = log sum_k exp(logits_pk) - logits_p,target_p; factor = 1 / divisor."""
    counted = target != ignore_index
    each = _loss(logits[counted], target[counted])
    weight = _weight(target, weight_map, class_weight, counted)[counted]
    factor[...] = inverse({"mean": counted.sum(), "sum": 1, "weighted": weight.sum()}[reduction])
    loss[...] = (weight * each).sum() * factor


def softmax_cross_entropy_grad(
    dlogits, logits, target, dy, factor, weight_map=None, class_weight=None, *, ignore_index
):
    """dlogits_pk = dy factor w_p (softmax_pk - [k = target_p]); 0 on ignored pixels."""
    counted = target != ignore_index
    _check(target[counted], logits.shape[-1])
    hit = np.arange(logits.shape[-1]) == target[..., None]  # [k = target_p]
    weight = _weight(target, weight_map, class_weight, counted)
    dlogits[...] = dy.item() * factor.item() * weight[..., None] * (_softmax(logits) - hit)
    dlogits[~counted] = 0  # whatever stands there, even NaN times a weight of 0


def pixel_cross_entropy(loss, logits, target, *, ignore_index):
    """l_p = log sum_k exp(logits_pk) - logits_p,target_p; -1 on ignored pixels."""
    counted = target != ignore_index
    loss[...] = -1
    loss[counted] = _loss(logits[counted], target[counted])


def _loss(z, t):
    """log sum_k exp(z_pk) - z_p,t_p of the counted pixels: z (P, K), t (P,)."""
    _check(t, z.shape[-1])
    z = z - z.max(axis=-1, initial=-np.inf, keepdims=True)
    return np.log(np.exp(z).sum(axis=-1)) - z[np.arange(len(t)), t]


def _check(classes, n_classes):
    """Raise ValueError unless all targets that count are classes. NumPy alone would read -1 as the last class."""
    if classes.size and not 0 <= classes.min() <= classes.max() < n_classes:
        raise ValueError(f"targets run from {classes.min()} to {classes.max()}; there are classes 0 to {n_classes - 1}")


def _softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _weight(target, weight_map, class_weight, counted):
    """w_p = weight_map_p class_weight_target_p where counted, else 0; a missing factor is 1."""
    weight = counted.astype(np.float64)
    if weight_map is not None:
        weight[counted] *= weight_map[counted]
    if class_weight is not None:
        weight[counted] *= class_weight[target[counted]]
    return weight
