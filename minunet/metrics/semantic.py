"""Scores of class maps, all from one confusion matrix added up over the whole data set (Long 2015, section 5)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minunet.errors import UserError


def class_maps(
    truth: np.ndarray, predicted: np.ndarray, n_classes: int, ignore_index: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checked maps as int64 and the mask of pixels that count: not ignore_index and not negative in the truth.

    Raises UserError naming the offending labels when a counted pixel is outside 0 .. n_classes - 1 in either map.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        raise UserError(f"truth has shape {truth.shape} but predicted {predicted.shape}; class maps must match")
    if int(n_classes) != n_classes or n_classes < 1:
        raise UserError(f"n_classes is {n_classes}; give a whole number, 1 or more")
    for name, labels in (("truth", truth), ("predicted", predicted)):
        if labels.dtype.kind not in "bui":
            raise UserError(f"{name} has dtype {labels.dtype}; class maps hold integers (use argmax on probabilities)")
    truth, predicted = truth.astype(np.int64), predicted.astype(np.int64)
    valid = truth >= 0
    if ignore_index is not None:
        valid &= truth != ignore_index
    for name, labels in (("truth", truth), ("predicted", predicted)):
        outside = valid & ((labels < 0) | (labels >= n_classes))
        if outside.any():
            found = [str(v) for v in np.unique(labels[outside])[:5]]
            raise UserError(
                f"{name} holds label {', '.join(found)} on {int(outside.sum())} counted pixels, outside the "
                f"{n_classes} classes 0 .. {n_classes - 1}; give more classes or map it to the ignored label"
            )
    return truth, predicted, valid


def confusion_matrix(
    truth: np.ndarray, predicted: np.ndarray, n_classes: int, ignore_index: int | None = 255
) -> np.ndarray:
    """cm[i, j] = how many pixels of true class i were predicted j; int64 (K, K).

    truth, predicted : integer class maps of any equal shape.  Pixels whose truth is ignore_index (None: no such
    label) or negative never enter.  Add the matrices of all images, then call `scores` once: averaging the
    scores of images or batches gives a different number.

    >>> confusion_matrix(np.array([0, 0, 1, 255]), np.array([0, 1, 1, 0]), 2)
    array([[1, 1],
           [0, 1]])
    """
    truth, predicted, valid = class_maps(truth, predicted, n_classes, ignore_index)
    pairs = truth[valid] * n_classes + predicted[valid]
    return np.bincount(pairs, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


class Scores(NamedTuple):
    """acc = sum_i cm_ii / sum cm; acc_cls = mean_i cm_ii / row_i over classes present in the truth; mean_iu = mean of
    iu over classes present in truth or prediction; fwavacc = sum_i (row_i / total) iu_i; iu : float64 (K,) =
    cm_ii / (row_i + col_i - cm_ii), NaN for a class absent from both (it enters no mean).
    """

    acc: float
    acc_cls: float
    mean_iu: float
    fwavacc: float
    iu: np.ndarray

    @property
    def dice(self) -> np.ndarray:
        """Dice_i = 2 cm_ii / (row_i + col_i) = 2 iu_i / (1 + iu_i), float64 (K,); NaN as in iu."""
        return 2 * self.iu / (1 + self.iu)


def scores(cm: np.ndarray) -> Scores:
    """Pixel accuracy, class accuracy, IoU and frequency-weighted IoU of a confusion matrix (K, K).

    Raises UserError for a matrix that is not square, holds a negative or non-finite count, or is empty.

    >>> scores(np.array([[3, 1], [0, 4]])).acc
    0.875
    """
    cm = np.asarray(cm)
    if cm.ndim != 2 or cm.shape[0] != cm.shape[1]:
        raise UserError(f"confusion matrix has shape {cm.shape}; expected (K, K)")
    if not (np.isfinite(cm).all() and (cm >= 0).all()):
        raise UserError("confusion matrix holds a negative or non-finite count; build it with confusion_matrix")
    total = cm.sum()
    if total == 0:
        raise UserError("confusion matrix is empty: no pixel was counted, so there is nothing to score")
    right, row, col = np.diag(cm).astype(np.float64), cm.sum(axis=1), cm.sum(axis=0)
    union = row + col - right
    iu = np.full(len(cm), np.nan)
    iu[union > 0] = right[union > 0] / union[union > 0]
    return Scores(
        acc=float(right.sum() / total),
        acc_cls=float((right[row > 0] / row[row > 0]).mean()),
        mean_iu=float(iu[union > 0].mean()),
        fwavacc=float((row[row > 0] / total * iu[row > 0]).sum()),
        iu=iu,
    )
