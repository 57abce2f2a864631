"""The loss by its name: against formulas written out here, gradients by differences, several outputs, small outputs."""

from __future__ import annotations

import numpy as np
import pytest

import minunet as mu
from minunet import ops
from minunet.data import IGNORE
from minunet.models import Output
from minunet.training.config import LOSSES, ONE_LOGIT, Config
from minunet.training.objective import EDGE, KEPT, class_loss, edges, objective, shrink

SHAPE = (2, 5, 7)

pytestmark = pytest.mark.usefixtures("reference")


class Net:
    """As much of a network as `objective` looks at."""

    outputs = (Output(),)


def two(loss: str, **settings) -> Config:
    return Config(loss=loss, steps=1, **settings)


def many(loss: str, **settings) -> Config:
    return Config(dataset="streets", loss=loss, steps=1, **settings)


def draw(channels: int, classes: int, ignored: bool, seed: int = 0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, SHAPE).astype(np.int32)
    if ignored:
        target[rng.random(SHAPE) < 0.3] = IGNORE
    return rng.normal(0, 2, (*SHAPE, channels)), target


def by_hand(loss: str, x: np.ndarray, target: np.ndarray, w: np.ndarray, cw: np.ndarray) -> float:
    """The losses as their formulas, over the pixels that count."""
    known = target != IGNORE
    t = target[known]
    if x.shape[-1] == 1:
        s = 1 / (1 + np.exp(-x[known][:, 0]))
        right = np.where(t == 1, s, 1 - s)
        focal = -np.where(t == 1, 0.25, 0.75) * (1 - right) ** 2 * np.log(right)
        apart = np.abs(s - t)
        dice = 1 - (2 * (s * t).sum() + 1) / (s.sum() + t.sum() + 1)
        bce = (w[known] * cw[t] * -np.log(right)).mean()
        return {
            "bce": bce,
            "dice": dice,
            "bce+dice": bce + dice,
            "focal": focal.mean(),
            "mse": (apart**2).sum() / target.size,  # ignored pixels are in the divisor
            "mae": apart.sum() / target.size,
            "smooth_l1": (apart**2 / 2).sum() / target.size,
        }[loss]
    z = x[known]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    right = p[np.arange(len(t)), t]
    if loss == "dice":
        per = [1 - (2 * p[t == k, k].sum() + 1) / (p[:, k].sum() + (t == k).sum() + 1) for k in range(p.shape[1])]
        return float(np.mean(per))
    if loss == "ohem":
        hard = right <= 0.7
        least = target.size // KEPT
        if hard.sum() < least:
            hard = right <= np.sort(right)[least - 1]
        return (cw[t] * -np.log(right))[hard].mean()
    return (w[known] * cw[t] * -np.log(right)).mean()


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_by_their_formulas(loss, ignored):
    rng = np.random.default_rng(7)
    cases = [(1, 2, two)] if loss in ONE_LOGIT else [(7, 7, many)] + ([(1, 2, two)] if loss == "dice" else [])
    for channels, classes, config in cases:
        x, target = draw(channels, classes, ignored)
        w, cw = rng.uniform(0.5, 2, SHAPE), rng.uniform(0.5, 2, classes)
        weighted = {"bce": (w, cw), "bce+dice": (w, cw), "ce": (w, cw), "ohem": (None, cw)}.get(loss, (None, None))
        found = class_loss(mu.Tensor(x), target, weighted[0], config(loss), weighted[1]).item()
        expected = by_hand(
            loss, x, target, *(np.ones(n) if a is None else a for n, a in zip((SHAPE, classes), weighted))
        )
        assert np.isfinite(found) and abs(found - expected) <= 1e-6 * max(1, abs(expected)), (loss, channels)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_by_differences(loss):
    channels, classes, config = (1, 2, two) if loss in ONE_LOGIT else (7, 7, many)
    x, target = draw(channels, classes, True, seed=2)
    kept = target.copy(), x.copy()
    mu.gradcheck(lambda z: class_loss(z, target, None, config(loss)), [x])
    assert np.array_equal(target, kept[0]) and np.array_equal(x, kept[1])


def test_nothing_to_learn_from_is_no_loss():
    target = np.full(SHAPE, IGNORE, np.int32)
    for loss in LOSSES:
        channels, config = (1, two) if loss in ONE_LOGIT else (7, many)
        x = mu.Tensor(draw(channels, 2, False)[0], requires_grad=True)
        value = class_loss(x, target, None, config(loss))
        value.backward()
        assert np.isfinite(value.item()) and (x.grad is None or np.abs(x.grad).max() == 0), loss


def test_the_default_is_the_cross_entropy_itself():
    x, target = draw(2, 2, True)
    w = np.random.default_rng(1).uniform(0, 3, SHAPE)
    for reduction in ("mean", "weighted", "sum"):
        found = objective(mu.Tensor(x), target, w, two("ce", reduction=reduction), Net()).item()
        assert found == ops.softmax_cross_entropy(mu.Tensor(x), target, w, reduction=reduction).item()


def test_two_channels_cannot_have_a_loss_of_one():
    x, target = draw(2, 2, False)
    with pytest.raises(ValueError, match="mse needs one logit"):
        class_loss(mu.Tensor(x), target, None, two("mse"))


def test_several_outputs_are_weighed_and_shrunk():
    rng = np.random.default_rng(3)
    target = rng.integers(0, 7, (2, 8, 12)).astype(np.int32)
    target[0, :3] = IGNORE
    w = rng.uniform(0.5, 2, target.shape)

    class Three:
        outputs = (Output(), Output(0.4), Output(0.1, "edges"))

    x = [mu.Tensor(rng.normal(size=s), requires_grad=True) for s in ((2, 8, 12, 7), (2, 4, 4, 7), (2, 4, 6, 1))]
    config = many("ce")
    total = objective(tuple(x), target, w, config, Three())
    small, small_w = target[:, ::2, ::3], w[:, ::2, ::3]
    parts = [
        ops.softmax_cross_entropy(x[0], target, w).item(),
        0.4 * ops.softmax_cross_entropy(x[1], small, small_w).item(),
        0.1 * ops.focal_loss(x[2], edges(target)[:, ::2, ::2, None]).item(),
    ]
    assert abs(total.item() - sum(parts)) <= 1e-12
    total.backward()
    assert all(np.abs(t.grad).max() > 0 for t in x)
    with pytest.raises(ValueError):  # an output too few
        objective(tuple(x[:2]), target, w, config, Three())


def test_shrunken_grids():
    rows = np.repeat(np.arange(480, dtype=np.int32)[None, :, None], 2, axis=2)  # each pixel is its own row
    assert np.array_equal(shrink(rows, (60, 2))[0, :, 0], np.arange(60) * 8)
    assert np.array_equal(shrink(rows[:, :321], (41, 2))[0, :, 0], np.arange(41) * 8)  # DeepLab's 321 -> 41
    assert np.array_equal(shrink(rows[:, :45], (23, 1))[0, :, 0], np.arange(23) * 2)
    assert shrink(rows[:, :46], (12, 1))[0, :, 0].tolist() == [i * 46 // 12 for i in range(12)]
    assert shrink(rows, (480, 2)) is rows


def test_edges_by_brute_force():
    rng = np.random.default_rng(5)
    target = np.kron(rng.integers(0, 3, (2, 4, 5)), np.ones((1, 9, 8), int)).astype(np.int32)  # blocks
    target[1, :, 11:14] = IGNORE
    n, h, w = target.shape
    expected = np.zeros(target.shape, int)
    for s in range(n):
        for i in range(h):
            for j in range(w):
                for k, m in ((i + 1, j), (i, j + 1)):
                    if k < h and m < w:
                        a, b = target[s, i, j], target[s, k, m]
                        if a != b and IGNORE not in (a, b):
                            for y, x in ((i, j), (k, m)):
                                r = EDGE // 2
                                expected[s, max(y - r, 0) : y + r + 1, max(x - r, 0) : x + r + 1] = 1
    expected[target == IGNORE] = IGNORE
    assert np.array_equal(edges(target), expected) and 0 < (expected == 1).mean() < 1
    one = np.zeros((1, 1, 1), np.int32)
    assert edges(one).tolist() == [[[0]]]
