"""Batch normalisation: few pixels, a mean far from 0, no variance."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from .sample import MAPS, Array, Case, Rng, make, normal, rows, uniform


@rows("channel_moments")
def _channel_moments(_: str) -> Iterable[Case]:
    for label, shape in MAPS.items():
        yield Case(label, make(normal(*shape, mean=0.5)))
    yield Case("mean far from 0", make(normal(2, 15, 17, 3, mean=100.0)))  # E[x^2] - E[x]^2 loses every digit
    yield Case("long sum", make(normal(1, 101, 99, 2, mean=2.0)))


@rows("batch_norm")
def _batch_norm(_: str) -> Iterable[Case]:
    for label, shape in MAPS.items():
        c = shape[3]
        inputs = make(normal(*shape), normal(c), uniform(0.2, 3, c), normal(c), normal(c, mean=0.5))
        yield Case(label, inputs, {"eps": 1e-5, "activation": None})
        yield Case(f"{label}, relu", inputs, {"eps": 1e-3, "activation": "relu"})
    still = make(normal(1, 4, 5, 2), normal(2), lambda rng, dtype: np.zeros(2, dtype), normal(2), normal(2))
    yield Case("variance 0", still, {"eps": 1e-5, "activation": None})


@rows("batch_norm_grad")
def _batch_norm_grad(_: str) -> Iterable[Case]:
    def inputs(shape: tuple[int, ...]) -> Callable[[Rng, np.dtype], tuple[Array, ...]]:
        def sample(rng: Rng, dtype: np.dtype) -> tuple[Array, ...]:
            x = rng.normal(0.5, 1.5, shape).astype(dtype)
            mean, var = (moment.astype(dtype) for moment in (x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))))
            return normal(*shape, mean=0.5)(rng, dtype), x, mean, var, normal(shape[3])(rng, dtype)

        return sample

    # Two or three pixels are left out: their gradient is nearly 0 in exact arithmetic, so only rounding would be seen.
    shapes = {label: shape for label, shape in MAPS.items() if shape[0] * shape[1] * shape[2] > 3}
    for label, shape in (shapes | {"one pixel, batch of 5": (5, 1, 1, 6)}).items():
        for training in (True, False):
            mode = "training" if training else "inference"
            yield Case(f"{label}, {mode}", inputs(shape), {"eps": 1e-5, "training": training})
