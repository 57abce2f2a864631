"""Initialisers: arrays drawn from a NumPy generator, so that a seed gives the same weights everywhere."""

from __future__ import annotations

from math import prod

import numpy as np


def he_normal(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int | None = None) -> np.ndarray:
    """N(0, sqrt(2 / fan_in)) float32 (He et al. 2015, eq. 10; U-Net, section 3).

    shape : (O, KH, KW, C)      fan_in : KH KW C, the inputs of one output, unless given
    """
    fan_in = prod(shape[1:]) if fan_in is None else fan_in
    return (rng.standard_normal(shape) * np.sqrt(2.0 / fan_in)).astype(np.float32)


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    """float32 zeros."""
    return np.zeros(shape, np.float32)


def ones(shape: tuple[int, ...]) -> np.ndarray:
    """float32 ones."""
    return np.ones(shape, np.float32)
