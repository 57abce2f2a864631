"""Cells of a binary image and how two segmentations agree: 4-connected labels, Rand and information sums.

Everything here is 2-D. Segments are numbered from 1; 0 is background (membrane, or a dam after thinning).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from minunet.jit import njit


@njit(nogil=True)
def _label(cells, labels):
    """Flood-fill every 4-connected region of `cells` with its number; returns how many there are."""
    H, W = cells.shape
    stack = np.empty(cells.size, np.int64)
    count = 0
    for i0 in range(H):
        for j0 in range(W):
            if not cells[i0, j0] or labels[i0, j0] != 0:
                continue
            count += 1
            labels[i0, j0] = count
            stack[0] = i0 * W + j0
            top = 1
            while top > 0:  # a pixel is numbered when pushed, hence pushed once: the stack cannot overflow
                top -= 1
                i, j = stack[top] // W, stack[top] % W
                if i > 0 and cells[i - 1, j] and labels[i - 1, j] == 0:
                    labels[i - 1, j] = count
                    stack[top] = (i - 1) * W + j
                    top += 1
                if i + 1 < H and cells[i + 1, j] and labels[i + 1, j] == 0:
                    labels[i + 1, j] = count
                    stack[top] = (i + 1) * W + j
                    top += 1
                if j > 0 and cells[i, j - 1] and labels[i, j - 1] == 0:
                    labels[i, j - 1] = count
                    stack[top] = i * W + j - 1
                    top += 1
                if j + 1 < W and cells[i, j + 1] and labels[i, j + 1] == 0:
                    labels[i, j + 1] = count
                    stack[top] = i * W + j + 1
                    top += 1
    return count


def label_cells(cells: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the 4-connected regions of a binary image.

    cells : bool (H, W), true inside a cell.  Returns labels int32 (H, W), 0 outside, and their count.

    >>> label_cells(np.array([[True, False], [False, True]]))[0]      # corners do not connect
    array([[1, 0],
           [0, 2]], dtype=int32)
    """
    cells = np.ascontiguousarray(cells, dtype=np.bool_)
    labels = np.zeros(cells.shape, np.int32)
    return labels, int(_label(cells, labels))


@njit(nogil=True)
def _group(labels, count):
    """Counting sort: the pixels of label 1, then those of 2, ...; label k is order[starts[k-1]:starts[k]]."""
    starts = np.zeros(count + 1, np.int64)
    for label in labels:
        if label > 0:
            starts[label] += 1
    for k in range(count):
        starts[k + 1] += starts[k]
    order = np.empty(starts[count], np.int64)
    free = starts[:count].copy()
    for i in range(labels.size):
        if labels[i] > 0:
            order[free[labels[i] - 1]] = i
            free[labels[i] - 1] += 1
    return order, starts


@njit(nogil=True)
def _x_log_x(x):
    return x * math.log(x) if x > 1 else 0.0


@njit(nogil=True)
def _agree(order, starts, predicted, count):
    """The sums of the contingency table c[i, j], one true segment i at a time, so the table is never stored.

    A table of 20 000 noise specks by 130 cells would be 2.6 million numbers for each threshold; this needs
    one counter per predicted segment.
    """
    in_cell = np.zeros(count + 1, np.int64)  # c[i, :] of the present i
    in_all = np.zeros(count + 1, np.int64)  # s_j, over the pixels of true cells only
    truth, both, singletons = 0, 0, 0
    truth_log, both_log, predicted_log = 0.0, 0.0, 0.0
    for k in range(starts.size - 1):
        t = starts[k + 1] - starts[k]
        truth += t * t
        truth_log += _x_log_x(t)
        for q in range(starts[k], starts[k + 1]):
            j = predicted[order[q]]
            if j == 0:
                singletons += 1
            else:
                both += 2 * in_cell[j] + 1  # (c + 1)^2 - c^2
                in_cell[j] += 1
                in_all[j] += 1
        for q in range(starts[k], starts[k + 1]):  # second visit: read each c[i, j] once and clear it
            j = predicted[order[q]]
            both_log += _x_log_x(in_cell[j])
            in_cell[j] = 0
    predicted_pairs = singletons
    for j in range(1, count + 1):
        predicted_pairs += in_all[j] * in_all[j]
        predicted_log += _x_log_x(in_all[j])
    return both + singletons, truth, predicted_pairs, both_log, truth_log, predicted_log


class Agreement(NamedTuple):
    """What one slice contributes to the Rand and information scores.

    With c_ij the pixels of true cell i in predicted segment j (true membrane left out), t_i and s_j its row and
    column sums, and z the pixels of true cells on predicted background, each its own segment:
    both = sum c^2 + z, truth = sum t^2, predicted = sum s^2 + z (exact integers, ordered pairs with self-pairs);
    *_log = the sums of x ln x over c, t, s (a singleton adds 1 ln 1 = 0).
    """

    pixels: int
    both: int
    truth: int
    predicted: int
    both_log: float
    truth_log: float
    predicted_log: float


class TrueCells:
    """The true cells of one slice, grouped once and compared with many predictions."""

    def __init__(self, cells: np.ndarray) -> None:
        """cells : bool (H, W)."""
        self.labels, self.count = label_cells(cells)
        self._order, self._starts = _group(self.labels.ravel(), self.count)

    def agreement(self, predicted: np.ndarray, count: int) -> Agreement:
        """Compare with `predicted`, int32 (H, W) of labels 0..count where 0 is background."""
        sums = _agree(self._order, self._starts, np.ascontiguousarray(predicted).ravel(), count)
        return Agreement(self._order.size, *sums)


class Parts(NamedTuple):
    """An F-score with the two parts it is the harmonic mean of; a low part means that error is common."""

    f: float
    split: float  # recall: drops when true cells are split
    merge: float  # precision: drops when true cells are merged


def rand_parts(both: int, truth: int, predicted: int) -> Parts:
    """Foreground-restricted Rand F-score (Arganda-Carreras 2015, with alpha = 0.5) from pair counts.

    V = sum p^2 / (sum s^2 / 2 + sum t^2 / 2); split = sum p^2 / sum t^2; merge = sum p^2 / sum s^2.
    The common factor 1 / n^2 cancels, so counts may be added over slices first ("pooled") or not ("mean").
    """
    return Parts(2.0 * both / (truth + predicted), both / truth, both / predicted)


def info_parts(a: Agreement) -> Parts:
    """Information F-score 2 I(S;T) / (H(S) + H(T)); split = I / H(S), merge = I / H(T).

    By convention of the challenge a truth of a single cell gives merge 0, split 1, and a prediction of a single
    segment gives merge 1, split 0: F = 0 in both cases, even if that one segment is right.
    """
    n = a.pixels
    if a.predicted == n * n:  # H(S) = 0, decided on integers: the logarithms would leave a rounding error
        return Parts(0.0, 0.0, 1.0)
    if a.truth == n * n:  # H(T) = 0
        return Parts(0.0, 1.0, 0.0)
    h_truth = math.log(n) - a.truth_log / n
    h_predicted = math.log(n) - a.predicted_log / n
    mutual = math.log(n) + (a.both_log - a.truth_log - a.predicted_log) / n
    mutual = min(max(mutual, 0.0), h_truth, h_predicted)  # true of the exact value; removes rounding
    return Parts(2.0 * mutual / (h_predicted + h_truth), mutual / h_predicted, mutual / h_truth)
