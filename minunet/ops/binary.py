"""Losses of two classes. Kernels: sigmoid_cross_entropy, focal_loss, overlap and their gradients.

The target may leave out the last axis where that is one channel: label maps are (N, H, W), logits (N, H, W, 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.contract.loss import REDUCTIONS
from minunet.ops.shared import Tensor, as_tensor, beside, call, data, record


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
        weights = _like(weight_map, logits, "sigmoid_cross_entropy: weight map")
    x, options = logits.data, {"ignore_index": ignore_index}
    loss, factor = call("sigmoid_cross_entropy", x, target, weights, reduction=reduction, **options)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("sigmoid_cross_entropy_grad", x, target, dy, factor, weights, **options),)

    return record("sigmoid_cross_entropy", loss, (logits,), backward)


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
    x = logits.data
    loss, factor = call("focal_loss", x, target, reduction=reduction, **options)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("focal_loss_grad", x, target, dy, factor, **options),)

    return record("focal_loss", loss, (logits,), backward)


def dice_loss(p: Tensor, target: Any, smooth: float = 1.0) -> Tensor:
    """E = 1 - (2 sum_i p_i t_i + smooth) / (sum_i p_i + sum_i t_i + smooth)

    p : probabilities (after sigmoid or softmax), any shape     target : like p, 0..1     smooth : >= 0
    One ratio over the whole batch, not a mean of ratios: an image without the object then still means something.
    Without smooth, and with nothing in p and target, E is 0. Returns a scalar tensor. Kept for backward: the target.
    Source: V-Net (Milletari et al. 2016, arXiv 1606.04797, section 3), where the denominator is sum p^2 + sum t^2;
    plain sums, and smooth above and below, are what segmentation codes use (ZF_UNET). Raises ValueError for wrong
    shapes, targets out of range and a negative smooth.
    """
    return _overlap("dice", p, target, smooth)


def jaccard_loss(p: Tensor, target: Any, smooth: float = 1.0) -> Tensor:
    """E = 1 - (I + smooth) / (sum_i p_i + sum_i t_i - I + smooth),  I = sum_i p_i t_i: intersection over union

    Arguments, empty case and errors as for `dice_loss`. E is 0 where p is the target, 1 (for smooth = 0) where they
    do not meet, and never less than the Dice loss.
    """
    return _overlap("jaccard", p, target, smooth)


def _overlap(kind: str, p: Any, target: Any, smooth: float) -> Tensor:
    """1 - ratio of the kind, with its gradient dy (a t_i + b) in p_i."""
    p, smooth, name = as_tensor(p), float(smooth), f"{kind}_loss"
    if not smooth >= 0:
        raise ValueError(f"{name}: smooth is {smooth}; it must be at least 0")
    target = _target(target, p, name)
    loss, slopes = call("overlap", p.data, target, kind=kind, smooth=smooth)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("overlap_grad", target, dy, slopes),)

    return record(name, loss, (p,), backward)


def _target(target: Any, x: Tensor, what: str, ignore_index: int | None = None, hard: bool = False) -> Any:
    """The target in x's shape and dtype and beside x, after checking that it lies in 0..1 (`hard`: is 0 or 1) or is
    ignored; one that lies on a device is not checked, as that would wait for it.
    """
    target = data(target)
    if not hasattr(target, "dtype"):
        target = np.asarray(target)
    if isinstance(target, np.ndarray):
        good = (target == 0) | (target == 1) if hard else (target >= 0) & (target <= 1)
        if ignore_index is not None:
            good |= target == ignore_index
        if not good.all():
            allowed = "0 or 1" if hard else "in 0..1"
            ignored = "" if ignore_index is None else f", or ignore_index {ignore_index}"
            raise ValueError(f"{what}: target holds {target[~good][0]:g}; it must be {allowed}{ignored}")
    return _like(target, x, f"{what}: target")


def _like(array: Any, x: Tensor, what: str) -> Any:
    """`array` in x's shape and dtype, contiguous and beside x. It may lack the last axis where that is 1."""
    array = data(array)
    if not hasattr(array, "dtype"):
        array = np.asarray(array)
    if array.shape != x.shape and not (x.shape[-1:] == (1,) and array.shape == x.shape[:-1]):
        short = f", or {x.shape[:-1]}" if x.shape[-1:] == (1,) else ""
        raise ValueError(f"{what} has shape {array.shape}; it must be {x.shape}{short}")
    return beside(array, x).reshape(x.shape)
