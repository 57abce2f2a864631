"""What augmentation does to values: light, contrast, gamma, noise, colour; and their normalisation before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minunet.data.augment import Augment, normalise, relight
from minunet.errors import UserError


def test_relighting():
    x = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    none = Augment.none()

    def lit(**change):
        return relight(np.random.default_rng(1), x.copy(), Augment(**{**vars(none), **change}))

    assert np.array_equal(lit(), x)
    shift = lit(brightness=0.5) - x
    assert 0 < abs(shift.mean()) <= 0.5 and np.ptp(shift) < 1e-6
    ratio = lit(contrast=0.5) / x
    assert 0.5 <= ratio.mean() <= 1.5 and np.ptp(ratio) < 1e-5 and abs(ratio.mean() - 1) > 1e-3
    bent = lit(gamma=0.5)
    order = np.argsort(x, axis=None)
    assert np.all(np.diff(bent.ravel()[order]) >= 0)  # monotone
    assert np.allclose([bent.min(), bent.max()], [x.min(), x.max()], atol=1e-5)
    assert np.abs(bent - x).max() > 0.01
    flat = relight(np.random.default_rng(1), np.full((3, 3), 2, np.float32), Augment(**{**vars(none), "gamma": 1}))
    assert np.array_equal(flat, np.full((3, 3), 2, np.float32))
    sd = (lit(noise=0.5) - x).std()
    assert 0.01 < sd <= 0.55


@given(H=st.integers(1, 20), W=st.integers(1, 20), seed=st.integers(0, 1000))
def test_normalise(H, W, seed):
    stack = np.random.default_rng(seed).integers(0, 256, (3, H, W), dtype=np.uint8)
    stack[1] = 77
    out = normalise(stack)
    assert out.dtype == np.float32 and out.shape == stack.shape
    assert not out[1].any()
    for x, before in zip(out[[0, 2]], stack[[0, 2]]):
        assert abs(x.mean(dtype=np.float64)) <= 1e-5
        assert abs(x.std(dtype=np.float64) - (before.min() < before.max())) <= 1e-5
        assert np.array_equal(normalise(before), x)


def test_normalise_of_awkward_values():
    assert not normalise(np.full((4, 5), 0.1)).any()
    assert np.allclose(normalise(np.array([[1e30, -1e30]])), [[1, -1]])
    assert np.allclose(normalise(np.array([[True, False]])), [[1, -1]])
    for bad in (np.array([[0, np.nan]]), np.array([[0, np.inf]]), np.zeros(3), np.zeros((0, 3))):
        with pytest.raises(UserError):
            normalise(bad)


def test_colour_changes_channels_by_themselves():
    augment = replace(Augment.none(), colour=0.2)
    image = np.ones((5, 6, 3), np.float32)
    shown = np.stack([relight(np.random.default_rng(k), image.copy(), augment)[0, 0] for k in range(60)])  # (60, 3)
    assert shown.min() >= 0.6 and shown.max() <= 1.4 and shown.std(axis=1).min() > 0 and np.abs(shown.mean() - 1) < 0.05
    grey = np.ones((5, 6), np.float32)
    assert np.array_equal(relight(np.random.default_rng(0), grey.copy(), augment), grey)
    with pytest.raises(UserError, match="colour = 1"):
        replace(Augment.none(), colour=1.0)
