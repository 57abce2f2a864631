"""Gradients judged by finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minunet import backends
from minunet.tensor import Tensor


def gradcheck(
    f: Callable[..., Tensor],
    inputs: Sequence[np.ndarray],
    *,
    eps: float = 1e-5,
    rtol: float = 1e-6,
    directions: int = 3,
    seed: int = 0,
) -> float:
    """Compare backward with central differences, in float64, along random directions, on the backend in use.

    f      : takes one Tensor per input, returns one Tensor
    inputs : float64 arrays; every one is differentiated
    For a random output gradient g (standard normal) and, per input, random directions d:
        sum(d * backward(g))   against   (sum(g * f(x + eps d)) - sum(g * f(x - eps d))) / (2 eps)
    A gradient of ones would pass softmax and batch-norm backwards that return zero, since the sum of their outputs is
    constant; a random one does not. Directions of +-1 in every element give a hole anywhere its full weight.

    Passes where every difference is finite and at most rtol * (norm of the terms summed on the two sides) + 1e-12.
    Returns the largest ratio difference / bound seen (<= 1). Raises AssertionError naming input and values otherwise,
    ValueError for inputs that are not float64.
    """
    rng = np.random.default_rng(seed)
    arrays = [np.array(a) for a in inputs]
    for k, a in enumerate(arrays):
        if a.dtype != np.float64:
            raise ValueError(f"gradcheck: input {k} is {a.dtype}; finite differences need float64")
    tensors = [Tensor(_moved(a), requires_grad=True) for a in arrays]
    y = f(*tensors)
    g = rng.standard_normal(y.shape)
    y.backward(_moved(g))
    worst = 0.0
    for k, t in enumerate(tensors):
        if t.grad is None or t.grad.shape != arrays[k].shape:
            got = None if t.grad is None else t.grad.shape
            raise AssertionError(f"gradcheck: input {k} of shape {arrays[k].shape} got a gradient of shape {got}")
        gradient = backends.to_numpy(t.grad)
        for _ in range(directions):
            d = rng.choice((-1.0, 1.0), arrays[k].shape) * rng.uniform(0.5, 1.5, arrays[k].shape)
            analytic = float(np.sum(d * gradient))
            plus, minus = (_value(f, arrays, k, step * d, g) for step in (eps, -eps))
            numeric = float(np.sum(plus - minus)) / (2 * eps)
            size = np.linalg.norm(d * gradient) + np.linalg.norm(plus - minus) / (2 * eps)
            # rounding of f itself, relative to its own size, divided by the step
            noise = 4 * np.finfo(np.float64).eps * float(np.sum(np.abs(plus))) / eps
            bound = rtol * size + noise + 1e-12
            ratio = abs(analytic - numeric) / bound
            if not (np.isfinite(ratio) and ratio <= 1):
                raise AssertionError(
                    f"gradcheck: input {k}: backward gives {analytic:.12g}, finite differences {numeric:.12g}"
                    f" (difference {abs(analytic - numeric):.3g}, allowed {bound:.3g})"
                )
            worst = max(worst, ratio)
    return worst


def _value(f: Callable[..., Tensor], arrays: list[np.ndarray], k: int, step: np.ndarray, g: np.ndarray) -> np.ndarray:
    """g * f with input k moved by `step`."""
    moved = [Tensor(_moved(a + step if i == k else a)) for i, a in enumerate(arrays)]
    return g * f(*moved).numpy()


def _moved(a: np.ndarray) -> Any:
    """A copy as an array of the backend in use, of the same shape: backends make vectors of single numbers."""
    return backends.get().asarray(np.array(a)).reshape(np.shape(a))
