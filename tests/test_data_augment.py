"""Training tiles: checked against deforming, padding and cropping whole sections with SciPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline

from minunet.backends.cpu.augment import spline_weights
from minunet.data.augment import IGNORE, Augment, normalise, sample_tile
from minunet.data.synthetic import synthetic_membranes
from minunet.data.tiles import mirror_pad
from minunet.data.weights import instances_from_labels, weight_map
from minunet.errors import UserError

STILL = Augment.none()
ELASTIC = Augment(flips=False, rotations=False, elastic=6.0, brightness=0, contrast=0, gamma=0)


def section(seed: int = 0, H: int = 70, W: int = 97) -> tuple[np.ndarray, np.ndarray]:
    images, labels = synthetic_membranes(1, 128, seed)
    return normalise(images[0, :H, :W]), labels[0, :H, :W].copy()


def place(seed: int, H: int, W: int, oh: int, ow: int) -> tuple[int, int, np.random.Generator]:
    """The window that sample_tile draws without flips and rotations, and the generator after that."""
    rng = np.random.default_rng(seed)
    top = rng.integers(min(0, H - oh), max(0, H - oh) + 1)
    left = rng.integers(min(0, W - ow), max(0, W - ow) + 1)
    return int(top), int(left), rng


@settings(max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    H=st.integers(1, 40),
    W=st.integers(1, 40),
    oh=st.integers(1, 30),
    ow=st.integers(1, 30),
    my=st.integers(0, 20),
    mx=st.integers(0, 20),
)
def test_a_still_tile_is_cut_from_the_mirrored_section(seed, H, W, oh, ow, my, mx):
    image = np.random.default_rng(seed).normal(size=(H, W)).astype(np.float32)
    labels = np.random.default_rng(seed + 1).integers(0, 3, (H, W), dtype=np.uint8)
    kept = image.copy(), labels.copy()
    size_in, size_out = (oh + 2 * my, ow + 2 * mx), (oh, ow)
    x, y, w = sample_tile(np.random.default_rng(seed), image, labels, size_in, size_out, STILL)
    assert (x.shape, x.dtype, y.shape, y.dtype, w) == ((*size_in, 1), np.float32, size_out, np.uint8, None)
    top, left, _ = place(seed, H, W, oh, ow)
    if oh <= H:
        assert 0 <= top <= H - oh  # all output inside the section
    else:
        assert top <= 0 and top + oh >= H  # all of the section inside the output
    plane = mirror_pad(image, 100, 100, 100, 100)
    a, b = 100 + top - my, 100 + left - mx
    assert np.array_equal(x[:, :, 0], plane[a : a + size_in[0], b : b + size_in[1]])
    truth = np.full((H + 200, W + 200), IGNORE)
    truth[100 : 100 + H, 100 : 100 + W] = labels
    assert np.array_equal(y, truth[100 + top : 100 + top + oh, 100 + left : 100 + left + ow])
    assert np.array_equal(image, kept[0]) and np.array_equal(labels, kept[1])


def test_windows_reach_every_place_evenly():
    image = np.zeros((7, 6), np.float32)
    labels = np.arange(42, dtype=np.uint8).reshape(7, 6)
    counts = np.zeros((5, 3), int)
    rng = np.random.default_rng(0)
    for _ in range(1500):
        _, y, _ = sample_tile(rng, image, labels, (3, 4), (3, 4), STILL)
        counts[divmod(int(y[0, 0]), 6)] += 1
    assert counts.min() >= 60 and counts.max() <= 145  # 100 expected, sd 10


@pytest.mark.parametrize("size_out", [(4, 4), (3, 5)])
def test_all_eight_symmetries_occur_and_everything_turns_together(size_out):
    H, W = size_out if size_out[0] == size_out[1] else (8, 8)
    labels = np.arange(H * W, dtype=np.uint8).reshape(H, W)
    image = labels.astype(np.float32)
    rng = np.random.default_rng(0)
    augment = Augment(elastic=0, brightness=0, contrast=0, gamma=0)
    seen = set()
    for _ in range(120):
        x, y, w = sample_tile(rng, image, labels, size_out, size_out, augment, weights=image * 2)
        assert y.shape == size_out and np.array_equal(x[:, :, 0], y) and np.array_equal(w, 2.0 * y)
        seen.add(
            tuple(np.sign([int(y[0, 1]) - int(y[0, 0]), int(y[1, 0]) - int(y[0, 0])]))
            + (abs(int(y[0, 1]) - int(y[0, 0])) == 1,)
        )
    assert len(seen) == 8


@pytest.mark.parametrize("n", [2, 3, 4, 9, 50, 511])
def test_the_spline_is_scipys_natural_cubic_spline(n):
    nodes = np.random.default_rng(n).normal(size=3)
    positions = np.arange(n)
    spline = CubicSpline([0, (n - 1) / 2, n - 1], nodes, bc_type="natural")
    assert np.allclose(spline_weights(positions, n) @ nodes, spline(positions), atol=1e-12)
    assert np.allclose(spline_weights(np.zeros(2, int), 1), [[1, 0, 0]] * 2)


def displaced(H, W, nodes):
    """Where each pixel of the deformed section comes from: y, x, by SciPy's splines along both axes."""
    fields = []
    for axis in (0, 1):
        across = CubicSpline([0, (W - 1) / 2, W - 1], nodes[axis], axis=1, bc_type="natural")(np.arange(W))
        fields.append(CubicSpline([0, (H - 1) / 2, H - 1], across, axis=0, bc_type="natural")(np.arange(H)))
    i, j = np.indices((H, W))
    return i + fields[0], j + fields[1]


def keys(x):
    """Keys' cubic kernel with a = -1/2, as in the paper of 1981."""
    x = np.abs(x)
    return np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))


def sampled(image, y, x, kernel):
    """The deformed section: every pixel of the mirrored section, weighted by the kernel, the slow way."""
    R = 60
    plane = mirror_pad(image.astype(np.float64), R, R, R, R)
    out = np.zeros(y.shape)
    iy, ix = np.floor(y).astype(int), np.floor(x).astype(int)
    for a in range(-1, 3):
        for b in range(-1, 3):
            out += kernel(y - iy - a) * kernel(x - ix - b) * plane[iy + a + R, ix + b + R]
    return out


@pytest.mark.parametrize("sampling", ["cubic", "linear"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_elastic_tile_is_cut_from_the_deformed_section(sampling, seed):
    image, labels = section(seed)
    H, W = image.shape
    (h, w), (oh, ow) = (61, 58), (21, 30)
    augment = Augment(**{**vars(ELASTIC), "sampling": sampling})
    x, y, _ = sample_tile(np.random.default_rng(seed), image, labels, (h, w), (oh, ow), augment)
    top, left, rng = place(seed, H, W, oh, ow)
    fy, fx = displaced(H, W, rng.normal(0, 6.0, (2, 3, 3)))
    kernel = keys if sampling == "cubic" else lambda d: np.clip(1 - np.abs(d), 0, None)
    deformed = mirror_pad(sampled(image, fy, fx, kernel), 90, 90, 90, 90)
    expected = deformed[90 + top - 20 :, 90 + left - 14 :][:h, :w]
    error = np.abs(x[:, :, 0] - expected).max()
    assert np.isfinite(error) and error <= 1e-5

    p, q = np.floor(fy + 0.5).astype(int), np.floor(fx + 0.5).astype(int)
    inside = (p >= 0) & (p < H) & (q >= 0) & (q < W)
    truth = np.where(inside, labels[np.clip(p, 0, H - 1), np.clip(q, 0, W - 1)], IGNORE)
    wrong = y != truth[top : top + oh, left : left + ow]
    assert wrong.mean() <= 0.002  # a half-way coordinate may round either way


def test_labels_from_beyond_the_border_are_ignored():
    image, labels = section(3)
    H, W = image.shape
    _, y, _ = sample_tile(np.random.default_rng(0), image, labels, (H, W), (H, W), ELASTIC)
    fy, fx = displaced(H, W, place(0, H, W, H, W)[2].normal(0, 6.0, (2, 3, 3)))
    beyond = (fy < -0.5) | (fy >= H - 0.5) | (fx < -0.5) | (fx >= W - 0.5)
    assert beyond.sum() > 100
    assert np.array_equal(y == IGNORE, beyond)


def test_elastic_in_a_section_smaller_than_the_tile():
    image, labels = section(1, 9, 14)
    x, y, w = sample_tile(np.random.default_rng(3), image, labels, (60, 50), (20, 20), ELASTIC, "balanced")
    assert np.isfinite(x).all() and np.isfinite(w).all()
    assert 0 < (y != IGNORE).sum() <= 9 * 14
    assert (w[y == IGNORE] == 0).all() and (w[y != IGNORE] > 0).all()
    one = sample_tile(np.random.default_rng(3), image[:1, :1], labels[:1, :1], (5, 5), (3, 3), ELASTIC, "max1")
    assert np.isfinite(one[0]).all()


def test_weights_of_a_tile_are_those_of_the_section():
    image, labels = section(4)
    labels[30:34, 20:60] = IGNORE
    labels[:5] = labels[-5:] = labels[:, :5] = 0  # walls at the border, where mirrored cells would come near
    cells = instances_from_labels(np.where(labels == IGNORE, 0, labels))
    whole = weight_map(cells, class_weights="none")
    augment = Augment(elastic=0, brightness=0, contrast=0, gamma=0)
    for seed in range(12):
        args = (image, labels, (97, 97), (60, 70) if seed % 2 else (97, 97), augment)
        _, y, cut = sample_tile(np.random.default_rng(seed), *args, weights=whole)
        _, same, made = sample_tile(np.random.default_rng(seed), *args, weights="none", instances=cells)
        *_, found = sample_tile(np.random.default_rng(seed), *args, weights="none")
        assert np.array_equal(y, same)
        error = max(np.abs(cut - made).max(), np.abs(cut - found).max())
        assert np.isfinite(error) and error <= 2e-6
        assert (made[y == IGNORE] == 0).all() and (made[y != IGNORE] >= 1).all()


def test_class_weights_are_the_sections_not_the_tiles():
    image, labels = section(5)
    share = (labels == 0).mean()
    _, y, w = sample_tile(np.random.default_rng(0), image, labels, (9, 9), (9, 9), STILL, "balanced", w0=0)
    assert np.allclose(w, np.where(y == 0, 0.5 / share, 0.5 / (1 - share)), rtol=1e-5)


def test_deformed_weights_are_those_of_the_deformed_labels():
    image, labels = section(6)
    whole = (70, 97)
    _, y, w = sample_tile(np.random.default_rng(2), image, labels, whole, whole, ELASTIC, "none")
    inner = (slice(30, 40), slice(30, 67))  # 30 px = 6 sigma from what the tile does not see
    expected = weight_map(instances_from_labels(np.where(y == IGNORE, 0, y)), class_weights="none")
    known = y[inner] != IGNORE
    assert known.any()
    assert np.abs(w[inner] - expected[inner])[known].max() <= 2e-6


def test_the_same_state_gives_the_same_tile():
    image, labels = section()
    everything = Augment(noise=0.3)
    args = (image, labels, (50, 40), (20, 10), everything, "balanced")
    a, b, c = (sample_tile(np.random.default_rng(seed), *args) for seed in (1, 1, 2))
    for p, q in zip(a, b):
        assert np.array_equal(p, q) and p.flags.c_contiguous
    assert not np.array_equal(a[0], c[0])


def test_refusals():
    image, labels = section()
    rng = np.random.default_rng(0)
    for call in (
        lambda: Augment(elastic=-1),
        lambda: Augment(noise=float("nan")),
        lambda: Augment(contrast=1),
        lambda: Augment(sampling="nearest"),
        lambda: sample_tile(rng, image, labels[1:], (8, 8), (4, 4), STILL),
        lambda: sample_tile(rng, image, labels, (8, 8), (9, 4), STILL),
        lambda: sample_tile(rng, image, labels, (8, 8), (0, 4), STILL),
        lambda: sample_tile(rng, image, labels, (8, 8), (4, 4), STILL, weights="equal"),
        lambda: sample_tile(rng, image, labels, (8, 8), (4, 4), STILL, weights=image[1:]),
        lambda: sample_tile(rng, image, labels, (8, 8), (4, 4), ELASTIC, weights=image),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert "\n" not in str(caught.value)


def ramp(H, W):
    """An image whose value tells the place: the row in channel 0, the column in channel 1."""
    return np.stack(np.mgrid[:H, :W].astype(np.float32), axis=2)


@pytest.mark.parametrize("size", [(40, 61), (41, 30)])
def test_zoom_scales_around_the_middle_of_the_window(size):
    H, W = size
    labels = (np.arange(H * W) % 250).reshape(size).astype(np.uint8)
    augment = replace(Augment.none(), zoom=0.5, sampling="linear")
    factors = []
    for seed in range(30):
        x, y, _ = sample_tile(np.random.default_rng(seed), ramp(H, W), labels, (21, 17), (21, 17), augment)
        rows, columns = x[..., 0].astype(float), x[..., 1].astype(float)
        known = (
            (y != IGNORE) & (rows >= 1) & (rows <= H - 2) & (columns >= 1) & (columns <= W - 2)
        )  # the rim is mirrored
        assert y[10, 8] != IGNORE and x.shape == (21, 17, 2)
        step = np.diff(rows, axis=0)[known[1:] & known[:-1]]  # one place a pixel, 1 / factor apart
        across = np.diff(columns, axis=1)[known[:, 1:] & known[:, :-1]]
        assert np.abs(np.concatenate([step, across]) - step.mean()).max() <= 1e-4
        i, j = np.nonzero(known & (np.abs(rows % 1 - 0.5) > 1e-3) & (np.abs(columns % 1 - 0.5) > 1e-3))
        nearest = np.rint(rows[i, j]).astype(int), np.rint(columns[i, j]).astype(int)
        assert np.array_equal(y[i, j], labels[nearest])
        factors.append(1 / step.mean())
        middle = rows[10, 8], columns[10, 8]
        assert all(abs(m - round(m)) <= 1e-4 for m in middle)  # the middle pixel stays where it was
    assert 1 / 1.5 - 1e-3 <= min(factors) < 0.8 and 1.25 < max(factors) <= 1.5 + 1e-3


def test_colour_images_are_cut_and_turned_as_one():
    rng = np.random.default_rng(4)
    image = rng.standard_normal((30, 44, 3)).astype(np.float32)
    labels = rng.integers(0, 4, (30, 44), dtype=np.uint8)
    before = image.copy()
    for seed in range(6):
        for augment in (Augment(elastic=0, brightness=0, contrast=0, gamma=0), Augment(elastic=3)):
            x, y, _ = sample_tile(np.random.default_rng(seed), image, labels, (16, 12), (10, 6), augment)
            for c in range(3):
                if augment.elastic == 0:
                    x1, y1, _ = sample_tile(
                        np.random.default_rng(seed), image[..., c], labels, (16, 12), (10, 6), augment
                    )
                    assert np.array_equal(x[..., c], x1[..., 0]) and np.array_equal(y, y1)
            assert x.shape == (16, 12, 3) and x.dtype == np.float32
    assert np.array_equal(image, before)
