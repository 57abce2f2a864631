"""The reference's optimisers, judged by plain Python over several steps, and by PyTorch."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from checks import near, reference

STEPS = 4


def sgd_by_hand(p, gradients, lr, momentum, weight_decay, nesterov):
    velocity = 0.0
    for g in gradients:
        h = g + weight_decay * p
        velocity = momentum * velocity + h
        p = p - lr * (h + momentum * velocity if nesterov else velocity)
    return p, velocity


SGD = [(0.1, 0.0, 0.0, False), (0.1, 0.9, 0.01, False), (0.1, 0.9, 0.01, True)]


@pytest.mark.parametrize("lr, momentum, weight_decay, nesterov", SGD)
def test_sgd_by_hand(rng, lr, momentum, weight_decay, nesterov):
    start, gradients = rng.normal(size=5), rng.normal(size=(STEPS, 5))
    p, velocity = start, np.zeros(5)
    options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
    for g in gradients:
        p, velocity = reference("sgd", p, velocity, g, **options)
    expected = [sgd_by_hand(start[k], gradients[:, k], **options) for k in range(5)]
    assert near(np.stack((p, velocity), axis=1), np.array(expected))


def adam_by_hand(p, gradients, lr, beta1, beta2, eps, weight_decay):
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        h = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * h
        v = beta2 * v + (1 - beta2) * h * h
        p = p - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)
    return p, m, v


ADAM = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_by_hand(rng, weight_decay):
    start, gradients = rng.normal(size=5), rng.normal(size=(STEPS, 5))
    p, m, v = start, np.zeros(5), np.zeros(5)
    for step, g in enumerate(gradients, start=1):
        p, m, v = reference("adam", p, m, v, g, **ADAM, weight_decay=weight_decay, step=step)
    expected = np.array([adam_by_hand(start[k], gradients[:, k], **ADAM, weight_decay=weight_decay) for k in range(5)])
    for column, state in enumerate((p, m, v)):
        assert near(state, expected[:, column])


def test_first_step_of_adam_has_the_length_of_the_learning_rate(rng):
    """Whatever the gradient's size: m / sqrt(v) is its sign after correction (section 2.1)."""
    p, g = rng.normal(size=6), np.array([1e-3, -1e-3, 1.0, -1.0, 1e5, -1e5])
    moved, _, _ = reference("adam", p, 0 * p, 0 * p, g, **ADAM, weight_decay=0.0, step=1)
    assert near(p - moved, 0.01 * np.sign(g), 1e-4)


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam"])
def test_optimisers_by_torch(rng, name):
    torch = pytest.importorskip("torch")
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(STEPS, 3, 4))
    leaf = torch.nn.Parameter(torch.tensor(start))
    if name == "adam":
        theirs = torch.optim.Adam([leaf], lr=0.01, weight_decay=0.1)
    else:
        theirs = torch.optim.SGD([leaf], lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=name == "nesterov")
    p, *state = (start, np.zeros((3, 4)), np.zeros((3, 4))) if name == "adam" else (start, np.zeros((3, 4)))
    for step, g in enumerate(gradients, start=1):
        leaf.grad = torch.tensor(g)
        theirs.step()
        if name == "adam":
            p, *state = reference("adam", p, *state, g, **ADAM, weight_decay=0.1, step=step)
        else:
            options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": name == "nesterov"}
            p, *state = reference("sgd", p, *state, g, **options)
        assert near(p, leaf.detach().numpy())
