"""What property tests share: strategies, drawn arrays, and the comparison with what is expected."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from minunet.tensor import Tensor

property_test = settings(max_examples=25)
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 9)
few = st.integers(1, 4)


def normal(seed: int, *shape: int) -> np.ndarray:
    """Standard normal float64 numbers."""
    return np.random.default_rng(seed).normal(size=shape)


def close(y: Tensor | np.ndarray, expected: np.ndarray, tolerance: float = 1e-12) -> bool:
    """Same shape, finite, and relative error (norm) within the tolerance."""
    y = y.numpy() if isinstance(y, Tensor) else y
    error = np.linalg.norm(y - expected) if y.shape == expected.shape else np.inf
    return bool(np.isfinite(y).all() and error <= tolerance * max(np.linalg.norm(expected), 1e-300))
