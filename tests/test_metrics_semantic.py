"""Class maps, contours and instances: hand-computed cases, brute force, conventions for what is empty."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minunet.metrics import boundary_f1, confusion_matrix, scores, seg_measure

maps = st.tuples(st.integers(1, 8), st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**32 - 1))


def pair(case, ignored: bool = True):
    h, w, k, seed = case
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, (h, w))
    if ignored:
        truth[rng.random((h, w)) < 0.2] = 255
        truth[rng.random((h, w)) < 0.1] = -1
    return truth, rng.integers(0, k, (h, w)), k


# --- confusion matrix ----------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(maps)
def test_confusion_matrix_matches_counting(case):
    truth, predicted, k = pair(case)
    kept = truth.copy(), predicted.copy()
    cm = confusion_matrix(truth, predicted, k)
    expected = [[0] * k for _ in range(k)]
    for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist()):
        if t not in (255, -1):
            expected[t][p] += 1
    assert cm.dtype == np.int64 and cm.tolist() == expected
    assert np.array_equal(truth, kept[0]) and np.array_equal(predicted, kept[1])
    assert np.array_equal(confusion_matrix(truth.T, predicted.T, k), cm)  # any layout, any shape
    halves = [confusion_matrix(t, p, k) for t, p in zip(np.array_split(truth, 2), np.array_split(predicted, 2))]
    assert np.array_equal(sum(halves), cm)


@settings(max_examples=100)
@given(maps)
def test_scores_match_their_formulas(case):
    truth, predicted, k = pair(case)
    truth[0, 0] = 0
    s = scores(confusion_matrix(truth, predicted, k))
    valid = (truth >= 0) & (truth != 255)
    t, p = truth[valid], predicted[valid]
    ious, recalls, weighted, dices = [], [], 0.0, []
    for c in range(k):
        both, either = int(((t == c) & (p == c)).sum()), int(((t == c) | (p == c)).sum())
        ious.append(both / either if either else math.nan)
        dices.append(2 * both / int((t == c).sum() + (p == c).sum()) if either else math.nan)
        if (t == c).any():
            recalls.append(both / int((t == c).sum()))
            weighted += (t == c).mean() * ious[-1]
    assert s.acc == pytest.approx((t == p).mean())
    assert s.acc_cls == pytest.approx(np.mean(recalls))
    assert s.mean_iu == pytest.approx(np.mean([v for v in ious if not math.isnan(v)]))
    assert s.fwavacc == pytest.approx(weighted)
    assert s.iu == pytest.approx(ious, nan_ok=True) and s.dice == pytest.approx(dices, nan_ok=True)
    assert all(math.isfinite(v) for v in s[:4])


def test_scores_by_hand():
    acc, acc_cls, mean_iu, fwavacc, iu = scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert acc == 7 / 8
    assert acc_cls == (3 / 4 + 1) / 2  # class 2 is absent from the truth
    assert iu[:2].tolist() == [3 / 4, 4 / 5] and math.isnan(iu[2])
    assert mean_iu == pytest.approx((3 / 4 + 4 / 5) / 2)  # and from the prediction
    assert fwavacc == pytest.approx(0.5 * 3 / 4 + 0.5 * 4 / 5)
    s = scores(np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]]))  # class 2 predicted only: it counts in mean_iu alone
    assert s.acc_cls == (3 / 4 + 1) / 2 and s.mean_iu == pytest.approx((3 / 4 + 1 + 0) / 3)


def test_one_matrix_is_not_the_mean_of_images():
    truth = [np.array([0, 0, 0, 0]), np.array([1, 0])]
    predicted = [np.array([0, 0, 0, 0]), np.array([0, 0])]
    total = sum(confusion_matrix(t, p, 2) for t, p in zip(truth, predicted))
    each = [scores(confusion_matrix(t, p, 2)).mean_iu for t, p in zip(truth, predicted)]
    assert abs(scores(total).mean_iu - np.mean(each)) > 0.1


def test_labels_outside_the_classes_are_named():
    good = np.array([[0, 1], [2, 255]])
    with pytest.raises(ValueError, match=r"truth holds label 2, 7 on 2 counted pixels"):
        confusion_matrix(np.array([[7, 1], [2, 255]]), good * 0, 2)
    with pytest.raises(ValueError, match=r"predicted holds label -3, 5 "):
        confusion_matrix(good, np.array([[5, -3], [0, 0]]), 3)
    assert confusion_matrix(good, np.array([[0, 1], [2, 99]]), 3).sum() == 3  # 99 stands on an ignored pixel
    with pytest.raises(ValueError, match="255"):
        confusion_matrix(good, good, 3, ignore_index=None)
    assert confusion_matrix(good % 255, good % 255, 3, ignore_index=0).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 1]]
    for bad in (good.astype(float), good[:1]):
        with pytest.raises(ValueError, match=r"dtype|shape"):
            confusion_matrix(good, bad, 3)
    with pytest.raises(ValueError, match="n_classes"):
        confusion_matrix(good, good, 0)


@pytest.mark.parametrize("cm", [np.zeros((2, 2)), np.ones((2, 3)), [[1, -1], [0, 1]], [[np.nan, 1], [0, 1]], [1, 2]])
def test_unusable_matrices_are_refused(cm):
    with pytest.raises(ValueError, match="confusion matrix"):
        scores(cm)


# --- boundary F1 ---------------------------------------------------------------------------------------------------


def boundary_slowly(truth: np.ndarray, predicted: np.ndarray, reach: float) -> float:
    """One image: contours as lists of pixels, all distances between them."""
    h, w = truth.shape
    ignored = (truth < 0) | (truth == 255)

    def contour(labels, c):
        out = []
        for i in range(h):
            for j in range(w):
                if labels[i, j] != c or ignored[i, j]:
                    continue
                near = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
                near = [q for q in near if 0 <= q[0] < h and 0 <= q[1] < w and not ignored[q]]
                if any(labels[q] != c for q in near):
                    out.append((i, j))
        return out

    def share(a, b):
        return np.mean([any(math.dist(x, y) <= reach for y in b) for x in a])

    values = []
    for c in set(truth[~ignored].tolist()) | set(predicted[~ignored].tolist()):
        a, b = contour(truth, c), contour(predicted, c)
        if a and b:
            recall, precision = share(a, b), share(b, a)
            values.append(2 * recall * precision / (recall + precision) if recall + precision else 0.0)
        else:
            in_both = c in truth[~ignored] and c in predicted[~ignored]
            values.append(1.0 if not a and not b and in_both else 0.0)
    return float(np.mean(values))


@settings(max_examples=150)
@given(maps, st.sampled_from([0.0, 0.1, 0.2]), st.booleans())
def test_boundary_f1_matches_all_pairs(case, tolerance, ignored):
    truth, predicted, k = pair(case, ignored)
    truth[0, 0] = 0
    expected = boundary_slowly(truth, predicted, tolerance * math.hypot(*truth.shape))
    assert boundary_f1(truth, predicted, k, tolerance=tolerance) == pytest.approx(expected, abs=1e-12)


def test_boundary_f1_by_hand():
    truth = np.zeros((60, 80), int)  # diagonal 100: reach 0.75 pixels, so only exact hits
    truth[:, 40:] = 1
    assert boundary_f1(truth, truth, 2) == 1
    moved = np.roll(truth, 1, axis=1)
    moved[:, 0] = 0
    assert boundary_f1(truth, moved, 2) == 0
    assert boundary_f1(truth, moved, 2, tolerance=0.01) == 1  # reach 1 pixel, inclusive
    assert boundary_f1(truth, truth * 0, 2) == 0
    assert boundary_f1(truth * 0, truth * 0, 2) == 1  # no contour in either, and the class is in both
    assert boundary_f1(truth * 0, truth * 0 + 1, 2) == 0  # no contour in either, yet all wrong
    assert boundary_f1(np.stack([truth, truth]), np.stack([truth, moved]), 2) == 0.5
    void = np.full_like(truth, 255)
    assert boundary_f1(np.stack([truth, void]), np.stack([truth, moved]), 2) == 1  # nothing to judge in the second
    with pytest.raises(ValueError, match="ignored"):
        boundary_f1(void, moved, 2)
    with pytest.raises(ValueError, match="shape"):
        boundary_f1(truth[0], truth[0], 2)
    with pytest.raises(ValueError, match="tolerance"):
        boundary_f1(truth, truth, 2, tolerance=math.nan)


# --- SEG -----------------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(maps)
def test_seg_matches_brute_force(case):
    truth, predicted, k = pair(case, ignored=False)
    truth[0, 0] = k
    values = []
    for r in set(truth.ravel().tolist()) - {0}:
        jaccard = 0.0
        for s in set(predicted.ravel().tolist()) - {0}:
            both = int(((truth == r) & (predicted == s)).sum())
            if both > 0.5 * (truth == r).sum():
                jaccard = both / int(((truth == r) | (predicted == s)).sum())
        values.append(jaccard)
    assert seg_measure(truth, predicted) == pytest.approx(np.mean(values), abs=1e-15)
    stack = seg_measure(np.stack([truth, truth]), np.stack([predicted, truth]))
    assert stack == pytest.approx((np.mean(values) + 1) / 2, abs=1e-15)


def test_seg_by_hand_and_misuse():
    truth = np.array([[1, 1, 2, 2, 0]])
    assert seg_measure(truth, truth * 9) == 1  # names do not matter
    assert seg_measure(truth, np.array([[4, 0, 4, 4, 4]])) == (0 + 2 / 4) / 2  # exactly half is not a majority
    assert seg_measure(truth, np.array([[4, 4, 4, 4, 0]])) == 0.5  # merged: Jaccard 2 / 4 each
    assert seg_measure(truth.astype(np.uint64), truth.astype(np.uint8)) == 1
    for bad, message in ((truth[:, 1:], "shape"), (truth.astype(float), "dtype"), (-truth, "negative")):
        with pytest.raises(ValueError, match=message):
            seg_measure(truth, bad)
    with pytest.raises(ValueError, match="no object"):
        seg_measure(truth * 0, truth)
