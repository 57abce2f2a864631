"""What a case is, how its arrays are made, and the list into which each stem enters its cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray
Rng = np.random.Generator
Make = Callable[[Rng, np.dtype], Array]
IGNORE = 255


@dataclass(frozen=True)
class Case:
    """One call of a kernel. `linear`: whether options and optional inputs leave the row linear (no bias, no ReLU)."""

    label: str
    inputs: Callable[[Rng, np.dtype], tuple[Array | None, ...]]
    options: dict[str, Any] = field(default_factory=dict)
    linear: bool = True


GENERATORS: dict[str, Callable[[str], Iterable[Case]]] = {}  # row name -> function of it that yields cases

MAPS = {  # (N, H, W, C) for kernels that do not care
    "odd": (2, 7, 5, 3),
    "one pixel": (1, 1, 1, 1),
    "one pixel, many channels": (3, 1, 1, 37),
    "one channel": (2, 9, 4, 1),
    "17 channels": (1, 6, 11, 17),
    "64 channels": (1, 13, 8, 64),
}


def rows(*row_names: str):
    """Enter the decorated generator for these rows."""

    def enter(generator):
        GENERATORS.update(dict.fromkeys(row_names, generator))
        return generator

    return enter


def make(*makers: Make | None) -> Callable[[Rng, np.dtype], tuple[Array | None, ...]]:
    """Inputs from one maker each; None: the input is missing."""
    return lambda rng, dtype: tuple(None if maker is None else maker(rng, dtype) for maker in makers)


def normal(*shape: int, mean: float = 0.0, std: float = 1.0) -> Make:
    return lambda rng, dtype: rng.normal(mean, std, shape).astype(dtype)


def uniform(low: float, high: float, *shape: int) -> Make:
    return lambda rng, dtype: rng.uniform(low, high, shape).astype(dtype)


def off_zero(*shape: int) -> Make:
    """Both signs, at least 0.1 away from the kink of a ReLU."""
    return lambda rng, dtype: (rng.choice((-1.0, 1.0), shape) * rng.uniform(0.1, 2, shape)).astype(dtype)


def distinct(*shape: int, mean: float = 0.0) -> Make:
    """All values differ by at least 1/64: a maximum is unique and stays so when an input moves a little."""
    size = int(np.prod(shape))
    return lambda rng, dtype: (mean + (rng.permutation(size) - size / 2) / 64).reshape(shape).astype(dtype)


def tied(*shape: int) -> Make:
    """Three values only: most windows hold their maximum several times."""
    return lambda rng, dtype: rng.integers(-2, 1, shape).astype(dtype)


def extreme(*shape: int) -> Make:
    """Ordinary values, with +-10^4 among them: exp() of these is infinite or zero."""

    def sample(rng: Rng, dtype: np.dtype) -> Array:
        return np.where(rng.random(shape) < 0.5, rng.normal(size=shape), rng.choice((-1e4, 1e4), shape)).astype(dtype)

    return sample


def probabilities(*shape: int) -> Make:
    """Positive, sum 1 over the last axis."""
    return lambda rng, dtype: rng.dirichlet(np.ones(shape[-1]), shape[:-1]).astype(dtype)


def integers(low: int, high: int, *shape: int) -> Make:
    return lambda rng, dtype: rng.integers(low, high, shape, dtype=np.int32)


def bits(*shape: int, ignored: float = 0.0) -> Make:
    """Zeros and ones as floats, a fraction of them replaced by the label that does not count."""

    def sample(rng: Rng, dtype: np.dtype) -> Array:
        target = rng.integers(0, 2, shape).astype(dtype)
        target[rng.random(shape) < ignored] = IGNORE
        return target

    return sample


def labels(n_classes: int, *shape: int, ignored: float = 0.0) -> Make:
    """Classes, a fraction of them replaced by the label that does not count."""

    def sample(rng: Rng, dtype: np.dtype) -> Array:
        target = rng.integers(0, n_classes, shape, dtype=np.int32)
        target[rng.random(shape) < ignored] = IGNORE
        return target

    return sample
