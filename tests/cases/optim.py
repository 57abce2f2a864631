"""Optimiser updates: the first step, from zero state, and a late one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .sample import Case, make, normal, rows, uniform

_PARAMETERS = {"weights": (5, 3, 3, 7), "bias": (13,), "one number": (1,), "beyond one block": (17, 3, 3, 31)}


@rows("sgd")
def _sgd(_: str) -> Iterable[Case]:
    settings = ((0.1, 0.0, 0.0, False), (0.01, 0.9, 5e-4, False), (0.01, 0.99, 1e-4, True))
    for label, shape in _PARAMETERS.items():
        for lr, momentum, decay, nesterov in settings:
            options = {"lr": lr, "momentum": momentum, "weight_decay": decay, "nesterov": nesterov}
            words = f"{label}, momentum {momentum}" + ", nesterov" * nesterov
            yield Case(words, make(normal(*shape), normal(*shape), normal(*shape)), options)


@rows("adam")
def _adam(_: str) -> Iterable[Case]:
    for label, shape in _PARAMETERS.items():
        for step, decay in ((1, 0.0), (2, 1e-2), (100_000, 0.0)):
            zero = lambda rng, dtype, shape=shape: np.zeros(shape, dtype)  # noqa: E731
            m, v = (zero, zero) if step == 1 else (normal(*shape), uniform(0.01, 2, *shape))
            options = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": decay, "step": step}
            yield Case(f"{label}, step {step}", make(normal(*shape), m, v, normal(*shape, std=0.1)), options)
