"""Losses of two classes. Kernels: sigmoid_cross_entropy, focal_loss, overlap and their gradients.

The target may leave out the last axis where that is one channel: label maps are (N, H, W), logits (N, H, W, 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.ops.loss import REDUCTIONS
from minunet.ops.shared import Tensor, as_tensor, call, data, like, numbers, record, scalar


def sigmoid_cross_entropy(
    logits: Tensor,
    target: Any,
    weight_map: Any = None,
    ignore_index: int = 255,
    reduction: str = "mean",
) -> Tensor:
    """E = sum_i w_i l_i / divisor,  l_i = -t_i log s_i - (1 - t_i) log(1 - s_i),  s = sigmoid(logits)

    logits : any shape, most often (N, H, W, 1)     weight_map : like the target, or None (w_i = 1)
    target : like logits, integers or floats in 0..1, or ignore_index where an element does not count
    reduction : divisor = the elements that count ("mean"), 1 ("sum"), or sum_i w_i ("weighted")

    Computed as max(x, 0) - x t + log(1 + exp(-|x|)), which neither overflows nor cancels: a logit of -10^4 where t = 1
    costs 10^4. Returns a scalar tensor; 0 where nothing counts. Kept for backward: the logits.
    Raises ValueError for wrong shapes and for targets out of range.
    """
    logits = as_tensor(logits)
    if reduction not in REDUCTIONS:
        raise ValueError(f"sigmoid_cross_entropy: reduction {reduction!r} is unknown; it is one of {REDUCTIONS}")
    target = _target(target, logits, "sigmoid_cross_entropy", ignore_index)
    weights = None
    if weight_map is not None:
        weights = like(_like(weight_map, logits, "sigmoid_cross_entropy: weight map"), logits)
    arrays = logits.data, target, weights
    total, weighted, counted = numbers(call("sigmoid_cross_entropy", *arrays, ignore_index=ignore_index))
    divisor = {"mean": counted, "sum": 1.0, "weighted": weighted}[reduction]
    factor = 1.0 / divisor if divisor > 0 else 0.0

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        scale = float(dy) * factor
        return (call("sigmoid_cross_entropy_grad", *arrays, ignore_index=ignore_index, scale=scale),)

    return record("sigmoid_cross_entropy", scalar(total * factor, logits), (logits,), backward)


def focal_loss(
    logits: Tensor,
    target: Any,
    gamma: float = 2.0,
    alpha: float = 0.25,
    ignore_index: int = 255,
    reduction: str = "mean",
) -> Tensor:
    """E = sum_i l_i / divisor,  l = -a (1 - p_t)^gamma log p_t  (Lin et al. 2017, arXiv 1708.02002, eq. 5)

    p_t = sigmoid(x) and a = alpha where the target is 1; p_t = 1 - sigmoid(x) and a = 1 - alpha where it is 0

    logits : any shape, most often (N, H, W, 1)     target : like logits, 0 or 1, or ignore_index: does not count
    gamma : >= 0; 0 is the cross-entropy weighted by a     alpha : 0..1
    reduction : divisor = the elements that count ("mean"), or 1 ("sum"). The paper divides by the boxes that hold an
    object; a map of pixels has none, and the number of its ones, as divisor, would make an empty image's loss infinite.

    Returns a scalar tensor; 0 where nothing counts. Kept for backward: the logits. Raises ValueError for wrong shapes,
    other targets, gamma or alpha out of range.
    """
    logits = as_tensor(logits)
    if reduction not in ("mean", "sum"):
        raise ValueError(f"focal_loss: reduction {reduction!r} is unknown; it is 'mean' or 'sum'")
    target = _target(target, logits, "focal_loss", ignore_index, hard=True)
    options = {"gamma": float(gamma), "alpha": float(alpha), "ignore_index": ignore_index}
    total, counted = numbers(call("focal_loss", logits.data, target, **options))
    factor = 1.0 if reduction == "sum" else 1.0 / counted if counted > 0 else 0.0
    x = logits.data

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("focal_loss_grad", x, target, **options, scale=float(dy) * factor),)

    return record("focal_loss", scalar(total * factor, logits), (logits,), backward)


def dice_loss(p: Tensor, target: Any, smooth: float = 1.0) -> Tensor:
    """E = 1 - (2 sum_i p_i t_i + smooth) / (sum_i p_i + sum_i t_i + smooth)

    p : probabilities (after sigmoid or softmax), any shape     target : like p, 0..1     smooth : >= 0
    One ratio over the whole batch, not a mean of ratios: an image without the object then still means something.
    Without smooth, and with nothing in p and target, E is 0. Returns a scalar tensor. Kept for backward: the target.
    Source: V-Net (Milletari et al. 2016, arXiv 1606.04797, section 3), where the denominator is sum p^2 + sum t^2;
    plain sums, and smooth above and below, are what segmentation codes use (ZF_UNET). Raises ValueError for wrong
    shapes, targets out of range and a negative smooth.
    """
    p, target, smooth = _overlapping(p, target, smooth, "dice_loss")
    both, first, second = numbers(call("overlap", p.data, target))
    above, below = 2 * both + smooth, first + second + smooth
    ratio, a, b = (1.0, 0.0, 0.0) if below == 0 else (above / below, -2 / below, above / below**2)
    return _one_minus("dice_loss", ratio, a, b, p, target)


def jaccard_loss(p: Tensor, target: Any, smooth: float = 1.0) -> Tensor:
    """E = 1 - (I + smooth) / (sum_i p_i + sum_i t_i - I + smooth),  I = sum_i p_i t_i: intersection over union

    Arguments, empty case and errors as for `dice_loss`. E is 0 where p is the target, 1 (for smooth = 0) where they
    do not meet, and never less than the Dice loss.
    """
    p, target, smooth = _overlapping(p, target, smooth, "jaccard_loss")
    both, first, second = numbers(call("overlap", p.data, target))
    above, below = both + smooth, first + second - both + smooth
    # d(above / below) / dp_i = (t_i below - above (1 - t_i)) / below^2
    ratio, a, b = (1.0, 0.0, 0.0) if below == 0 else (above / below, -(above + below) / below**2, above / below**2)
    return _one_minus("jaccard_loss", ratio, a, b, p, target)


def _overlapping(p: Any, target: Any, smooth: float, what: str) -> tuple[Tensor, Any, float]:
    """The arguments of an overlap loss, checked."""
    p, smooth = as_tensor(p), float(smooth)
    if not smooth >= 0:
        raise ValueError(f"{what}: smooth is {smooth}; it must be at least 0")
    return p, _target(target, p, what), smooth


def _one_minus(name: str, ratio: float, a: float, b: float, p: Tensor, target: Any) -> Tensor:
    """The tensor of 1 - ratio, whose derivative in p_i is a t_i + b."""

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("overlap_grad", target, a=float(dy) * a, b=float(dy) * b),)

    return record(name, scalar(1.0 - ratio, p), (p,), backward)


def _target(target: Any, x: Tensor, what: str, ignore_index: int | None = None, hard: bool = False) -> Any:
    """The target in x's shape and dtype and beside x, after checking that it lies in 0..1 (`hard`: is 0 or 1) or is
    ignored; one that lies on a device is not checked, as that would wait for it.
    """
    target = _like(target, x, f"{what}: target")
    if isinstance(target, np.ndarray):
        good = (target == 0) | (target == 1) if hard else (target >= 0) & (target <= 1)
        if ignore_index is not None:
            good |= target == ignore_index
        if not good.all():
            allowed = "0 or 1" if hard else "in 0..1"
            ignored = "" if ignore_index is None else f", or ignore_index {ignore_index}"
            raise ValueError(f"{what}: target holds {target[~good][0]:g}; it must be {allowed}{ignored}")
    return like(target, x)


def _like(array: Any, x: Tensor, what: str) -> Any:
    """`array` in x's shape and dtype, contiguous. It may lack the last axis where that is 1."""
    array = data(array)
    if not hasattr(array, "dtype"):
        array = np.asarray(array)
    if array.shape != x.shape and not (x.shape[-1:] == (1,) and array.shape == x.shape[:-1]):
        short = f", or {x.shape[:-1]}" if x.shape[-1:] == (1,) else ""
        raise ValueError(f"{what} has shape {array.shape}; it must be {x.shape}{short}")
    if isinstance(array, np.ndarray):
        array = np.ascontiguousarray(array, x.dtype)
    return array.reshape(x.shape)
