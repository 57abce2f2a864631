"""Losses of a difference: images and maps of numbers. Kernels: distance and its gradient."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from minunet.ops.shared import Tensor, as_tensor, beside, call, data, record


def mse_loss(x: Tensor, target: Any) -> Tensor:
    """E = mean_i (x_i - t_i)^2

    x : any shape     target : the same shape, a constant: no gradient goes there
    Returns a scalar tensor; kept for backward: x and the target. Raises ValueError for different shapes, or none.
    """
    return _mean("mse", x, target)


def mae_loss(x: Tensor, target: Any) -> Tensor:
    """E = mean_i |x_i - t_i|; the derivative where they are equal is 0. Arguments as for `mse_loss`."""
    return _mean("mae", x, target)


def smooth_l1_loss(x: Tensor, target: Any) -> Tensor:
    """E = mean_i l(x_i - t_i),  l(d) = d^2 / 2 where |d| < 1, else |d| - 1/2  (Girshick 2015, arXiv 1504.08083, eq. 3)

    Quadratic near 0, where |d| would keep its slope; linear far away, where d^2 would let one outlier decide.
    Arguments as for `mse_loss`.
    """
    return _mean("smooth_l1", x, target)


def _mean(kind: str, x: Any, target: Any) -> Tensor:
    x, target = as_tensor(x), data(target)
    if not hasattr(target, "dtype"):
        target = np.asarray(target)
    if target.shape != x.shape or prod(x.shape) == 0:
        raise ValueError(f"{kind}_loss: target {target.shape} and x {x.shape} must have one shape, and an element")
    arrays = x.data, beside(target, x)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("distance_grad", *arrays, dy, kind=kind),)

    return record(f"{kind}_loss", call("distance", *arrays, kind=kind), (x,), backward)
