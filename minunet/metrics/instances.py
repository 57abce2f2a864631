"""Scores of instance maps: the SEG measure of the Cell Tracking Challenge, which is also U-Net's "IOU"."""

from __future__ import annotations

import numpy as np

from minunet.errors import UserError


def _jaccards(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Jaccard index of each true object of one slice with its majority segment, 0 without one."""
    labels_t, t, size_t = np.unique(truth, return_inverse=True, return_counts=True)  # t: 0, 1, ... without gaps
    labels_p, p, size_p = np.unique(predicted, return_inverse=True, return_counts=True)
    pair, both = np.unique(t * len(labels_p) + p, return_counts=True)
    ti, pi = pair // len(labels_p), pair % len(labels_p)
    majority = (2 * both > size_t[ti]) & (labels_p[pi] != 0)
    values = np.zeros(len(size_t))
    values[ti[majority]] = (both / (size_t[ti] + size_p[pi] - both))[majority]
    return values[labels_t != 0]


def seg_measure(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over true objects of the Jaccard index with the one segment that covers more than half of the object.

    J = |R and S| / |R or S| if |R and S| > |R| / 2, else 0; at most one S can satisfy that.
    truth, predicted : integer maps (H, W) or (S, H, W), 0 background, every other number an object; a number
    used in two slices is two objects. Pass instances, not masks: touching cells of one number are one object.
    Raises UserError for unequal shapes, negative labels or a truth without objects.  (Maska 2014, section 3.1.)

    >>> seg_measure(np.array([[1, 1, 1, 0, 2]]), np.array([[5, 5, 0, 0, 0]]))      # (2/3 + 0) / 2
    0.3333333333333333
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        raise UserError(f"truth has shape {truth.shape} but predicted {predicted.shape}; instance maps must match")
    if truth.ndim not in (2, 3):
        raise UserError(f"instance maps have shape {truth.shape}; expected (H, W) or (S, H, W)")
    for name, labels in (("truth", truth), ("predicted", predicted)):
        if labels.dtype.kind not in "bui":
            raise UserError(f"{name} has dtype {labels.dtype}; instance maps hold integers")
        if labels.size and labels.min() < 0:
            raise UserError(f"{name} holds the negative label {labels.min()}; use 0 for background")
    if not truth.any():
        raise UserError("truth holds no object (label > 0), so there is nothing to score")
    H, W = truth.shape[-2:]
    slices = zip(truth.reshape(-1, H * W), predicted.reshape(-1, H * W))
    return float(np.concatenate([_jaccards(t, p) for t, p in slices]).mean())
