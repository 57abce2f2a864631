"""ISBI scores: the published sanity numbers on real slices, pair counting by hand and by brute force, misuse."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from minunet import metrics
from minunet.metrics.segments import TrueCells, info_parts, rand_parts

DATA = Path(os.environ.get("MINUNET_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "isbi2012"
FOUR = ndimage.generate_binary_structure(2, 1)


@pytest.fixture(scope="module")
def isbi():
    """(volume, labels), both uint8 (30, 512, 512)."""
    files = [DATA / "train-volume.tif", DATA / "train-labels.tif"]
    if not all(f.is_file() for f in files):
        pytest.skip(f"no ISBI 2012 data in {DATA} (set MINUNET_DATA)")
    tifffile = pytest.importorskip("tifffile")
    return tuple(tifffile.imread(f) for f in files)


def blur(stack: np.ndarray, sd: float) -> np.ndarray:
    return np.stack([ndimage.gaussian_filter(s.astype(np.float32), sd) for s in stack]).clip(0, 1)


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


def contingency(truth: np.ndarray, predicted: np.ndarray, singletons: bool = True):
    """Sizes of overlaps, true cells and segments on the pixels of true cells, from dictionaries of pixels."""
    both, rows, columns = Counter(), Counter(), Counter()
    for place, (t, p) in enumerate(zip(truth.ravel().tolist(), predicted.ravel().tolist())):
        if t == 0:
            continue
        segment = ("pixel", place) if p == 0 and singletons else p
        both[t, segment] += 1
        rows[t] += 1
        columns[segment] += 1
    return both.values(), rows.values(), columns.values()


def entropy(counts) -> float:
    n = sum(counts)
    return -sum(c / n * math.log(c / n) for c in counts)


def small(h: int, w: int, high: int):
    return st.lists(st.integers(0, high), min_size=h * w, max_size=h * w).map(lambda v: np.array(v).reshape(h, w))


sizes = st.tuples(st.integers(1, 6), st.integers(1, 7))


@settings(max_examples=150, deadline=None)
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


@settings(max_examples=40, deadline=None)
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


# --- the sweep -----------------------------------------------------------------------------------------------------


def test_thresholds_are_repeated_additions():
    assert metrics.thresholds()[:4] == [0.0, 0.1, 0.2, 0.30000000000000004]
    assert len(metrics.thresholds()) == 11 and metrics.thresholds()[-1] == 0.9999999999999999
    assert len(metrics.thresholds(0.9)) == 10 and metrics.thresholds(0.9)[-1] == 0.8999999999999999


def test_comparison_is_in_double_precision():
    truth = np.array([[1, 0]])
    single = metrics.isbi_scores(truth, np.array([[0.1, 0.05]], np.float32), warping=False)["pixel_error"]
    assert (single.value, single.threshold) == (0.0, 0.1)  # a float32 0.1 is above 0.1
    double = metrics.isbi_scores(truth, np.array([[0.1, 0.05]]), warping=False)["pixel_error"]
    assert (double.value, double.threshold) == (pytest.approx(1 / 3), 0.0)
    assert metrics.pixel_disagreement(truth, np.array([[0.1, 0.05]], np.float32), t=0.1) == 0
    assert metrics.pixel_disagreement(truth, np.array([[0.1, 0.05]]), t=0.1) == 0.5


def test_binary_maps_use_threshold_zero_and_ties_go_to_the_first():
    truth, p = voronoi(1), voronoi(2)
    s = metrics.isbi_scores(truth, p.astype(np.float64))
    assert {v.threshold for k, v in s.items() if k != "pixel_disagreement"} == {0.0}
    p = np.where(truth, 0.95, 0.35)  # perfect from 0.4 to 0.9; all cell below
    s = metrics.isbi_scores(truth, p)
    assert {v.threshold for k, v in s.items() if k != "pixel_disagreement"} == {0.4}


def test_the_sweep_is_the_best_of_its_thresholds():
    """Each threshold on its own, as a binary map; slices whose values leave gaps between thresholds share work."""
    truth = voronoi(4)
    p = noisy(truth, 4)
    p[1] = np.select([p[1] > 0.7, p[1] > 0.5], [0.95, 0.45], 0.05)
    p[2] = p[2] * np.float32(0.25)
    s = metrics.isbi_scores(truth, p, warping=False)
    each = [metrics.isbi_scores(truth, p > np.float64(t), warping=False) for t in metrics.thresholds()]
    for name, best in (("v_rand", max), ("v_info", max), ("rand_error", min), ("pixel_error", min)):
        values = [e[name].value for e in each]
        assert s[name].value == best(values)
        assert s[name].threshold == metrics.thresholds()[values.index(best(values))]
        chosen = each[values.index(best(values))][name]
        assert (s[name].split, s[name].merge) == (chosen.split, chosen.merge)


def test_each_score_picks_its_own_threshold():
    truth = voronoi(3)
    s = metrics.isbi_scores(truth, noisy(truth, 3))
    assert len({v.threshold for v in s.values()}) > 1
    for name in ("v_rand", "v_info", "rand_error", "pixel_error", "warping_error"):
        assert getattr(metrics, name)(truth, noisy(truth, 3)) == s[name].value
    assert (
        metrics.warping_error_all(truth, noisy(truth, 3), s["warping_error"].threshold) == s["warping_error_all"].value
    )
    w = s["warping_error"]
    assert w.value == pytest.approx(w.split + w.merge, abs=1e-15) and w.value <= s["warping_error_all"].value


# --- properties on synthetic cells ---------------------------------------------------------------------------------


def voronoi(seed: int, slices: int = 3, h: int = 41, w: int = 53) -> np.ndarray:
    """Cells as polygons with membrane between: bool (S, H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    out = []
    for _ in range(slices):
        points = rng.random((12, 2)) * (h, w)
        d = np.sort([np.hypot(y - a, x - b) for a, b in points], axis=0)
        out.append(d[1] - d[0] > 2.5)
    return np.array(out)


def noisy(cells: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (blur(cells, 1.2) + 0.1 * rng.standard_normal(cells.shape)).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int16, np.float32, np.float64])
def test_perfect_prediction(dtype):
    truth = (voronoi(0) * (255 if dtype == np.uint8 else 1)).astype(dtype)
    s = metrics.isbi_scores(truth, truth > 0)
    for name, score in s.items():
        assert score.value == pytest.approx(float(name.startswith("v_")), abs=1e-12)
    one = truth[0]
    assert metrics.v_rand(one, one > 0) == pytest.approx(1) and metrics.rand_error(one, one > 0) == 0


def test_flips_and_transposes_change_nothing_without_thinning():
    truth = voronoi(5)
    p = noisy(truth, 5)
    for view in (lambda a: a[:, ::-1], lambda a: a[:, :, ::-1], lambda a: a.transpose(0, 2, 1), lambda a: a[::-1]):
        for score in (metrics.rand_error, metrics.pixel_error, metrics.pixel_disagreement):
            assert score(view(truth), view(p)) == pytest.approx(score(truth, p), abs=1e-15)


def test_thread_count_does_not_matter_and_inputs_are_kept():
    truth = voronoi(6, slices=5)
    p = noisy(truth, 6)
    kept = truth.copy(), p.copy()
    calls = []
    assert metrics.isbi_scores(truth, p, workers=1) == metrics.isbi_scores(
        truth, p, workers=4, on_slice=lambda: calls.append(1)
    )
    assert len(calls) == 10
    assert np.array_equal(truth, kept[0]) and np.array_equal(p, kept[1])


def test_mean_and_pooled_are_different_numbers():
    truth = voronoi(7)
    truth[0, 5:, :] = True
    p = noisy(voronoi(7), 7)
    each = [metrics.isbi_scores(truth[s], p[s], warping=False)["v_rand"] for s in range(3)]
    mean, pooled = metrics.v_rand(truth, p), metrics.v_rand(truth, p, aggregate="pooled")
    assert mean <= np.mean([e.value for e in each]) + 1e-12  # one threshold for all slices
    assert abs(mean - pooled) > 1e-3
    with pytest.raises(ValueError, match="micro"):
        metrics.v_rand(truth, p, aggregate="micro")


def test_slices_without_cells_do_not_vote():
    truth, p = voronoi(8, slices=2), noisy(voronoi(8, slices=2), 8)
    with_empty = np.concatenate([truth, np.zeros_like(truth[:1])])
    assert metrics.v_rand(with_empty, np.concatenate([p, p[:1]])) == pytest.approx(metrics.v_rand(truth, p), abs=1e-15)


def test_wrong_variants_would_be_seen():
    truth = voronoi(9)
    p = noisy(truth, 9)
    assert metrics.v_rand(truth, p) > 0.95
    assert metrics.v_rand(truth, 1 - p) < 0.5  # P(membrane) instead of P(cell)
    labels = [ndimage.label(t, FOUR)[0] for t in truth]
    predicted = [ndimage.label(s > 0.5, FOUR)[0] for s in p]
    restricted, unrestricted = np.zeros(3), np.zeros(3)
    for t, s in zip(labels, predicted):
        restricted += [sum(v * v for v in c) for c in contingency(t, s)]
        unrestricted += [sum(v * v for v in c) for c in contingency(t + 1, s + 1)]
    f = [2 * v[0] / (v[1] + v[2]) for v in (restricted, unrestricted)]
    assert abs(f[0] - f[1]) > 1e-2
    assert 1 - metrics.rand_error(truth, np.where(p > 0.5, 1.0, 0.0)) == pytest.approx(f[0], abs=1e-12)


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
