"""The reference's losses of two classes and per-pixel cross-entropy, judged by loops, SciPy, hand and PyTorch."""

from __future__ import annotations

from math import exp, fsum, log, log1p

import numpy as np
import pytest
from cases import cases
from checks import near, reference, sample, sums
from scipy.special import expit, log_expit, log_softmax

ONE = np.ones(1)
FOCAL = {"gamma": 2.0, "alpha": 0.25, "ignore_index": 255}


def each(row_name: str):
    return [pytest.param(case, id=case.label) for case in cases(row_name)]


def close(value: float, expected: float) -> bool:
    return bool(np.isfinite(value) and abs(value - expected) <= 1e-12 * abs(expected))


@pytest.mark.parametrize("case", each("sigmoid_cross_entropy"))
def test_cross_entropy_by_scipy(case):
    logits, target, weight_map = sample(case, np.float64)
    found = sums("sigmoid_cross_entropy", logits, target, weight_map, ignore_index=case.options["ignore_index"])
    losses, weights = [], []
    for p in np.ndindex(target.shape):
        t = target[p]
        if t == case.options["ignore_index"]:
            continue
        weights.append(1.0 if weight_map is None else weight_map[p])
        losses.append(-weights[-1] * (t * log_expit(logits[p]) + (1 - t) * log_expit(-logits[p])))
    for value, expected in zip(found, (fsum(losses), fsum(weights), len(losses)), strict=True):
        assert close(value, expected)
    divisor = {"mean": len(losses), "sum": 1, "weighted": fsum(weights)}[case.options["reduction"]]
    loss, factor = reference("sigmoid_cross_entropy", logits, target, weight_map, **case.options)
    assert close(factor, 1 / divisor if divisor else 0.0)
    assert close(loss, fsum(losses) / divisor if divisor else 0.0)


@pytest.mark.parametrize("case", each("sigmoid_cross_entropy_grad"))
def test_cross_entropy_gradient_by_scipy(case):
    logits, target, dy, factor, weight_map = sample(case, np.float64)
    dlogits = reference("sigmoid_cross_entropy_grad", logits, target, dy, factor, weight_map, **case.options)
    weight = np.where(target == case.options["ignore_index"], 0, 1 if weight_map is None else weight_map)
    assert near(dlogits, dy * factor * weight * (expit(logits) - target))


def test_cross_entropy_by_hand():
    """sigmoid(log 3) = 3/4. Target 1 costs log(4/3), 0 costs log 4, 1/2 their mean; weights 1, 2, 3."""
    logits, target = np.full(4, log(3)), np.array([1, 0, 0.5, 255])
    weights = np.array([1.0, 2, 3, 9])
    found = sums("sigmoid_cross_entropy", logits, target, weights, ignore_index=255)
    assert near(found, np.array([log(4 / 3) + 2 * log(4) + 1.5 * log(16 / 3), 6, 3]))
    dlogits = reference("sigmoid_cross_entropy_grad", logits, target, 4 * ONE, 0.5 * ONE, weights, ignore_index=255)
    assert near(dlogits, np.array([-0.5, 3, 1.5, 0]))


@pytest.mark.parametrize("name", ["sigmoid_cross_entropy", "focal_loss"])
def test_confident_and_wrong_stays_finite(name):
    logits, target = np.array([1e4, -1e4, 1e4, -1e4]), np.array([0.0, 1, 1, 0])
    options = {"ignore_index": 255} | (FOCAL if name == "focal_loss" else {})
    found = sums(name, logits, target, **options)
    costs, slopes = ((7500, 2500), (0.75, -0.25)) if name == "focal_loss" else ((1e4, 1e4), (1, -1))
    assert found[0] == sum(costs)
    dlogits = reference(f"{name}_grad", logits, target, ONE, ONE, **options)
    assert dlogits.tolist() == [*slopes, 0, 0]


@pytest.mark.parametrize("name", ["sigmoid_cross_entropy", "focal_loss"])
@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -np.inf])
def test_ignored_elements_may_hold_anything_and_a_nan_that_counts_is_seen(name, rubbish):
    logits, target = np.array([rubbish, 0.5]), np.array([255.0, 1])
    options = {"ignore_index": 255} | (FOCAL if name == "focal_loss" else {})
    alone = sums(name, logits[1:], target[1:], **options)
    assert np.array_equal(sums(name, logits, target, **options), alone)
    dlogits = reference(f"{name}_grad", logits, target, ONE, ONE, **options)
    assert dlogits[0] == 0
    assert -1 < dlogits[1] < 0
    assert np.isnan(sums(name, np.array([np.nan, 0.5]), np.array([0.0, 1]), **options)[0])


@pytest.mark.parametrize("case", each("focal_loss"))
def test_focal_loss_by_loops(case):
    """Equation 5 as it stands: -a_t (1 - p_t)^gamma log p_t."""
    logits, target = sample(case, np.float64)
    gamma, alpha, ignored = (case.options[key] for key in ("gamma", "alpha", "ignore_index"))
    found = sums("focal_loss", logits, target, gamma=gamma, alpha=alpha, ignore_index=ignored)
    losses = []
    for p in np.ndindex(target.shape):
        if target[p] == ignored:
            continue
        sign, a = (1, alpha) if target[p] == 1 else (-1, 1 - alpha)
        losses.append(-a * expit(-sign * logits[p]) ** gamma * log_expit(sign * logits[p]))
    assert close(found[0], fsum(losses))
    assert close(found[1], len(losses))
    divisor = len(losses) if case.options["reduction"] == "mean" else 1
    loss, factor = reference("focal_loss", logits, target, **case.options)
    assert close(factor, 1 / divisor if divisor else 0.0)
    assert close(loss, fsum(losses) / divisor if divisor else 0.0)


def test_focal_loss_by_hand():
    """p = 3/4 for each: a one costs alpha (1/4)^2 log(4/3), a zero (1 - alpha) (3/4)^2 log 4."""
    logits = np.full(2, log(3))
    found = sums("focal_loss", logits, np.array([1.0, 0]), **FOCAL)
    assert near(found, np.array([log(4 / 3) / 64 + 27 / 64 * log(4), 2]))


@pytest.mark.parametrize("case", each("focal_loss_grad"))
def test_focal_gradient_by_loops(case):
    """The derivative in p, -a (log p (-gamma) (1 - p)^(gamma - 1) + (1 - p)^gamma / p), times dp/dz = p (1 - p)."""
    logits, target, dy, factor = sample(case, np.float64)
    dlogits = reference("focal_loss_grad", logits, target, dy, factor, **case.options)
    gamma, alpha, scale = case.options["gamma"], case.options["alpha"], dy[0] * factor[0]
    expected = np.zeros(target.shape)
    for i in np.ndindex(target.shape):
        if target[i] == case.options["ignore_index"]:
            continue
        sign, a = (1, alpha) if target[i] == 1 else (-1, 1 - alpha)
        z = sign * float(logits[i])
        p, q, log_p = expit(z), expit(-z), log_expit(z)
        expected[i] = -scale * sign * a * (q ** (gamma + 1) - gamma * p * q**gamma * log_p)
    assert near(dlogits, expected)


@pytest.mark.parametrize("name", ["sigmoid_cross_entropy", "focal_loss"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.7])
def test_gradients_by_finite_differences(name, gamma, rng):
    logits, direction = rng.normal(size=(2, 2, 5, 3, 1))
    target = rng.integers(0, 2, (2, 5, 3, 1)).astype(np.float64)
    target[0, 0] = 255
    options = {"ignore_index": 255} | (FOCAL | {"gamma": gamma} if name == "focal_loss" else {})
    dlogits = reference(f"{name}_grad", logits, target, ONE, ONE, **options)
    up, down = (sums(name, logits + h * direction, target, **options)[0] for h in (1e-5, -1e-5))
    slope = (dlogits * direction).sum()
    assert abs((up - down) / 2e-5 - slope) <= 1e-8 * np.linalg.norm(dlogits) * np.linalg.norm(direction)
    assert abs(slope) > 1e-4


def test_cross_entropy_by_torch(rng):
    torch = pytest.importorskip("torch")
    logits, (target, weights) = rng.normal(0, 3, (2, 4, 3, 1)), rng.uniform(size=(2, 2, 4, 3, 1))
    leaf = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        leaf, torch.tensor(target), torch.tensor(weights), reduction="sum"
    )
    loss.backward()
    assert close(sums("sigmoid_cross_entropy", logits, target, weights, ignore_index=255)[0], loss.item())
    dlogits = reference("sigmoid_cross_entropy_grad", logits, target, ONE, ONE, weights, ignore_index=255)
    assert near(dlogits, leaf.grad.numpy())


def overlap_by_hand(p: np.ndarray, target: np.ndarray, kind: str, smooth: float) -> float:
    """1 - (2 I + s) / (P + T + s), or 1 - (I + s) / (P + T - I + s); 0 of nothing."""
    both, either = fsum((p * target).flat), fsum([*p.flat, *target.flat])
    above, below = (2 * both, either) if kind == "dice" else (both, either - both)
    return 1 - (above + smooth) / (below + smooth) if below + smooth else 0.0


@pytest.mark.parametrize("case", each("overlap"))
def test_overlap_and_its_slopes(case):
    p, target = sample(case, np.float64)
    loss, (a, b) = reference("overlap", p, target, **case.options)
    assert abs(loss - overlap_by_hand(p, target, **case.options)) <= 1e-14
    if not (p.any() or target.any()):
        assert a == b == 0
        return
    for i in range(0, p.size, max(1, p.size // 5)):  # central differences
        change = np.zeros(p.size)
        change[i] = 1e-4
        up, down = (overlap_by_hand(p + s * change.reshape(p.shape), target, **case.options) for s in (1, -1))
        slope = a * target.flat[i] + b
        assert abs((up - down) / 2e-4 - slope) <= 1e-6 * (abs(a) + abs(b))


def test_overlap_gradient_by_loops(rng):
    target = rng.uniform(size=(2, 3, 5, 1))
    dp = reference("overlap_grad", target, 2 * ONE, np.array([-0.35, 0.15]))
    assert near(dp, np.array([-0.7 * t + 0.3 for t in target.flat]).reshape(target.shape), 1e-14)


@pytest.mark.parametrize("case", each("pixel_cross_entropy"))
def test_pixel_cross_entropy_by_scipy(case):
    logits, target = sample(case, np.float64)
    loss = reference("pixel_cross_entropy", logits, target, **case.options)
    log_p = log_softmax(logits, axis=-1)
    for p in np.ndindex(target.shape):
        ignored = target[p] == case.options["ignore_index"]
        expected = -1 if ignored else -log_p[*p, target[p]]
        assert abs(loss[p] - expected) <= 1e-13 * max(1, abs(expected))
        assert ignored or loss[p] >= 0


def test_pixel_cross_entropy_by_hand():
    logits = np.array([[0, 1], [1e4, 0], [np.nan, 0], [np.nan, 0]]).reshape(1, 1, 4, 2)
    target = np.array([[[0, 1, 255, 1]]], np.int32)
    loss = reference("pixel_cross_entropy", logits, target, ignore_index=255).ravel()
    assert abs(loss[0] - (1 + log1p(exp(-1)))) <= 1e-15
    assert loss[1:3].tolist() == [1e4, -1]
    assert np.isnan(loss[3])
    with pytest.raises(ValueError, match=r"targets run from .*2"):
        reference("pixel_cross_entropy", logits, np.full_like(target, 2), ignore_index=255)
