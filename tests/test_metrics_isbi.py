"""ISBI scores: the published sanity numbers on real slices, pair counting by hand and by brute force, misuse."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
from cells import FOUR, blur, contingency, voronoi
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from minunet import metrics
from minunet.metrics.segments import TrueCells, info_parts, rand_parts

DATA = Path(os.environ.get("MINUNET_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "isbi2012"


@pytest.fixture(scope="module")
def isbi():
    """(volume, labels), both uint8 (30, 512, 512)."""
    files = [DATA / "train-volume.tif", DATA / "train-labels.tif"]
    if not all(f.is_file() for f in files):
        pytest.skip(f"no ISBI 2012 data in {DATA} (set MINUNET_DATA)")
    tifffile = pytest.importorskip("tifffile")
    return tuple(tifffile.imread(f) for f in files)


def dilate(stack: np.ndarray) -> np.ndarray:
    return np.stack([ndimage.binary_dilation(s, FOUR) for s in stack])


# proposal: 1 - pixel error, 1 - Rand error, V_Rand, V_Info, warping error, wrong pixels, as the challenge's code gives
SANITY = {
    "the labels themselves": ("1.00000", "1.00000", "1.00000", "1.00000", "0e+00", "0.0000"),
    "labels blurred, sd 1": ("0.99888", "0.99883", "0.99968", "0.99974", "1e-05", "0.0017"),
    "membranes dilated": ("0.95684", "0.94884", "0.99829", "0.99830", "2.1e-04", "0.0628"),
    "membranes eroded": ("0.95917", "0.97466", "0.97576", "0.99302", "9e-05", "0.0646"),
    "raw image blurred, sd 2": ("0.87761", "0.53624", "0.75507", "0.90027", "1.6e-03", "0.3179"),
}
PROPOSALS = {
    "the labels themselves": lambda volume, cells: cells,
    "labels blurred, sd 1": lambda volume, cells: blur(cells, 1),
    "membranes dilated": lambda volume, cells: ~dilate(~cells),
    "membranes eroded": lambda volume, cells: dilate(cells),
    "raw image blurred, sd 2": lambda volume, cells: blur(volume / np.float32(255), 2),
}


@pytest.mark.parametrize("name", SANITY)
def test_sanity_numbers(isbi, name):
    volume, labels = (a[:10] for a in isbi)
    s = metrics.isbi_scores(labels, PROPOSALS[name](volume, labels > 0))
    good = [1 - s["pixel_error"].value, 1 - s["rand_error"].value, s["v_rand"].value, s["v_info"].value]
    got = [f"{v:.5f}" for v in good]
    digits = len(SANITY[name][4].split("e")[0].replace(".", "")) - 1
    got += [f"{s['warping_error'].value:.{digits}e}", f"{s['pixel_disagreement'].value:.4f}"]
    assert tuple(got) == SANITY[name]


def test_sanity_all_cell_and_label_statistics(isbi):
    labels = isbi[1]
    everything = np.ones(labels.shape, np.float32)
    s = metrics.isbi_scores(labels, everything, warping=False)
    assert f"{1 - s['pixel_error'].value:.5f}" == "0.87664"
    assert f"{s['v_rand'].value:.5f}" == "0.07799"
    assert f"{s['pixel_disagreement'].value:.4f}" == "0.2196"
    counts = [metrics.label_cells(slice_ > 0)[1] for slice_ in labels]
    assert (sum(counts), min(counts), max(counts)) == (3431, 88, 137)


def test_one_slice_against_other_programs(isbi):
    """Membranes of slice 0 dilated, not thinned: 0.9446; counting background as one object gives 0.8279."""
    cells = isbi[1][0] > 0
    proposal = ndimage.binary_erosion(cells, FOUR)  # outside counts as membrane here
    assert f"{1 - metrics.rand_error(cells, proposal):.4f}" == "0.9446"
    truth, _ = ndimage.label(cells, FOUR)
    predicted, _ = ndimage.label(proposal, FOUR)
    ordinary = [sum(v * v - v for v in counts) for counts in contingency(truth, predicted, singletons=False)]
    assert f"{2 * ordinary[0] / (ordinary[1] + ordinary[2]):.4f}" == "0.8279"


# --- an independent count ------------------------------------------------------------------------------------------


def entropy(counts) -> float:
    n = sum(counts)
    return -sum(c / n * math.log(c / n) for c in counts)


def small(h: int, w: int, high: int):
    return st.lists(st.integers(0, high), min_size=h * w, max_size=h * w).map(lambda v: np.array(v).reshape(h, w))


sizes = st.tuples(st.integers(1, 6), st.integers(1, 7))


@settings(max_examples=150)
@given(st.data())
def test_rand_and_information_match_brute_force(data):
    h, w = data.draw(sizes)
    cells, predicted = data.draw(small(h, w, 1)) > 0, data.draw(small(h, w, 4)).astype(np.int32)
    if not cells.any():
        cells[0, 0] = True
    before = predicted.copy()
    agreement = TrueCells(cells).agreement(predicted, 4)
    assert np.array_equal(predicted, before)
    truth, _ = ndimage.label(cells, FOUR)

    flat = zip(truth.ravel().tolist(), predicted.ravel().tolist())
    places = [(t, p or ("pixel", k)) for k, (t, p) in enumerate(flat) if t]
    pairs = list(itertools.product(places, places))  # ordered, with self-pairs
    same_t = sum(a[0] == b[0] for a, b in pairs)
    same_p = sum(a[1] == b[1] for a, b in pairs)
    same_both = sum(a == b for a, b in pairs)
    assert (agreement.both, agreement.truth, agreement.predicted) == (same_both, same_t, same_p)
    rand = rand_parts(agreement.both, agreement.truth, agreement.predicted)
    assert rand == pytest.approx((2 * same_both / (same_t + same_p), same_both / same_t, same_both / same_p), abs=1e-15)

    h_both, h_t, h_p = (entropy(counts) for counts in contingency(truth, predicted))
    got = info_parts(agreement)
    assert all(math.isfinite(v) and 0 <= v <= 1 + 1e-12 for v in got)
    if same_t == len(pairs):
        expected = (0, 1, 0) if same_p < len(pairs) else (0, 0, 1)
    elif same_p == len(pairs):
        expected = (0, 0, 1)
    else:
        mutual = h_t + h_p - h_both
        expected = (2 * mutual / (h_t + h_p), mutual / h_p, mutual / h_t)
    assert got == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40)
@given(st.data())
def test_names_of_segments_do_not_matter(data):
    h, w = data.draw(sizes)
    cells, predicted = data.draw(small(h, w, 2)) > 0, data.draw(small(h, w, 4)).astype(np.int32)
    cells[0, 0] = True
    renamed = np.array([0, *data.draw(st.permutations([1, 2, 3, 4]))], np.int32)[predicted]
    a, b = (TrueCells(cells).agreement(p, 4) for p in (predicted, renamed))
    assert a[:4] == b[:4] and a == pytest.approx(b, abs=1e-9)


def test_by_hand():
    """Cells of 3 and 2 pixels; the prediction joins them into one segment and leaves one pixel as background."""
    truth = np.array([[1, 1, 1, 0, 1, 1]])
    predicted = np.array([[0, 1, 1, 1, 1, 1]])
    # c = [2, 2] and one singleton; t = [3, 2], s = [4], n = 5: both 4 + 4 + 1, truth 9 + 4, predicted 16 + 1
    f = 2 * 9 / (13 + 17)
    assert metrics.rand_error(truth, predicted) == pytest.approx(1 - f, abs=1e-15)
    a = TrueCells(truth > 0).agreement(predicted.astype(np.int32), 1)
    assert rand_parts(*a[1:4]) == pytest.approx((f, 9 / 13, 9 / 17))
    assert metrics.pixel_error(truth, predicted) == pytest.approx(1 - 8 / 10)  # tp 4, fp 1, fn 1
    assert metrics.pixel_disagreement(truth, predicted) == pytest.approx(2 / 6)
    # thinning: the whole row is one segment, so nothing is split and the cells are merged
    assert metrics.v_rand(truth, predicted) == pytest.approx(2 * 13 / (13 + 25))


# --- misuse --------------------------------------------------------------------------------------------------------

SCORES = ("pixel_error", "rand_error", "warping_error", "warping_error_all", "v_rand", "v_info", "pixel_disagreement")


@pytest.mark.parametrize("name", [*SCORES, "isbi_scores"])
def test_bad_input_is_refused(name):
    score = getattr(metrics, name)
    truth, p = voronoi(1, 1), voronoi(1, 1).astype(np.float32)
    nan, nan_truth = p.copy(), p.copy()
    nan[0, 3, 4] = nan_truth[0, 0, 0] = np.nan
    for bad_truth, bad_p, message in (
        (truth, nan, "NaN"),
        (nan_truth, p, "NaN"),
        (truth, p * 255, "probabilities"),
        (truth, p - 0.01, "probabilities"),
        (truth, np.where(p > 0, np.inf, 0), "probabilities"),
        (truth, p[:, :-1], "shape"),
        (truth[0], p, "shape"),
        (truth[0, 0], p[0, 0], "shape"),
        (truth[:0], p[:0], "shape"),
        (truth, p.astype(complex), "dtype"),
    ):
        with pytest.raises(ValueError, match=message):
            score(bad_truth, bad_p)


def test_truth_without_cells_is_refused_where_a_score_needs_them():
    nothing, p = np.zeros((9, 7)), np.linspace(0, 1, 63).reshape(9, 7)
    for name in ("pixel_error", "rand_error", "v_rand", "v_info", "isbi_scores"):
        with pytest.raises(ValueError, match="no cell"):
            getattr(metrics, name)(nothing, p)
    assert metrics.pixel_disagreement(nothing, p) == pytest.approx(31 / 63)
    assert metrics.warping_error(nothing, p) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3)])
def test_tiny_slices_give_finite_scores(shape):
    rng = np.random.default_rng(4)
    for _ in range(20):
        truth, p = rng.random(shape) > 0.4, rng.random(shape)
        truth[0, 0] = True
        for score in metrics.isbi_scores(truth, p).values():
            assert math.isfinite(score.value) and 0 <= score.value <= 1
