"""The reference's losses of differences, judged by hand, loops and PyTorch."""

from __future__ import annotations

from math import fsum

import numpy as np
import pytest
from cases import cases
from checks import near, reference, sample

ONE = np.ones(1)
KINDS = ("mse", "mae", "smooth_l1")


def each(row_name: str):
    return [pytest.param(case, id=case.label) for case in cases(row_name)]


def value_and_slope(kind: str, d: float) -> tuple[float, float]:
    """The formula, one number at a time."""
    if kind == "mse":
        return d * d, 2 * d
    sign = (d > 0) - (d < 0)
    if kind == "mae":
        return abs(d), sign
    return (0.5 * d * d, d) if abs(d) < 1 else (abs(d) - 0.5, sign)


@pytest.mark.parametrize("case", each("distance"))
def test_distance_by_loops(case):
    x, target = sample(case, np.float64)
    loss = reference("distance", x, target, **case.options)
    expected = fsum(value_and_slope(case.options["kind"], float(d))[0] for d in (x - target).flat) / x.size
    assert loss.shape == ()
    assert np.isfinite(loss)
    assert abs(loss - expected) <= 1e-12 * expected


@pytest.mark.parametrize("case", each("distance_grad"))
def test_gradient_by_loops(case):
    x, target, dy = sample(case, np.float64)
    dx = reference("distance_grad", x, target, dy, **case.options)
    slopes = [value_and_slope(case.options["kind"], float(d))[1] for d in (x - target).flat]
    assert near(dx, dy[0] / x.size * np.reshape(slopes, x.shape))


@pytest.mark.parametrize(
    "kind, total, slopes",
    [
        ("mse", 16 + 1 + 0.25 + 0 + 0.25 + 4, [-8, -2, -1, 0, 1, 4]),
        ("mae", 8, [-1, -1, -1, 0, 1, 1]),
        ("smooth_l1", 3.5 + 0.5 + 0.125 + 0 + 0.125 + 1.5, [-1, -1, -0.5, 0, 0.5, 1]),
    ],
)
def test_by_hand(kind, total, slopes):
    d = np.array([-4, -1, -0.5, 0, 0.5, 2])
    target = np.full(6, 3.0)
    assert reference("distance", target + d, target, kind=kind) == total / 6
    assert reference("distance_grad", target + d, target, 6 * ONE, kind=kind).tolist() == slopes


@pytest.mark.parametrize("kind", KINDS)
def test_a_nan_is_seen(kind):
    x = np.array([np.nan, 0.5])
    assert np.isnan(reference("distance", x, np.zeros(2), kind=kind))
    dx = reference("distance_grad", x, np.zeros(2), ONE, kind=kind)
    assert np.isnan(dx[0])
    assert dx[1] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_by_torch(kind, rng):
    torch = pytest.importorskip("torch")
    function = {"mse": "mse_loss", "mae": "l1_loss", "smooth_l1": "smooth_l1_loss"}[kind]
    x, target = rng.normal(0, 2, (2, 2, 5, 7, 3))
    leaf = torch.tensor(x, requires_grad=True)
    loss = getattr(torch.nn.functional, function)(leaf, torch.tensor(target))
    loss.backward()
    assert abs(reference("distance", x, target, kind=kind) - loss.item()) <= 1e-12 * loss.item()
    assert near(reference("distance_grad", x, target, ONE, kind=kind), leaf.grad.numpy())
