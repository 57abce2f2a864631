"""What a report shows of a run's predictions: cells split and merged, the worst and the best images."""

from __future__ import annotations

import numpy as np
import pytest

from minunet.data import IGNORE, Dataset
from minunet.metrics.pieces import MERGED, SPLIT, pieces
from minunet.training.seen import Seen, likeliest


def cells(text: str) -> np.ndarray:
    """A row of digits, every one ten pixels wide."""
    return np.repeat(np.array([[int(c) for c in text]]), 10, axis=1)


@pytest.mark.parametrize(
    ("truth", "found", "marked", "splits", "mergers"),
    [
        ("11102222", "33333333", "22200000", 0, 1),  # the smaller cell is swallowed
        ("111022", "555066", "000000", 0, 0),  # other numbers, the same cells
        ("111111", "222033", "000011", 1, 0),  # a piece is split off
        ("111122", "333344", "000000", 0, 0),
        ("1112222", "3333444", "0000000", 0, 0),  # a border that lies a little off
        ("000000", "111111", "000000", 0, 0),
        ("111111", "000000", "000000", 0, 0),
        ("111111222", "333445555", "000110000", 1, 0),
        ("1111022033333", "4444444444444", "2222022000000", 0, 2),
    ],
)
def test_pieces(truth, found, marked, splits, mergers):
    truth, found = cells(truth), cells(found)
    before = truth.copy(), found.copy()
    result = pieces(truth, found)
    assert (SPLIT, MERGED) == (1, 2) and np.array_equal(result.kinds, cells(marked))
    assert result.splits == splits and result.mergers == mergers
    assert np.array_equal(truth, before[0]) and np.array_equal(found, before[1])


def test_specks_are_no_pieces():
    truth, found = np.ones((6, 20), int), np.ones((6, 20), int)
    found[2, 3:12] = 2  # 9 pixels
    assert pieces(truth, found)[1:] == (0, 0)
    found[2, 3:13] = 2
    assert pieces(truth, found)[1:] == (1, 0)
    with pytest.raises(ValueError, match="match"):
        pieces(truth, found[:, 1:])


def test_the_worst_and_the_best_are_kept():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (9, 10, 12)).astype(np.uint8)
    labels[4] = IGNORE  # no label: never shown
    images = rng.integers(0, 256, (9, 10, 12), np.uint8)
    data = Dataset(images, labels, "x", True, "x", "", ("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (255, 0, 0)), "classes")
    seen = Seen(data, np.arange(9), 1)
    for k in range(9):
        wrong = np.where(np.arange(120).reshape(10, 12) < k * 5 % 9 * 12, (labels[k] + 1) % 3, labels[k])
        seen.add(k, np.where(labels[k] == IGNORE, 0, wrong).astype(np.uint8))
    order = sorted((k for k in range(9) if k != 4), key=lambda k: -(k * 5 % 9))
    assert [shown.k for shown in seen.kept] == [*order[:3], *order[-2:]]
    assert seen.matrix.sum() == 8 * 120
    assert seen.picture(seen.kept[0]).shape == (10, 4 * 12 + 3 * 4, 3)


def test_likeliest():
    p = np.array([[[0.2, 0.8], [0.7, 0.3]]])
    assert likeliest(p).tolist() == [[1, 0]] and likeliest(p[..., 1:]).tolist() == [[1, 0]]
