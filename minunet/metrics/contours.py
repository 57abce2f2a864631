"""Boundary F1: do the contours of a class map lie where those of the truth lie (Csurka 2013; the BF of SegNet)."""

from __future__ import annotations

import math

import numpy as np

from minunet.errors import UserError
from minunet.jit import njit
from minunet.metrics.semantic import class_maps


@njit(nogil=True)
def _contours(labels):
    """True where a pixel has a 4-neighbour of another class; -1 (ignored) and the outside are no class."""
    H, W = labels.shape
    contour = np.zeros((H, W), np.bool_)
    for i in range(H):
        for j in range(W):
            c = labels[i, j]
            if c < 0:
                continue
            for di, dj in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                u, v = i + di, j + dj
                if 0 <= u < H and 0 <= v < W and labels[u, v] >= 0 and labels[u, v] != c:
                    contour[i, j] = True
    return contour


@njit(nogil=True)
def _matched(labels, contour, other, other_contour, offsets, n_classes):
    """Per class: contour pixels of `labels`, and those with a contour pixel of `other` of that class in reach."""
    H, W = labels.shape
    total = np.zeros(n_classes, np.int64)
    hits = np.zeros(n_classes, np.int64)
    for i in range(H):
        for j in range(W):
            if not contour[i, j]:
                continue
            c = labels[i, j]
            total[c] += 1
            for k in range(len(offsets)):  # nearest first
                u, v = i + offsets[k, 0], j + offsets[k, 1]
                if 0 <= u < H and 0 <= v < W and other_contour[u, v] and other[u, v] == c:
                    hits[c] += 1
                    break
    return total, hits


def _disk(radius: float) -> np.ndarray:
    """All (di, dj) with sqrt(di^2 + dj^2) <= radius, nearest first; int64 (M, 2)."""
    r = int(radius)
    di, dj = np.mgrid[-r : r + 1, -r : r + 1].reshape(2, -1)
    square = di * di + dj * dj
    order = np.argsort(square, kind="stable")
    order = order[square[order] <= radius * radius]
    return np.stack([di[order], dj[order]], axis=1)


def _image_f1(truth: np.ndarray, predicted: np.ndarray, n_classes: int, offsets: np.ndarray) -> float:
    """Mean contour F1 over the classes present in either map (int64 (H, W), -1 where ignored)."""
    edge_t, edge_p = _contours(truth), _contours(predicted)
    n_t, found_t = _matched(truth, edge_t, predicted, edge_p, offsets, n_classes)
    n_p, found_p = _matched(predicted, edge_p, truth, edge_t, offsets, n_classes)
    in_truth = np.bincount(truth[truth >= 0], minlength=n_classes) > 0
    in_predicted = np.bincount(predicted[predicted >= 0], minlength=n_classes) > 0
    values = []
    for c in np.flatnonzero(in_truth | in_predicted):
        if n_t[c] and n_p[c]:
            recall, precision = found_t[c] / n_t[c], found_p[c] / n_p[c]
            values.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
        else:  # no contour in one map: wrong, unless the class fills everything in both
            values.append(float(n_t[c] == n_p[c] and in_truth[c] and in_predicted[c]))
    return float(np.mean(values))


def boundary_f1(
    truth: np.ndarray,
    predicted: np.ndarray,
    n_classes: int,
    ignore_index: int | None = 255,
    tolerance: float = 0.0075,
) -> float:
    """BF: per image and class the F1 of contour precision and recall; mean over classes, then over images.

    truth, predicted : integer class maps (H, W) or (N, H, W).   tolerance : reach as a share of the image diagonal
    (Euclidean, between pixel centres, inclusive; 0.0075 of 480 x 360 is 4.5 pixels).
    The contour of class c is its pixels with a 4-neighbour of another class; the image edge and ignored pixels make
    no contour, and what is predicted on ignored pixels does not count. A class counts if it occurs in truth or
    prediction; with exactly one of its two contours empty it scores 0; with both empty 1 if it is in both
    maps, else 0. Images without a valid pixel are left out.
    """
    truth, predicted, valid = class_maps(truth, predicted, n_classes, ignore_index)
    if truth.ndim not in (2, 3):
        raise UserError(f"class maps have shape {truth.shape}; expected (H, W) or (N, H, W)")
    if not tolerance >= 0:
        raise UserError(f"tolerance is {tolerance}; give a share of the image diagonal, 0 or more")
    H, W = truth.shape[-2:]
    offsets = _disk(tolerance * math.hypot(H, W))
    truth = np.where(valid, truth, -1).reshape(-1, H, W)
    predicted = np.where(valid, predicted, -1).reshape(-1, H, W)
    images = [n for n in range(len(truth)) if (truth[n] >= 0).any()]
    if not images:
        raise UserError("every pixel of the truth is ignored, so there is nothing to score")
    return float(np.mean([_image_f1(truth[n], predicted[n], int(n_classes), offsets) for n in images]))
