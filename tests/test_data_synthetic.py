"""The drawn stack: same seed, same pixels; shares, polarity and connectedness as in real sections."""

from __future__ import annotations

import time

import numpy as np
import pytest

from minunet.data.synthetic import synthetic_membranes
from minunet.data.weights import instances_from_labels
from minunet.errors import UserError


def test_a_seed_gives_the_same_stack_twice():
    a, b, c = (synthetic_membranes(2, 100, seed) for seed in (3, 3, 4))
    assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])
    assert not np.array_equal(a[0], c[0]) and not np.array_equal(a[1], c[1])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_resembles_a_membrane_stack(seed):
    images, labels = synthetic_membranes(4, 256, seed)
    assert images.shape == labels.shape == (4, 256, 256)
    assert images.dtype == labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1}
    assert 0.17 <= (labels == 0).mean() <= 0.26
    for image, truth in zip(images, labels):
        assert image[truth == 0].mean() < image[truth == 1].mean() - 20  # membranes are dark
        assert 20 <= image.std() <= 60
        cells = np.bincount(instances_from_labels(truth).ravel())[1:]
        assert 20 <= len(cells) <= 90
        assert cells.max() <= 0.15 * truth.size  # walls have no large gaps
    mean = images.mean((1, 2))
    assert mean.max() - mean.min() > 3  # sections differ in brightness
    centred = labels - labels.mean((1, 2), keepdims=True)
    alike = [(centred[0] * centred[s]).mean() / (centred[0].std() * centred[s].std()) for s in (1, 3)]
    assert 0.3 < alike[0] < 0.9  # walls drift, neighbours are no copies
    assert alike[1] < alike[0]


@pytest.mark.parametrize("size", [1, 2, 41, 47, 131])
def test_any_size(size):
    images, labels = synthetic_membranes(1, size, 5)
    assert images.shape == labels.shape == (1, size, size)


def test_refusals():
    for sections, size in ((0, 8), (2, 0)):
        with pytest.raises(UserError):
            synthetic_membranes(sections, size)


def test_the_default_stack_is_quick():
    synthetic_membranes(1, 8)  # compiles
    start = time.thread_time()
    synthetic_membranes(6)  # a fifth of the default stack
    assert time.thread_time() - start < 20.0  # for any machine: 0.4 s on one core of 2023
