"""Losses and products as functions: divisors, the choice of hard pixels, shapes of targets, PyTorch's answers."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from minunet import ops
from minunet.tensor import Tensor

pytestmark = pytest.mark.usefixtures("backend")


def value_and_gradient(loss, x: np.ndarray, *args, **options) -> tuple[float, np.ndarray]:
    leaf = Tensor(x.copy(), requires_grad=True)
    y = loss(leaf, *args, **options)
    assert y.shape == ()
    assert y.dtype == x.dtype
    y.backward()
    return y.item(), leaf.grad


def near(a, b, tolerance: float = 1e-12) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return bool(a.shape == b.shape and np.isfinite(a).all() and np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b))


# --- two classes


def test_three_divisors_of_the_cross_entropy():
    """sigmoid(log 3) = 3/4; the last pixel is ignored. The sum is log(4/3) + 2 log 4 of 2 pixels that weigh 3."""
    logits, target = np.full((1, 1, 3, 1), log(3)), np.array([[[1, 0, 255]]], np.uint8)
    weights, total = np.array([[[1.0, 2, 5]]]), log(4 / 3) + 2 * log(4)
    for reduction, divisor in (("sum", 1), ("mean", 2), ("weighted", 3)):
        loss, slope = value_and_gradient(ops.sigmoid_cross_entropy, logits, target, weights, reduction=reduction)
        assert near(loss, total / divisor)
        assert near(slope.ravel(), np.array([-0.25, 1.5, 0]) / divisor)


def test_focal_loss_without_focus_is_half_the_cross_entropy(rng):
    logits, target = rng.normal(size=(2, 3, 5, 1)), rng.integers(0, 2, (2, 3, 5))
    for reduction in ("mean", "sum"):
        focal = value_and_gradient(ops.focal_loss, logits, target, 0.0, 0.5, reduction=reduction)
        plain = value_and_gradient(ops.sigmoid_cross_entropy, logits, target, reduction=reduction)
        assert near(2 * focal[0], plain[0])
        assert near(2 * focal[1], plain[1])


def test_overlaps_by_hand():
    """p = (1, 1/2, 0), t = (1, 1, 0): I = 3/2, sums 3/2 and 2. Dice 1 - (3 + 1) / (3.5 + 1), Jaccard 1 - 2.5 / 3."""
    p, target = np.array([1.0, 0.5, 0]).reshape(1, 1, 3, 1), np.array([[[1, 1, 0]]], bool)
    assert near(ops.dice_loss(p, target).item(), 1 - 4 / 4.5)
    assert near(ops.jaccard_loss(p, target).item(), 1 - 2.5 / 3)
    assert near(ops.dice_loss(p, target, smooth=0).item(), 1 - 3 / 3.5)
    assert near(ops.jaccard_loss(p, target, smooth=0).item(), 1 - 1.5 / 2)


@pytest.mark.parametrize("loss", [ops.dice_loss, ops.jaccard_loss])
def test_overlap_of_all_and_of_nothing(loss):
    none, every = np.zeros((2, 3, 5, 1)), np.ones((2, 3, 5, 1))
    assert loss(every, every, smooth=0).item() == 0
    assert loss(every, none, smooth=0).item() == 1
    for smooth in (0, 1):
        value, slope = value_and_gradient(loss, none, none, smooth=smooth)
        assert value == 0
        assert np.isfinite(slope).all()


@pytest.mark.parametrize("loss", [ops.dice_loss, ops.jaccard_loss])
def test_one_ratio_for_the_whole_batch(loss, rng):
    p, target = rng.uniform(size=(2, 3, 5, 1)), rng.integers(0, 2, (2, 3, 5))
    assert near(loss(p, target).item(), loss(p.reshape(1, 6, 5, 1), target.reshape(1, 6, 5)).item())
    each = [loss(p[[n]], target[[n]]).item() for n in range(2)]
    assert abs(loss(p, target).item() - np.mean(each)) > 1e-4


@pytest.mark.parametrize("kind", [np.uint8, np.int64, bool, np.float32, np.float64])
@pytest.mark.parametrize("loss", [ops.sigmoid_cross_entropy, ops.focal_loss, ops.dice_loss, ops.jaccard_loss])
def test_targets_of_every_kind_and_order(loss, kind, rng):
    """With and without the last axis, of any dtype, a view or not: one answer, and the target stays as it is."""
    x, target = rng.uniform(size=(2, 3, 5, 1)), rng.integers(0, 2, (2, 3, 5))
    expected = value_and_gradient(loss, x, target.astype(np.float64))
    other = np.asfortranarray(target.astype(kind))
    before = other.copy()
    for given in (other, other[..., None], Tensor(other) if other.dtype == np.float64 else other.tolist()):
        value, slope = value_and_gradient(loss, x, given)
        assert value == expected[0]
        assert np.array_equal(slope, expected[1])
    assert np.array_equal(other, before)


@pytest.mark.parametrize("loss", [ops.sigmoid_cross_entropy, ops.focal_loss])
@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -np.inf])
def test_ignored_elements_may_hold_anything(loss, rubbish, rng):
    logits, target = rng.normal(size=(2, 3, 5, 1)), rng.integers(0, 2, (2, 3, 5))
    target[0, 1] = 255
    expected = value_and_gradient(loss, logits, target)
    logits[0, 1] = rubbish
    value, slope = value_and_gradient(loss, logits, target)
    assert value == expected[0]
    assert np.isfinite(slope).all()
    assert np.array_equal(slope, np.where(target[..., None] == 255, 0, expected[1]))


@pytest.mark.parametrize("loss", [ops.sigmoid_cross_entropy, ops.focal_loss, ops.dice_loss, ops.jaccard_loss])
def test_a_nan_that_counts_is_seen(loss, rng):
    x, target = rng.uniform(size=(2, 3, 5, 1)), rng.integers(0, 2, (2, 3, 5))
    x[1, 2, 3] = np.nan
    value, slope = value_and_gradient(loss, x, target)
    assert np.isnan(value)
    assert np.isnan(slope[1, 2, 3, 0])


def test_several_channels(rng):
    """One-hot targets of the logits' own shape: a sigmoid for each class."""
    logits, target = rng.normal(size=(2, 3, 5, 4)), rng.integers(0, 2, (2, 3, 5, 4))
    each = [ops.sigmoid_cross_entropy(logits[..., [k]], target[..., k]).item() for k in range(4)]
    assert near(ops.sigmoid_cross_entropy(logits, target).item(), np.mean(each))


# --- hard pixels


def choose(logits: np.ndarray, target: np.ndarray, threshold: float, min_kept: int) -> list[tuple[int, ...]]:
    """The pixels kept, by sorting: those up to the threshold, or up to the min_kept-th lowest probability."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = {i: (e[i] / e[i].sum())[target[i]] for i in np.ndindex(target.shape) if target[i] != 255}
    lowest = sorted(p.values())
    if min_kept and lowest:
        threshold = max(threshold, lowest[min(min_kept, len(lowest)) - 1])
    return [i for i, value in p.items() if value <= threshold * (1 + 1e-12)]


@pytest.mark.parametrize("threshold", [1e-6, 0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("min_kept", [0, 1, 7, 20, 1000])
@pytest.mark.parametrize("weighted", [False, True])
def test_ohem_by_sorting(threshold, min_kept, weighted, rng):
    logits, target = rng.normal(0, 2, (2, 3, 5, 4)), rng.integers(0, 4, (2, 3, 5))
    target[0, 0] = 255
    weights = np.array([0.5, 1, 2, 3]) if weighted else np.ones(4)
    kept = choose(logits, target, threshold, min_kept)
    loss, slope = value_and_gradient(
        ops.ohem_cross_entropy, logits, target, threshold, min_kept, weights if weighted else None
    )
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    total, expected = 0.0, np.zeros(logits.shape)
    for i in kept:
        w = weights[target[i]] / len(kept)
        total -= w * log(p[i][target[i]])
        expected[i] = w * (p[i] - (np.arange(4) == target[i]))
    assert near(loss, total)
    assert near(slope, expected)
    assert len(kept) >= min(min_kept, 25)


def test_ohem_keeps_ties():
    """Four pixels: one hard, two that tie, one easy. The second hardest ties with the third, so three are kept."""
    logits = np.array([[-3.0, 0], [1, 0], [1, 0], [9, 0]]).reshape(1, 2, 2, 2)
    target = np.zeros((1, 2, 2), int)
    _, slope = value_and_gradient(ops.ohem_cross_entropy, logits, target, 0.1, 2)
    assert (slope.reshape(4, 2) != 0).all(axis=1).tolist() == [True, True, True, False]
    _, slope = value_and_gradient(ops.ohem_cross_entropy, logits, target, 0.1, 1)
    assert (slope.reshape(4, 2) != 0).all(axis=1).tolist() == [True, False, False, False]


def test_ohem_of_nothing_and_of_nan():
    logits, target = np.zeros((1, 2, 3, 2)), np.full((1, 2, 3), 255)
    for least in (0, 5):
        loss, slope = value_and_gradient(ops.ohem_cross_entropy, logits, target, 0.7, least)
        assert loss == 0
        assert not slope.any()
    logits[0, 1, 2] = np.nan
    target[...] = 0
    for least in (0, 1, 6):
        assert np.isnan(ops.ohem_cross_entropy(logits, target, 0.1, least).item())


def test_ohem_with_every_pixel_is_the_cross_entropy(rng):
    logits, target = rng.normal(size=(2, 3, 5, 4)), rng.integers(0, 4, (2, 3, 5)).astype(np.uint8)
    target[1, 2] = 255
    before = target.copy()
    ohem = value_and_gradient(ops.ohem_cross_entropy, logits, target, 1.0)
    plain = value_and_gradient(ops.softmax_cross_entropy, logits, target)
    assert ohem[0] == plain[0]
    assert np.array_equal(ohem[1], plain[1])
    assert np.array_equal(target, before)


# --- differences and products


@pytest.mark.parametrize("name", ["mse_loss", "mae_loss", "smooth_l1_loss"])
def test_differences_by_torch(name, rng):
    torch = pytest.importorskip("torch")
    x, target = rng.normal(0, 2, (2, 2, 5, 7, 3))
    leaf = torch.tensor(x, requires_grad=True)
    function = {"mse_loss": "mse_loss", "mae_loss": "l1_loss", "smooth_l1_loss": "smooth_l1_loss"}[name]
    expected = getattr(torch.nn.functional, function)(leaf, torch.tensor(target))
    expected.backward()
    value, slope = value_and_gradient(getattr(ops, name), x, target)
    assert near(value, expected.item())
    assert near(slope, leaf.grad.numpy())


def test_float32_stays_float32(rng):
    x, target = rng.uniform(size=(2, 9, 5, 1)).astype(np.float32), rng.integers(0, 2, (2, 9, 5, 1))
    names = "sigmoid_cross_entropy", "focal_loss", "dice_loss", "jaccard_loss", "mse_loss", "mae_loss", "smooth_l1_loss"
    for name in names:
        loss = getattr(ops, name)
        single, double = value_and_gradient(loss, x, target), value_and_gradient(loss, x.astype(np.float64), target)
        assert single[1].dtype == np.float32
        assert near(single[0], double[0], 1e-6)
        assert near(single[1], double[1], 1e-6)


def test_matmul_is_numpys(rng):
    a, b = rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 5, 2))
    expected = np.stack([u @ v for u, v in zip(a, b)])
    at, bt = np.ascontiguousarray(a.swapaxes(1, 2)), np.ascontiguousarray(b.swapaxes(1, 2))
    for left, right, flags in ((a, b, {}), (at, b, {"transpose_a": True}), (a, bt, {"transpose_b": True})):
        assert near(ops.matmul(left, right, **flags).numpy(), expected)
    assert near(ops.matmul(at, bt, transpose_a=True, transpose_b=True).numpy(), expected)
    assert near(ops.matmul(a.copy("F"), b.copy("F")).numpy(), expected)


def test_attention_in_two_products(rng):
    """q (k^T v) is (q k^T) v, without the HW x HW matrix in between."""
    q, k, v = rng.normal(size=(2, 30, 4)), rng.normal(size=(2, 30, 4)), rng.normal(size=(2, 30, 7))
    y = ops.matmul(q, ops.matmul(k, v, transpose_a=True))
    assert near(y.numpy(), ops.matmul(ops.matmul(q, k, transpose_b=True), v).numpy())


def test_reshape_shares_memory_and_keeps_the_order(rng):
    x = Tensor(rng.normal(size=(2, 3, 5, 4)), requires_grad=True)
    y = ops.reshape(x, (2, -1, 4))
    assert y.shape == (2, 15, 4)
    assert np.shares_memory(y.numpy(), x.numpy())
    assert ops.reshape(x, [np.int64(120)]).shape == (120,)
    dy = rng.normal(size=(2, 15, 4))
    y.backward(dy)
    assert np.array_equal(x.grad, dy.reshape(2, 3, 5, 4))
