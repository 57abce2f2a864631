"""Normalisation: few pixels, a mean far from 0, no variance; few channels, pixels of 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from minunet.contract import ROWS

from .sample import MAPS, Array, Case, Make, Rng, make, normal, rows, uniform


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
    def inputs(shape: tuple[int, ...], relu: bool = False) -> Callable[[Rng, np.dtype], tuple[Array, ...]]:
        def sample(rng: Rng, dtype: np.dtype) -> tuple[Array, ...]:
            x = rng.normal(0.5, 1.5, shape).astype(dtype)
            mean, var = (moment.astype(dtype) for moment in (x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))))
            vectors = mean, var, *(normal(shape[3])(rng, dtype) for _ in range(1 + relu))  # gamma, and beta
            return normal(*shape, mean=0.5)(rng, dtype), x, *vectors

        return sample

    # Two or three pixels are left out: their gradient is nearly 0 in exact arithmetic, so only rounding would be seen.
    shapes = {label: shape for label, shape in MAPS.items() if shape[0] * shape[1] * shape[2] > 3}
    for label, shape in (shapes | {"one pixel, batch of 5": (5, 1, 1, 6)}).items():
        for training in (True, False):
            mode = "training" if training else "inference"
            yield Case(f"{label}, {mode}", inputs(shape), {"eps": 1e-5, "training": training})
            yield Case(f"{label}, {mode}, relu", inputs(shape, True), {"eps": 1e-5, "training": training})


@rows("fold_batch_norm")
def _fold_batch_norm(_: str) -> Iterable[Case]:
    for label, w in {"3x3": (5, 3, 3, 7), "one number": (1, 1, 1, 1), "depthwise": (17, 3, 2, 1)}.items():
        for axis in (0, -1):
            c = w[axis]
            vectors = normal(c), uniform(0.2, 3, c), normal(c), normal(c)
            for b in (None, normal(c)):
                words = f"{label}, axis {axis}" + ", bias" * (b is not None)
                yield Case(words, make(normal(*w), *vectors, b), {"eps": 1e-3, "axis": axis})


_LOCAL = {  # size, alpha, beta
    "of SegNet": (5, 1e-4, 0.75),
    "strong": (5, 2.0, 0.75),
    "even size": (4, 1.5, 0.6),
    "one channel": (1, 1.0, 0.5),
    "more than there are": (150, 3.0, 0.75),
}


@rows("lrn", "lrn_grad")
def _lrn(row_name: str) -> Iterable[Case]:
    for label, shape in {**MAPS, "matrix": (5, 7)}.items():
        for name, (size, alpha, beta) in _LOCAL.items():
            arrays = (normal(*shape),) * len(ROWS[row_name].inputs)
            yield Case(f"{label}, {name}", make(*arrays), {"size": size, "alpha": alpha, "beta": beta})


def _some_still(*shape: int) -> Make:
    """Normal numbers; in some pixels 0, in others so small that their norm is below 1e-6."""

    def sample(rng: Rng, dtype: np.dtype) -> Array:
        factor = rng.choice((1.0, 1.0, 1e-9, 0.0), shape[:-1])[..., None]
        return (rng.normal(size=shape) * factor).astype(dtype)

    return sample


@rows("l2_normalize", "l2_normalize_grad")
def _l2_normalize(row_name: str) -> Iterable[Case]:
    grad = row_name == "l2_normalize_grad"
    for label, shape in {**MAPS, "matrix": (5, 7), "300 channels": (2, 3, 2, 300)}.items():
        inputs = (normal(*shape),) if grad else ()
        if shape[-1] > 1 or not grad:  # the gradient of x / |x| is 0 for one channel: only rounding would be seen
            yield Case(label, make(*inputs, normal(*shape)), {"eps": 1e-12})
        yield Case(f"{label}, some pixels still", make(*inputs, _some_still(*shape)), {"eps": 1e-6})
        yield Case(f"{label}, below eps", make(*inputs, normal(*shape)), {"eps": 1e3})
