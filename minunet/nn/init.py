"""Initialisers: arrays drawn from a NumPy generator, so that a seed gives the same weights everywhere.

Those that draw are functions (rng, shape, fan_in) -> float32 array, for weights (O, KH, KW, C) of a convolution or
(C_in, KH, KW, C_out) of a transposed one. fan_in: the inputs of one output; KH KW C unless given.
Under the backend `shapes` arrays have a shape and no numbers, and nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt
from typing import Any

import numpy as np

from minunet import backends

Initialiser = Callable[..., Any]


def _array(shape: tuple[int, ...], make: Callable[[], np.ndarray]) -> Any:
    """The float32 array that `make` makes, on the backend in use, or its shape where only shapes are asked for."""
    if backends.get().name == backends.SHAPES:
        return backends.get().empty(shape, np.float32)
    return backends.get().asarray(make().astype(np.float32))


def he_normal(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int | None = None) -> Any:
    """N(0, sqrt(2 / fan_in)) (He et al. 2015, eq. 10; U-Net, section 3)."""
    fan_in = prod(shape[1:]) if fan_in is None else fan_in
    return _array(shape, lambda: rng.standard_normal(shape) * np.sqrt(2.0 / fan_in))


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int | None = None) -> Any:
    """U(-a, a), a = sqrt(6 / (fan_in + fan_out)), fans KH KW C and KH KW O (Glorot & Bengio 2010, eq. 16; Keras)."""
    bound = sqrt(6.0 / (shape[1] * shape[2] * (shape[0] + shape[3])))
    return _array(shape, lambda: rng.uniform(-bound, bound, shape))


def torch_default(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int | None = None) -> Any:
    """U(-a, a), a = 1 / sqrt(fan_in): what PyTorch gives a layer that nobody initialised."""
    bound = 1.0 / sqrt(prod(shape[1:]) if fan_in is None else fan_in)
    return _array(shape, lambda: rng.uniform(-bound, bound, shape))


def normal(std: float) -> Initialiser:
    """The initialiser N(0, std)."""
    return lambda rng, shape, fan_in=None: _array(shape, lambda: rng.standard_normal(shape) * std)


def bilinear(rng: np.random.Generator | None, shape: tuple[int, ...], fan_in: int | None = None) -> Any:
    """Up-sampling by linear interpolation, each channel by itself: w[n,i,j,n] = t_i t_j, 0 off the diagonal, with
    t_i = 1 - |i - c| / f, f = floor((K + 1) / 2), c = f - 1 if K is odd, else f - 1/2 (Long et al. 2015, FCN).
    Nothing is drawn.
    """
    c_in, kh, kw, c_out = shape

    def make() -> np.ndarray:
        w = np.zeros(shape)
        for n in range(min(c_in, c_out)):
            w[n, :, :, n] = np.outer(_tent(kh), _tent(kw))
        return w

    return _array(shape, make)


def _tent(k: int) -> np.ndarray:
    f = (k + 1) // 2
    return 1 - np.abs(np.arange(k) - (f - 1 if k % 2 else f - 0.5)) / f


def zero(rng: np.random.Generator | None, shape: tuple[int, ...], fan_in: int | None = None) -> Any:
    """Zeros, as Caffe leaves a layer without a filler: FCN's scoring layers."""
    return zeros(shape)


def zeros(shape: tuple[int, ...]) -> Any:
    """float32 zeros."""
    return full(shape, 0.0)


def ones(shape: tuple[int, ...]) -> Any:
    """float32 ones."""
    return full(shape, 1.0)


def full(shape: tuple[int, ...], value: float) -> Any:
    """float32 array of one value."""
    return _array(shape, lambda: np.full(shape, value))
