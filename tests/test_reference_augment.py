"""The reference's training tiles, judged by NumPy's padding and turning, SciPy's splines and distance transforms."""

from __future__ import annotations

import numpy as np
import pytest
from checks import near, reference
from scipy import ndimage
from scipy.interpolate import CubicSpline

SIZES = [(9, 14), (14, 9), (5, 5), (1, 1), (1, 6), (7, 1)]  # of a section
EIGHT = [(turns, flip) for turns in range(4) for flip in (0, 1)]


def turned(window: np.ndarray, turns: int, flip: int) -> np.ndarray:
    return np.rot90(window[:, ::-1] if flip else window, turns)


def plane(section: np.ndarray, far: int, mode: str, **options) -> np.ndarray:
    """The section with `far` pixels more on each side, at most."""
    return np.pad(section, [(far, far), (far, far)] + [(0, 0)] * (section.ndim - 2), mode=mode, **options)


def displaced(H: int, W: int, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of the deformed section comes from, by SciPy's splines along both axes."""
    fields = []
    for k in (0, 1):
        across = spline(nodes[k].T, W).T  # (3, W)
        fields.append(spline(across, H))
    i, j = np.indices((H, W))
    return i + fields[0], j + fields[1]


def spline(nodes: np.ndarray, n: int) -> np.ndarray:
    """(n, ...) from nodes (3, ...)."""
    if n == 1:
        return nodes[:1]
    return CubicSpline([0, (n - 1) / 2, n - 1], nodes, bc_type="natural")(np.arange(n))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("turns, flip", EIGHT)
def test_a_cut_is_a_window_of_the_padded_section(rng, size, turns, flip):
    x = rng.normal(size=(3, *size, 2))
    labels = rng.integers(0, 9, (3, *size), dtype=np.int32)
    tile, (top, left) = (6, 11), (-4, 2)
    h, w = tile if turns % 2 == 0 else tile[::-1]
    places = np.array([[2, top, left, turns, flip], [0, 0, 0, 0, 0]], np.int32)
    y = reference("deform", x, places, size=tile, cubic=True)
    marks = reference("deform_nearest", labels, places, size=tile, outside=-7)
    window = np.s_[20 + top : 20 + top + h, 20 + left : 20 + left + w]
    assert np.array_equal(y[0], turned(plane(x[2], 20, "reflect")[window], turns, flip))
    assert np.array_equal(marks[0], turned(plane(labels[2], 20, "constant", constant_values=-7)[window], turns, flip))
    assert np.array_equal(y[1], plane(x[0], 20, "reflect")[20:26, 20:31])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("cubic", [True, False])
def test_a_deformed_window_is_cut_from_the_deformed_section(rng, size, cubic):
    H, W = size
    x, labels = rng.normal(size=(1, H, W, 3)), rng.integers(0, 99, (1, H, W), dtype=np.int32)
    nodes, places = rng.normal(0, 3, (1, 2, 3, 3)), np.array([[0, -3, 1, 3, 1]], np.int32)
    r, q = displaced(H, W, nodes[0])
    deformed = np.zeros((H, W, 3))
    far = 40
    wide = plane(x[0], far, "reflect")
    for u in range(-1, 3):  # Catmull-Rom through four points is the mean of two parabolas, here as weights
        for v in range(-1, 3):
            weight = tap(r % 1, u, cubic) * tap(q % 1, v, cubic)
            a, b = np.floor(r).astype(int) + u + far, np.floor(q).astype(int) + v + far
            deformed += weight[..., None] * wide[a, b]
    tile = (8, 5)
    y = reference("deform", x, places, nodes, size=tile, cubic=cubic)
    window = np.s_[20 - 3 : 20 + 2, 20 + 1 : 20 + 9]
    assert near(y[0], turned(plane(deformed, 20, "reflect")[window], 3, 1), 1e-10)

    p, s = np.floor(r + 0.5).astype(int), np.floor(q + 0.5).astype(int)
    inside = (p >= 0) & (p < H) & (s >= 0) & (s < W)
    moved = np.where(inside, labels[0][np.clip(p, 0, H - 1), np.clip(s, 0, W - 1)], -1)
    marks = reference("deform_nearest", labels, places, nodes, size=tile, outside=-1)
    assert np.array_equal(marks[0], turned(plane(moved, 20, "constant", constant_values=-1)[window], 3, 1))


def tap(f: np.ndarray, u: int, cubic: bool) -> np.ndarray:
    """The weight of pixel u in -1 .. 2 at 0 <= f < 1: the parabola through -1, 0, 1 and that through 0, 1, 2, mixed."""
    if not cubic:
        return {0: 1 - f, 1: f}.get(u, 0 * f)
    left = {-1: f * (f - 1) / 2, 0: 1 - f * f, 1: f * (f + 1) / 2}
    right = {0: (f - 1) * (f - 2) / 2, 1: f * (2 - f), 2: f * (f - 1) / 2}
    return (1 - f) * left.get(u, 0 * f) + f * right.get(u, 0 * f)


def test_gamma_keeps_the_ends_and_bends_between(rng):
    x = rng.normal(size=(3, 6, 5, 2))
    x[2] = 4.5
    y = reference("gamma_curve", x, np.array([1.0, 2.0, 0.5]))
    assert near(y[0], x[0])
    low, high = x[1].min(), x[1].max()
    assert near((y[1] - low) * (high - low), (x[1] - low) ** 2, 1e-12)
    assert np.array_equal(y[2], x[2])


def test_stretch(rng):
    x, factor, shift = rng.normal(size=(2, 3, 4, 2)), rng.normal(size=(2, 2)), rng.normal(size=(2, 2))
    y = reference("stretch", x, factor, shift)
    for n in range(2):
        for c in range(2):
            assert near(y[n, ..., c], factor[n, c] * x[n, ..., c] + shift[n, c])


def test_noise_is_normal_and_a_function_of_its_seed():
    x, sd = np.full((2, 100, 100, 2), 3.0), np.array([1.0, 0.0])
    y, again, other = (reference("add_noise", x, sd, seed=seed) for seed in (5, 5, 6))
    z = (y - x)[0].ravel()
    assert np.array_equal(y, again) and np.array_equal(y[1], x[1])
    assert abs(np.corrcoef(z, (other - x)[0].ravel())[0, 1]) <= 0.03
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) <= 0.03
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):  # of the normal distribution; 20,000 draws
        assert abs((z**power).mean() - moment) <= 5 * np.sqrt((z ** (2 * power)).mean() / z.size)
    assert np.abs(z).max() <= 5.8


@pytest.mark.parametrize("everywhere", [False, True])
def test_border_weights_by_scipys_distances(rng, everywhere):
    cells = np.stack([ndimage.label(section < 0.35)[0] for section in rng.random((3, 23, 31))]).astype(np.int32)
    cells[2] = 0
    sigma, rim, reach = 1.3, 4, 8
    y = reference("border_weights", cells, w0=7.0, sigma=sigma, reach=reach, rim=rim, everywhere=everywhere)
    for found, section in zip(y, cells):
        distances = [ndimage.distance_transform_edt(section != k) for k in range(1, section.max() + 1)]
        d = np.sort([np.where(d <= reach, d, np.inf) for d in distances] + [np.full(section.shape, np.inf)] * 2, axis=0)
        truth = 7.0 * np.exp(-((d[0] + d[1]) ** 2) / (2 * sigma**2))
        truth = truth if everywhere else np.where(section > 0, 0, truth)
        assert near(found, truth[rim:-rim, rim:-rim], 1e-7)
    assert y[0].max() > 0 and not y[2].any()
