"""Softmax and cross-entropy."""

from __future__ import annotations

from math import prod

from minunet.contract.row import F64, SUM, Spec, Work, channels, require, row, same


@row("loss")
def softmax(x):
    """y = exp(x - max x) / sum exp(x - max x) over the last axis."""
    return Work((x,), 4 * prod(x.shape))


@row("loss", linear=("dy",), tolerance=SUM)
def softmax_grad(dy, y):
    """dx = y (dy - sum_k dy_k y_k), y the softmax."""
    same(dy, y, "softmax_grad")
    return Work((y,), 4 * prod(y.shape))


def _cross_entropy(logits: Spec, target: Spec, weight_map: Spec | None, class_weight: Spec | None) -> int:
    require(
        target.shape == logits.shape[:-1],
        f"softmax_cross_entropy: target {target.shape} must be the logits' {logits.shape[:-1]}",
    )
    if weight_map is not None:
        same(weight_map, target, "softmax_cross_entropy: weight map and target")
    channels(class_weight, logits.shape[-1], "softmax_cross_entropy: the class weights")
    return 5 * prod(logits.shape)


@row("loss", tolerance=SUM, integers=("target",))
def softmax_cross_entropy(logits, target, weight_map=None, class_weight=None, *, ignore_index):
    """sums = (sum_p w_p l_p, sum_p w_p, number of pixels p counted), float64.

    l_p = log sum_k exp(logits_pk) - logits_p,target_p; w_p = weight_map_p class_weight_target_p (missing: 1).
    Pixels whose target is ignore_index do not count.
    """
    flops = _cross_entropy(logits, target, weight_map, class_weight)
    return Work((Spec((3,), F64),), flops)


@row("loss", tolerance=SUM, integers=("target",))
def softmax_cross_entropy_grad(logits, target, weight_map=None, class_weight=None, *, ignore_index, scale):
    """dlogits_pk = scale w_p (softmax_pk - [k = target_p]); 0 on ignored pixels. Nothing is stored: softmax again."""
    return Work((logits,), _cross_entropy(logits, target, weight_map, class_weight))
