"""ISBI scores on drawn cells: the sweep of thresholds, and what must and must not change a score."""

from __future__ import annotations

import numpy as np
import pytest
from cells import FOUR, contingency, noisy, voronoi
from scipy import ndimage

from minunet import metrics

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
