"""The reference's batch normalisation, judged by sums in plain Python, finite differences and PyTorch."""

from __future__ import annotations

from itertools import product
from math import fsum, sqrt

import numpy as np
import pytest
from checks import near, reference

EPS = 1e-5


def pixels(x, c):
    return [float(x[n, i, j, c]) for n, i, j in product(*map(range, x.shape[:3]))]


@pytest.mark.parametrize("shape, mean", [((2, 7, 5, 3), 0.5), ((1, 1, 1, 4), 2.0), ((3, 4, 1, 2), 1000.0)])
def test_moments_by_sums(rng, shape, mean):
    x = rng.normal(mean, 1, shape)
    means, variances = reference("channel_moments", x)
    for c in range(shape[3]):
        values = pixels(x, c)
        expected = fsum(values) / len(values)
        assert abs(means[c] - expected) <= 1e-13 * abs(expected)
        variance = fsum((v - expected) ** 2 for v in values) / len(values)  # biased: divided by the number of pixels
        assert abs(variances[c] - variance) <= 1e-12 * variance


@pytest.mark.parametrize("activation", [None, "relu"])
def test_batch_norm_by_loops(rng, activation):
    x = rng.normal(size=(2, 3, 4, 5))
    mean, gamma, beta = rng.normal(size=(3, 5))
    var = rng.uniform(0.1, 2, 5)
    y = reference("batch_norm", x, mean, var, gamma, beta, eps=EPS, activation=activation)
    for n, i, j, c in product(*map(range, x.shape)):
        value = gamma[c] * (x[n, i, j, c] - mean[c]) / sqrt(var[c] + EPS) + beta[c]
        expected = max(value, 0) if activation == "relu" else value
        assert abs(y[n, i, j, c] - expected) <= 1e-13


def normalise(x, gamma, beta, mean, var, training, activation):
    if training:
        mean, var = reference("channel_moments", x)
    return reference("batch_norm", x, mean, var, gamma, beta, eps=EPS, activation=activation)


def gradients(dy, x, mean, var, gamma, beta, training, activation):
    shift = () if activation is None else (beta,)
    return reference("batch_norm_grad", dy, x, mean, var, gamma, *shift, eps=EPS, training=training)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_by_finite_differences(rng, training, activation):
    """d/dt sum(dy f(p + t d)) for a random direction d in x, gamma and beta, and a random dy."""
    x, dy, dx_direction = rng.normal(size=(3, 2, 3, 4, 5))
    gamma, beta, dgamma_direction, dbeta_direction, mean = rng.normal(size=(5, 5))
    var = rng.uniform(0.5, 2, 5)
    if training:
        mean, var = reference("channel_moments", x)
    dx, dgamma, dbeta = gradients(dy, x, mean, var, gamma, beta, training, activation)

    def f(t_x, t_gamma, t_beta):
        point = x + t_x * dx_direction, gamma + t_gamma * dgamma_direction, beta + t_beta * dbeta_direction
        return (dy * normalise(*point, mean, var, training, activation)).sum()

    h = 1e-5
    for step, slope in (
        ((h, 0, 0), (dx * dx_direction).sum()),
        ((0, h, 0), (dgamma * dgamma_direction).sum()),
        ((0, 0, h), (dbeta * dbeta_direction).sum()),
    ):
        numeric = (f(*step) - f(*(-s for s in step))) / (2 * h)
        assert abs(numeric - slope) <= 1e-8 * np.linalg.norm(dy) * np.linalg.norm(dx_direction)
        assert abs(slope) > 1e-3  # far from 0, so that a gradient of zero would be seen


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_and_gradients_by_torch(rng, training, activation):
    torch = pytest.importorskip("torch")
    x, dy = rng.normal(1, 2, size=(2, 2, 5, 3, 4))
    mean, gamma, beta = rng.normal(size=(3, 4))
    var = rng.uniform(0.5, 2, 4)
    running = torch.tensor(mean), torch.tensor(var)
    tx, tgamma, tbeta = (torch.tensor(a, requires_grad=True) for a in (x.transpose(0, 3, 1, 2), gamma, beta))
    ty = torch.nn.functional.batch_norm(tx, *running, tgamma, tbeta, training, eps=EPS)
    ty = ty if activation is None else torch.relu(ty)
    ty.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
    y = normalise(x, gamma, beta, mean, var, training, activation)
    if training:
        mean, var = reference("channel_moments", x)
    dx, dgamma, dbeta = gradients(dy, x, mean, var, gamma, beta, training, activation)
    assert near(y, ty.detach().numpy().transpose(0, 2, 3, 1))
    assert near(dx, tx.grad.numpy().transpose(0, 2, 3, 1))
    assert near(dgamma, tgamma.grad.numpy())
    assert near(dbeta, tbeta.grad.numpy())


def test_the_gradient_ignores_what_normalisation_removes(rng):
    """In training a shift of dy, or a part of it along x, changes no pixel: dx is orthogonal to 1 and nearly to z."""
    x, dy = rng.normal(size=(2, 2, 5, 3, 4))
    mean, var = reference("channel_moments", x)
    dx, _, _ = reference("batch_norm_grad", dy, x, mean, var, np.ones(4), eps=EPS, training=True)
    assert np.abs(dx.sum(axis=(0, 1, 2))).max() <= 1e-12
    assert np.abs((dx * (x - mean)).sum(axis=(0, 1, 2))).max() <= 1e-3
