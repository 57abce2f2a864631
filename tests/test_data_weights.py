"""The weight map against distance transforms of whole images, and the numbers of the first ISBI section."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from minunet.data.images import read_image
from minunet.data.weights import (
    border_term,
    class_frequencies,
    class_weight_table,
    enet_weights,
    instances_from_labels,
    median_frequency_weights,
    weight_map,
)
from minunet.errors import UserError


def brute_force(instances, w0, sigma, where):
    """The formula with one full-image distance transform per cell, in float64."""
    cells = [k for k in np.unique(instances) if k > 0]
    if len(cells) < 2:
        return np.zeros(instances.shape)
    d = np.sort([ndimage.distance_transform_edt(instances != k) for k in cells], axis=0)
    term = w0 * np.exp(-((d[0] + d[1]) ** 2) / (2 * sigma**2))
    return np.where(instances == 0, term, 0) if where == "background" else term


def components(seed: int, shape: tuple[int, int], share: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random(shape), 1.5)
    return instances_from_labels(smooth > np.quantile(smooth, share))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    H=st.integers(1, 60),
    W=st.integers(1, 60),
    share=st.floats(0, 1),
    sigma=st.sampled_from([0.7, 2.0, 5.0, 40.0]),
    where=st.sampled_from(["background", "all"]),
)
def test_border_term_is_the_formula(seed, H, W, share, sigma, where):
    instances = components(seed, (H, W), share)
    kept = instances.copy()
    term = border_term(instances, 10.0, sigma, where)
    assert term.dtype == np.float32 and term.shape == (H, W)
    error = np.abs(term - brute_force(instances, 10.0, sigma, where)).max()
    assert np.isfinite(error) and error <= 2e-6
    assert np.array_equal(instances, kept)


def test_windows_cut_nothing_that_counts():
    """Cells far apart: the windowed transform leaves out less than 1.5e-8 of w0."""
    instances = np.zeros((90, 150), np.int32)
    instances[3:7, 4:9] = 1
    instances[80:, 140:] = 7
    instances[40:44, 30:90] = 3
    error = np.abs(border_term(instances, 1e6, 5.0) - brute_force(instances, 1e6, 5.0, "background")).max()
    assert np.isfinite(error) and error <= 1.5e-8 * 1e6 + 1e-6


def test_worked_numbers():
    """Two cells with one pixel between them: d1 = d2 = 1, so 10 exp(-4/50)."""
    w = weight_map(np.array([[1, 0, 2]]), class_weights="none")
    assert np.allclose(w, [[1, 1 + 10 * np.exp(-0.08), 1]], rtol=1e-6)
    w = weight_map(np.array([[1, 0, 0, 2]]), class_weights="balanced")
    assert np.allclose(w, 1 + np.array([[0, 1, 1, 0]]) * 10 * np.exp(-9 / 50), rtol=1e-6)
    everywhere = border_term(np.array([[1, 0, 2]]), where="all")
    assert np.allclose(everywhere, 10 * np.exp(-np.array([[4, 4, 4]]) / 50), rtol=1e-6)


def test_class_weights():
    labels = np.array([[0, 1, 1, 1, 1, 1, 255, 255]], np.uint8)
    table = class_weight_table(labels, "balanced")
    assert np.allclose(table[[0, 1, 255, 2]], [3, 0.6, 0, 0])
    assert np.isclose(table[labels[labels < 255]].mean(), 1)
    assert np.allclose(class_weight_table(labels, "max1")[[0, 1]], [1, 0.2])
    assert np.allclose(class_weight_table(labels, "none")[[0, 1, 255]], [1, 1, 0])
    assert np.allclose(class_weight_table(np.full((2, 2), 1, np.uint8))[[0, 1]], [0, 1])
    assert not class_weight_table(np.full((2, 2), 255, np.uint8), "max1").any()
    w = weight_map(np.array([[1, 1, 1, 0]]), w0=0)
    assert np.allclose(w, [[2 / 3, 2 / 3, 2 / 3, 2]])


@pytest.mark.parametrize("instances", [np.zeros((3, 4), int), np.ones((3, 4), int), np.ones((1, 1), np.uint8)])
def test_fewer_than_two_cells_have_no_exponential(instances):
    assert np.array_equal(weight_map(instances), np.ones(instances.shape, np.float32))


def test_numbers_of_cells_do_not_matter():
    a = components(5, (40, 37), 0.4)
    big = np.where(a > 0, a.astype(np.int64) * 10**9 + 3, 0)
    assert np.array_equal(border_term(big), border_term(a))
    no_background = np.array([[10**9, 5], [5, 7]])
    assert np.allclose(border_term(no_background, where="all"), brute_force(no_background, 10, 5, "all"))
    assert np.array_equal(border_term(np.asfortranarray(a)), border_term(a))


def test_instances_are_4_connected():
    labels = np.array([[1, 0, 1], [0, 1, 1], [255, 0, 0]], np.uint8)
    instances = instances_from_labels(labels)
    assert instances.dtype == np.int32
    assert instances.tolist() == [[1, 0, 2], [0, 2, 2], [3, 0, 0]]


def test_refusals():
    good = np.array([[1, 0, 2]])
    for call in (
        lambda: weight_map(good, sigma=0),
        lambda: weight_map(good, sigma=float("nan")),
        lambda: weight_map(good, w0=-1),
        lambda: weight_map(good, class_weights="equal"),
        lambda: weight_map(good, where="edge"),
        lambda: weight_map(good - 1),
        lambda: weight_map(good.astype(float)),
        lambda: weight_map(good[0]),
        lambda: instances_from_labels(np.zeros((2, 2, 2))),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_the_first_isbi_section():
    folder = Path(os.environ.get("MINUNET_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    path = folder / "isbi2012" / "train-labels.tif"
    if not path.exists():
        pytest.skip("ISBI 2012 is not on this machine; set MINUNET_DATA to the folder that holds isbi2012")
    instances = instances_from_labels(read_image(path)[0])
    assert instances.max() == 136
    term = border_term(instances)
    membrane = instances == 0
    assert abs(term[membrane].mean() - 4.04) < 0.005
    assert abs(term.max() - 8.90) < 0.005
    assert np.isclose(term.max(), 10 * np.exp(-((1 + np.sqrt(2)) ** 2) / 50), rtol=1e-6)  # min d1 + d2 = 2.41
    middle = 5 * np.sqrt(-2 * np.log(np.median(term[membrane]) / 10))  # the formula turned round
    assert abs(middle - 6.16) < 0.005
    part = np.ascontiguousarray(instances[100:330, :170])
    assert np.abs(border_term(part) - brute_force(part, 10, 5, "background")).max() <= 2e-6
    assert abs((weight_map(instances) - term).mean() - 1) < 1e-5


def test_a_section_of_136_cells_takes_no_distance_transform_for_each():
    """Cells like those of ISBI's first section, 12 x 11 + 4 of them, walls 6 px wide. On a core of 2023 their map takes
    0.016 s and one distance transform of the section as long: no machine makes ten of the one."""
    instances = np.zeros((512, 512), np.int32)
    for k, (i, j) in enumerate(np.ndindex(12, 11)):
        instances[42 * i + 3 : 42 * i + 39, 46 * j + 3 : 46 * j + 43] = k + 1
    for k in range(4):
        instances[507:, 128 * k + 10 : 128 * k + 100] = 133 + k
    weight_map(instances)  # compiled
    ours, one = [], []
    for _ in range(5):
        for times, work in ((ours, weight_map), (one, ndimage.distance_transform_edt)):
            start = time.thread_time()
            work(instances)
            times.append(time.thread_time() - start)
    assert min(ours) < 10 * min(one)


def test_class_weights_by_their_definitions():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, (4, 9, 7)).astype(np.uint8)
    labels[labels == 3] = 255  # class 3 is nowhere
    labels[:2][labels[:2] == 4] = 0  # class 4 in two images only
    f, p = [], []
    for c in range(5):
        there = [image for image in labels if (image == c).any()]
        f.append(sum((i == c).sum() for i in there) / max(sum((i != 255).sum() for i in there), 1))
        p.append((labels == c).sum() / (labels != 255).sum())
    found = class_frequencies(labels, 5)
    assert np.abs(found[0] - f).max() <= 1e-12 and np.abs(found[1] - p).max() <= 1e-12
    f = np.array(f)
    expected = np.median(f[[0, 1, 2, 4]]) / np.where(f > 0, f, 1) * (f > 0)
    weights = median_frequency_weights(labels, 5)
    assert weights.dtype == np.float32 and np.abs(weights - expected).max() <= 1e-6 and weights[3] == 0
    assert np.abs(enet_weights(labels, 5) * np.log(1.02 + np.array(p)) - 1).max() <= 1e-6
    nothing = np.full((2, 3, 3), 255, np.uint8)
    assert (median_frequency_weights(nothing, 3) == 0).all() and np.isfinite(enet_weights(nothing, 3)).all()
