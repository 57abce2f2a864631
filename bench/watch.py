"""Each convolution of a network beside the direct sum of the same numbers, where whole results cannot be compared.

A maximum's place and the sign before a ReLU are decisions, and rounding takes the close ones. In a network that keeps
places (SegNet), or normalises over a few pixels, one decision changes many results: PyTorch's own two layouts differ by
up to 0.08 (cosine distance) in the gradient of an untrained SegNet of width 64. What can be asked there is that no
kernel adds more error to what it is given than a single layer may.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

import minunet as mu
from bench.report import LAYER_TOLERANCE

WATCHED = ("conv2d", "conv2d_grad_x", "conv2d_grad_w")


class Errors(dict):
    """{kernel: largest norm of a call's error over the norm of the direct sum}."""

    def right(self) -> bool:
        """Whether convolutions ran, and all were within the tolerance of a layer."""
        return bool(self) and all(error <= LAYER_TOLERANCE for error in self.values())


@contextmanager
def convolutions() -> Iterator[Errors]:
    """Inside, every convolution on the CPU runs a second time, directly, and the difference is noted."""
    kernels, errors = mu.backends.get("cpu").kernels, Errors()
    before = dict(kernels)

    def watched(name: str, y: np.ndarray, *inputs: Any, **options: Any) -> None:
        before[name](y, *inputs, **options)
        truth = np.empty_like(y)
        with mu.precision("strict"):
            before[name](truth, *inputs, **options)
        norm = float(np.linalg.norm(truth.ravel()))
        error = float(np.linalg.norm((y - truth).ravel())) / norm if norm else float(abs(y).max())
        errors[name] = float(np.fmax(errors.get(name, 0.0), error)) if error == error else np.inf

    kernels.update({name: partial(watched, name) for name in WATCHED})
    try:
        yield errors
    finally:
        kernels.update(before)
