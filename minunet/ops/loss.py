"""Softmax and the weighted cross-entropy. Kernels: softmax, softmax_cross_entropy and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.contract.loss import REDUCTIONS
from minunet.ops.shared import Tensor, as_tensor, beside, call, data, like, record


def softmax(x: Tensor) -> Tensor:
    """y = exp(x - max x) / sum exp(x - max x) over the last axis (the channels): class probabilities from logits."""
    x = as_tensor(x)
    y = call("softmax", x.data)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("softmax_grad", dy, y),)

    return record("softmax", y, (x,), backward)


def softmax_cross_entropy(
    logits: Tensor,
    target: Any,
    weight_map: Any = None,
    class_weight: Any = None,
    ignore_index: int = 255,
    reduction: str = "mean",
) -> Tensor:
    """E = sum_p w_p l_p / divisor,  l_p = -log softmax(logits_p)[target_p],  w_p = weight_map_p class_weight[target_p]

    logits : (N, H, W, K)     target : integers (N, H, W) in 0..K-1, or ignore_index where a pixel does not count
    weight_map : (N, H, W) or None     class_weight : (K,) or None
    reduction : divisor = the pixels that count ("mean"), 1 ("sum"), or sum_p w_p ("weighted")

    Returns a scalar tensor (shape ()); 0 where no pixel counts. Kept for backward: the logits (softmax is computed
    again, which is cheaper than storing it). Raises ValueError for a label that is neither a class nor ignore_index;
    labels that lie on a device are not looked at, as that would wait for it: there such a label makes the loss NaN.
    Source: U-Net (arXiv 1505.04597) eq. 1, with the minus sign and the divisor that it leaves out.
    """
    logits = as_tensor(logits)
    target = placed_labels(target, logits, ignore_index)
    if reduction not in REDUCTIONS:
        raise ValueError(f"softmax_cross_entropy: reduction {reduction!r} is unknown; it is one of {REDUCTIONS}")
    weights = tuple(beside(w, logits) for w in (weight_map, class_weight))
    x, options = logits.data, {"ignore_index": ignore_index}
    loss, factor = call("softmax_cross_entropy", x, target, *weights, reduction=reduction, **options)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("softmax_cross_entropy_grad", x, target, dy, factor, *weights, **options),)

    return record("softmax_cross_entropy", loss, (logits,), backward)


def placed_labels(target: Any, logits: Tensor, ignore_index: int) -> Any:
    """Integer labels as contiguous int32 beside the logits; those of the host are checked on their way."""
    target = data(target)
    if not hasattr(target, "dtype"):
        target = np.asarray(target)
    if isinstance(target, np.ndarray):
        return like(labels(target, logits.shape[-1], ignore_index), logits)
    return target if target.flags.c_contiguous else target.copy()


def labels(target: np.ndarray, n_classes: int, ignore_index: int) -> np.ndarray:
    """`target` as contiguous int32, after checking that every label is a class or ignored."""
    if target.dtype.kind not in "iub":
        raise TypeError(f"softmax_cross_entropy: target is {target.dtype}; it must hold integer class numbers")
    bad = target[((target < 0) | (target >= n_classes)) & (target != ignore_index)]
    if bad.size:
        raise ValueError(
            f"softmax_cross_entropy: label {int(bad.flat[0])} is outside the classes 0..{n_classes - 1} and is not"
            f" ignore_index {ignore_index}; map the labels to classes first"
        )
    return np.ascontiguousarray(target, dtype=np.int32)
