"""What tests of the CPU backend's kernels share: arrays large enough for threads, options, and the comparison."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numba
import numpy as np

from minunet import backends

# 3 * 61 * 67 * 9 = 110349 elements: beyond the size from which threads share a kernel, and a multiple of nothing.
BIG = (3, 61, 67, 9)
F32_TOLERANCE = 5e-6
REDUCED = (3, 30, 33, 9)
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01, "step": 3}


@contextmanager
def cpu() -> Iterator[None]:
    """The CPU backend, outputs full of NaN beforehand, and the number of threads put back afterwards."""
    threads = numba.get_num_threads()
    with backends.use_backend("cpu"), backends.poison():
        yield
    numba.set_num_threads(threads)


def normal(*shape: int, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(a: np.ndarray, b: np.ndarray, tolerance: float = F32_TOLERANCE) -> bool:
    error = np.linalg.norm((a.astype(np.float64) - b).ravel())
    return bool(np.isfinite(a).all() and a.shape == b.shape and error <= tolerance * np.linalg.norm(b.ravel()))


def optimiser_state(seed: int = 0, dtype: type = np.float32) -> list[np.ndarray]:
    """p, m, v >= 0, g."""
    p, m, v, g = (normal(*BIG, seed=seed + k, dtype=dtype) for k in range(4))
    return [p, m, v * v, g]


def drawn_indices() -> np.ndarray:
    """Anything inside a plane of 61 x 67, over and over."""
    return np.random.default_rng(3).integers(0, 61 * 67, REDUCED).astype(np.int32)


def drawn_target(classes: int = 9) -> np.ndarray:
    target = np.random.default_rng(4).integers(0, classes, BIG[:3]).astype(np.int32)
    target[0, :5] = 255
    return target
