"""The reference's pointwise kernels, judged element by element in plain Python, and by SciPy."""

from __future__ import annotations

import math
from itertools import product
from math import exp, expm1

import numpy as np
import pytest
from checks import near, reference
from scipy.special import expit

X = [-1e4, -800.0, -3.0, -0.5, -1e-9, -0.0, 0.0, 1e-9, 0.5, 3.0, 800.0, 1e4]  # kinks and overflow included


def logistic(x: float) -> float:
    return 1 / (1 + exp(-x)) if x > -700 else 0.0


FORWARD = {
    "relu": ({}, lambda x: max(x, 0.0)),
    "leaky_relu": ({"slope": 0.2}, lambda x: x if x > 0 else 0.2 * x),
    "elu": ({"alpha": 1.3}, lambda x: x if x > 0 else 1.3 * expm1(x)),
    "sigmoid": ({}, logistic),
    "tanh": ({}, math.tanh),
    "scale": ({"factor": -0.37}, lambda x: -0.37 * x),
}


@pytest.mark.parametrize("name", FORWARD)
def test_forward_by_formula(name):
    options, formula = FORWARD[name]
    y = reference(name, np.array(X), **options)
    assert np.abs(y - [formula(x) for x in X]).max() <= 1e-14 * max(map(abs, X))
    small = np.abs(X) <= 3
    assert np.abs((y - [formula(x) for x in X])[small]).max() <= 1e-15


def test_sigmoid_by_scipy(rng):
    x = np.concatenate((rng.normal(0, 20, 500), X))
    assert near(reference("sigmoid", x), expit(x), 1e-15)
    assert reference("sigmoid", np.array([-40.0, 40.0])).tolist() == pytest.approx([exp(-40), 1.0], rel=1e-14)


GRADIENT = {  # second input, derivative as a function of x
    "relu": ({}, "y", lambda x: float(x > 0)),
    "leaky_relu": ({"slope": 0.2}, "x", lambda x: 1 if x > 0 else 0.2),
    "elu": ({"alpha": 1.3}, "y", lambda x: 1 if x > 0 else 1.3 * exp(x)),
    "sigmoid": ({}, "y", lambda x: logistic(x) * (1 - logistic(x))),
    "tanh": ({}, "y", lambda x: 4 * exp(2 * x) / (exp(2 * x) + 1) ** 2),
}


@pytest.mark.parametrize("name", GRADIENT)
def test_gradient_by_formula(name, rng):
    options, given, derivative = GRADIENT[name]
    x = np.array([v for v in X if abs(v) <= 3])
    dy = rng.normal(size=x.shape)
    second = reference(name, x, **options) if given == "y" else x
    dx = reference(f"{name}_grad", dy, second, **options)
    assert np.abs(dx - [d * derivative(v) for d, v in zip(dy, x)]).max() <= 1e-14


def test_relu_gradient_takes_input_or_output(rng):
    x, dy = rng.normal(size=(2, 3, 4))
    from_output = reference("relu_grad", dy, reference("relu", x))
    assert np.array_equal(from_output, reference("relu_grad", dy, x))


def test_relu_passes_nan_on():
    assert np.isnan(reference("relu", np.array([np.nan]))).all()


def test_prelu_and_gradient_by_loops(rng):
    x, dy = rng.normal(size=(2, 2, 3, 4, 5))
    x[0, 0, 0, 0] = 0.0
    slope = rng.normal(0.25, 0.1, 5)
    y = reference("prelu", x, slope)
    dx, dslope = reference("prelu_grad", dy, x, slope)
    expected = np.zeros(5)
    for n, i, j, c in product(*map(range, x.shape)):
        v, d = x[n, i, j, c], dy[n, i, j, c]
        assert y[n, i, j, c] == (v if v > 0 else slope[c] * v)
        assert dx[n, i, j, c] == (d if v > 0 else slope[c] * d)
        expected[c] += 0 if v > 0 else v * d
    assert near(dslope, expected)


def test_gate_and_its_gradient_by_loops(rng):
    x, dy, g = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 1, 1, 5))
    y, dg = reference("gate", x, g), reference("gate_grad_g", dy, x)
    expected = np.zeros(g.shape)
    for n, i, j, c in product(*map(range, x.shape)):
        assert y[n, i, j, c] == x[n, i, j, c] * g[n, 0, 0, c]
        expected[n, 0, 0, c] += dy[n, i, j, c] * x[n, i, j, c]
    assert near(dg, expected)
    assert abs((dy * y).sum() - (dg * g).sum()) <= 1e-12 * np.linalg.norm(dy) * np.linalg.norm(y)


def test_add_by_formula(rng):
    a, b = rng.normal(size=(2, 3, 4))
    assert np.array_equal(reference("add", a, b, alpha=1.0, beta=1.0), a + b)
    assert near(reference("add", a, b, alpha=0.5, beta=-2.0), 0.5 * a - 2 * b, 1e-15)


# -- dropout ----------------------------------------------------------------------------------------------------------


def splitmix64(seed: int, index: int) -> int:
    """In whole numbers of any size, reduced modulo 2^64 by hand."""
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_splitmix64_known_vector():
    """The first outputs for seed 1234567, as published with the generator's test programs."""
    assert [splitmix64(1234567, index) for index in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("seed", [0, 1, 1234567, 2**63, 2**64 - 1])
@pytest.mark.parametrize("rate", [0.0, 0.25, 0.3, 0.5, 0.99])
def test_dropout_by_whole_numbers(seed, rate, rng):
    x = rng.uniform(0.5, 2, (3, 5, 7, 2))
    y = reference("dropout", x, rate=rate, seed=seed).ravel()
    for index, (before, after) in enumerate(zip(x.ravel(), y)):
        kept = (splitmix64(seed, index) >> 40) / 2**24 >= rate
        assert after == (before / (1 - rate) if kept else 0)


def test_dropout_known_mask():
    """Seed 7, rate 1/2: written down, so that no change of the generator goes unseen."""
    y = reference("dropout", np.ones(16), rate=0.5, seed=7)
    assert y.tolist() == [2.0 * (splitmix64(7, index) >> 63) for index in range(16)]
    assert "".join("x" if v else "." for v in y) == "..xx.......xxxxx"


def test_dropout_keeps_what_it_should():
    """Mean 1 within 5 standard deviations, and neither seeds nor neighbours go together."""
    n, rate = 40_000, 0.3
    a, b = (reference("dropout", np.ones(n), rate=rate, seed=seed) for seed in (0, 1))
    for y in (a, b):
        assert abs(y.mean() - 1) <= 5 * np.sqrt(rate / (1 - rate) / n)
    for u, v in ((a, b), (a[1:], a[:-1]), (a[1:], b[:-1])):
        assert abs(np.corrcoef(u, v)[0, 1]) <= 5 / np.sqrt(n)
