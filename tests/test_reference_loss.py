"""The reference's softmax and cross-entropy, judged by SciPy, loops, finite differences and PyTorch."""

from __future__ import annotations

from itertools import product
from math import exp, fsum, log

import numpy as np
import pytest
from cases import cases
from checks import near, reference, sample, sums
from scipy.special import log_softmax, softmax

ONE = np.ones(1)


def each(row_name: str):
    return [pytest.param(case, id=case.label) for case in cases(row_name)]


@pytest.mark.parametrize("case", each("softmax"))
def test_softmax_by_scipy(case):
    (x,) = sample(case, np.float64)
    y = reference("softmax", x)
    assert near(y, softmax(x, axis=-1), 1e-14)
    assert np.abs(y.sum(axis=-1) - 1).max() <= 1e-14


def test_softmax_grad_by_loops(rng):
    dy, y = rng.normal(size=(2, 3, 2, 4)), softmax(rng.normal(size=(2, 3, 2, 4)), axis=-1)
    dx = reference("softmax_grad", dy, y)
    expected = np.zeros(y.shape)
    for n, i, j, k, m in product(*map(range, (*y.shape, 4))):  # dx_k = sum_m dy_m dy_m/dx_k
        expected[n, i, j, k] += dy[n, i, j, m] * y[n, i, j, m] * ((k == m) - y[n, i, j, k])
    assert near(dx, expected)


@pytest.mark.parametrize("case", each("softmax_cross_entropy"))
def test_cross_entropy_by_scipy(case):
    logits, target, weight_map, class_weight = sample(case, np.float64)
    ignored = {"ignore_index": case.options["ignore_index"]}
    found = sums("softmax_cross_entropy", logits, target, weight_map, class_weight, **ignored)
    log_p = log_softmax(logits, axis=-1)
    losses, weights = [], []
    for p in np.ndindex(target.shape):
        t = target[p]
        if t == case.options["ignore_index"]:
            continue
        weights.append((1 if weight_map is None else weight_map[p]) * (1 if class_weight is None else class_weight[t]))
        losses.append(-weights[-1] * log_p[*p, t])
    assert near(found, np.array([fsum(losses), fsum(weights), len(losses)]))
    assert abs(found[0] - fsum(losses)) <= 1e-12 * abs(fsum(losses))
    divisor = {"mean": len(losses), "sum": 1, "weighted": fsum(weights)}[case.options["reduction"]]
    loss, factor = reference("softmax_cross_entropy", logits, target, weight_map, class_weight, **case.options)
    assert near(factor, 1 / divisor if divisor else 0.0)
    assert near(loss, fsum(losses) / divisor if divisor else 0.0)


def test_worked_example():
    """Logits (0, log 3) are probabilities (1/4, 3/4); class 1 weighs 5, its pixel 2; the last pixel does not count."""
    logits = np.array([[0, log(3)], [0, log(3)], [7, 7]]).reshape(1, 1, 3, 2)
    target = np.array([0, 1, 255], np.int32).reshape(1, 1, 3)
    weight_map, class_weight = np.array([1.0, 2, 9]).reshape(1, 1, 3), np.array([1.0, 5])
    found = sums("softmax_cross_entropy", logits, target, weight_map, class_weight, ignore_index=255)
    assert near(found, np.array([log(4) + 10 * log(4 / 3), 11, 2]))
    arrays = logits, target, weight_map, class_weight
    dlogits = reference(
        "softmax_cross_entropy_grad", *arrays[:2], np.full(1, 0.5), np.full(1, 0.2), *arrays[2:], ignore_index=255
    )
    assert near(dlogits.reshape(3, 2), np.array([[-0.075, 0.075], [0.25, -0.25], [0, 0]]))


def test_confident_and_wrong_stays_finite():
    logits = np.array([1e4, -1e4]).reshape(1, 1, 1, 2)
    target = np.ones((1, 1, 1), np.int32)
    found = sums("softmax_cross_entropy", logits, target, None, None, ignore_index=255)
    assert found.tolist() == [2e4, 1, 1]
    dlogits = reference("softmax_cross_entropy_grad", logits, target, ONE, ONE, ignore_index=255)
    assert dlogits.ravel().tolist() == [1, -1]


def test_ignored_pixels_may_hold_anything():
    logits = np.zeros((1, 1, 2, 3))
    logits[0, 0, 0] = np.nan
    target = np.array([255, 1], np.int32).reshape(1, 1, 2)
    found = sums("softmax_cross_entropy", logits, target, None, None, ignore_index=255)
    assert near(found, np.array([log(3), 1, 1]))
    dlogits = reference("softmax_cross_entropy_grad", logits, target, ONE, ONE, ignore_index=255)
    assert near(dlogits[0, 0], np.array([[0, 0, 0], [1 / 3, -2 / 3, 1 / 3]]))


def test_a_nan_that_counts_is_seen():
    logits = np.zeros((1, 1, 2, 3))
    logits[0, 0, 0, 2] = np.nan
    target = np.zeros((1, 1, 2), np.int32)
    found = sums("softmax_cross_entropy", logits, target, None, None, ignore_index=255)
    assert np.isnan(found[0])


@pytest.mark.parametrize("wrong", [-1, 3, 254])
def test_a_target_that_is_no_class_is_refused(wrong):
    logits, target = np.zeros((1, 1, 2, 3)), np.array([[[0, wrong]]], np.int32)
    with pytest.raises(ValueError, match=f"targets run from .*{wrong}"):
        reference("softmax_cross_entropy", logits, target, ignore_index=255, reduction="mean")
    with pytest.raises(ValueError, match=f"targets run from .*{wrong}"):
        reference("softmax_cross_entropy_grad", logits, target, ONE, ONE, ignore_index=255)


@pytest.mark.parametrize("case", each("softmax_cross_entropy_grad"))
def test_gradient_by_loops(case):
    logits, target, dy, factor, weight_map, class_weight = sample(case, np.float64)
    arrays = logits, target, dy, factor, weight_map, class_weight
    dlogits = reference("softmax_cross_entropy_grad", *arrays, **case.options)
    expected = np.zeros(logits.shape)
    for p in np.ndindex(target.shape):
        t = int(target[p])
        if t == case.options["ignore_index"]:
            continue
        weight = (1 if weight_map is None else weight_map[p]) * (1 if class_weight is None else class_weight[t])
        z = [float(v) for v in logits[p]]
        e = [exp(v - max(z)) for v in z]
        for k in range(len(z)):
            expected[*p, k] = dy[0] * factor[0] * weight * (e[k] / fsum(e) - (k == t))
    assert near(dlogits, expected)


def test_gradient_by_finite_differences(rng):
    logits, direction = rng.normal(size=(2, 2, 3, 4, 5))
    target = rng.integers(0, 5, (2, 3, 4), dtype=np.int32)
    target[0, 0, :2] = 255
    weights = rng.uniform(0, 12, (2, 3, 4)), rng.uniform(0.1, 4, 5)
    dlogits = reference("softmax_cross_entropy_grad", logits, target, ONE, ONE, *weights, ignore_index=255)
    h = 1e-5
    up, down = (
        sums("softmax_cross_entropy", logits + t * direction, target, *weights, ignore_index=255)[0] for t in (h, -h)
    )
    slope = (dlogits * direction).sum()
    assert abs((up - down) / (2 * h) - slope) <= 1e-8 * np.linalg.norm(dlogits) * np.linalg.norm(direction)
    assert abs(slope) > 1e-3


def test_cross_entropy_by_torch(rng):
    torch = pytest.importorskip("torch")
    logits, target = rng.normal(size=(2, 4, 3, 5)), rng.integers(0, 5, (2, 4, 3), dtype=np.int32)
    target[1, 2] = 255
    class_weight = rng.uniform(0.1, 4, 5)
    leaf = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        leaf.permute(0, 3, 1, 2), torch.tensor(target).long(), torch.tensor(class_weight), ignore_index=255
    )
    loss.backward()
    arrays = logits, target, None, class_weight
    found = sums("softmax_cross_entropy", *arrays, ignore_index=255)
    assert abs(found[0] / found[1] - loss.item()) <= 1e-12 * loss.item()
    between = ONE, np.array([1 / found[1]])
    dlogits = reference("softmax_cross_entropy_grad", *arrays[:2], *between, *arrays[2:], ignore_index=255)
    assert near(dlogits, leaf.grad.numpy())
