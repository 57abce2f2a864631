"""What training makes small: the loss by its name, over all outputs that a network has in training.

Labels and weights are NumPy arrays, or arrays of the backend: a sampler may make its batches on the GPU. Only methods
and operators that NumPy's and CuPy's arrays share are used on them, and no number is read back, so that the host never
waits for a device. Labels on a device are not checked here; whoever puts them there has done so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from minunet import backends, ops
from minunet.data import IGNORE
from minunet.models import Network
from minunet.ops.shared import like
from minunet.tensor import Tensor
from minunet.training.config import Config

KEPT = 16  # ohem keeps the hardest 1/16 of the pixels at least, and all below HARD (BiSeNet's code)
HARD = 0.7
EDGE = 7  # px: side of the square by which edges are widened (DFN's code)

Labels = Any  # int32 (N, H, W), class indices, IGNORE where a pixel does not count
Weights = Any  # float32 (N, H, W), or (K,) by class; None: all 1


def objective(
    outputs: Tensor | tuple[Tensor, ...],
    target: Labels,
    weight_map: Weights,
    config: Config,
    model: Network,
    class_weight: Weights = None,
) -> Tensor:
    """The scalar loss: sum over the model's outputs of output.weight times its loss.

    outputs : logits (N, h, w, K), or one for each of `model.outputs`; K = 1 is the logit of class 1 of two
    target, weight_map : (N, H, W); an output of a smaller size is compared with the map shrunk to it (`shrink`)
    class_weight : (K,), of the host

    "classes" are trained by `config.loss`, "edges" by the focal loss on `edges(target)`.
    """
    total = None
    for logits, spec in zip(outputs if isinstance(outputs, tuple) else (outputs,), model.outputs, strict=True):
        size = logits.shape[1:3]
        if spec.target == "edges":
            loss = ops.focal_loss(logits, shrink(edges(target), size)[..., None])
        else:
            w = None if weight_map is None else shrink(weight_map, size)
            loss = class_loss(logits, shrink(target, size), w, config, class_weight)
        loss = loss if spec.weight == 1 else ops.scale(loss, spec.weight)
        total = loss if total is None else ops.add(total, loss)
    return total


def class_loss(
    logits: Tensor, target: Labels, weight_map: Weights, config: Config, class_weight: Weights = None
) -> Tensor:
    """`config.loss` of logits (N, H, W, K) of the target's size."""
    kind = config.loss
    if logits.shape[-1] > 1 and kind in ("ce", "ohem"):
        if class_weight is not None:
            class_weight = _placed(backends.owner(logits.data).name, tuple(map(float, class_weight)), logits.dtype)
        if kind == "ce":
            return ops.softmax_cross_entropy(logits, target, weight_map, class_weight, reduction=config.reduction)
        return ops.ohem_cross_entropy(logits, target, HARD, target.size // KEPT, class_weight)
    if kind == "dice":
        return _dice(logits, target)
    if logits.shape[-1] > 1:
        raise ValueError(f"the loss {kind} needs one logit a pixel, and the network gives {logits.shape[-1]}")
    target = target[..., None]  # (N, H, W, 1), as the logits
    if kind in DISTANCES:
        x, t = _known(ops.sigmoid(logits), target.astype(logits.dtype), target)
        return DISTANCES[kind](x, t)
    if kind == "focal":
        return ops.focal_loss(logits, target)
    loss = _binary(logits, target, weight_map, config, class_weight)
    return ops.add(loss, _dice(logits, target[..., 0])) if kind == "bce+dice" else loss


@lru_cache(maxsize=16)
def _placed(backend: str, numbers: tuple[float, ...], dtype: np.dtype) -> Any:
    """A few numbers as an array of the backend: copied to a device once, not at every step."""
    return backends.get(backend).asarray(np.array(numbers, dtype))


DISTANCES: dict[str, Callable] = {"mse": ops.mse_loss, "mae": ops.mae_loss, "smooth_l1": ops.smooth_l1_loss}


def _binary(logits: Tensor, target: Labels, weight_map: Weights, config: Config, class_weight: Weights) -> Tensor:
    """The cross-entropy of one logit (N, H, W, 1); class weights become a part of the weight map."""
    w = None if weight_map is None else weight_map[..., None]
    if class_weight is not None:
        zero, one = ((target == k).astype(np.float32) * class_weight[k] for k in (0, 1))
        w = zero + one if w is None else w * (zero + one)
    return ops.sigmoid_cross_entropy(logits, target, w, reduction=config.reduction)


def _dice(logits: Tensor, target: Labels) -> Tensor:
    """1 - Dice of the class that one logit means, or the mean over K classes, over the whole batch."""
    classes = logits.shape[-1]
    if classes == 1:
        p, t = _known(ops.sigmoid(logits), target[..., None].astype(logits.dtype), target[..., None])
        return ops.dice_loss(p, t)
    p, _ = _known(ops.softmax(logits), None, target[..., None])
    losses = [
        ops.dice_loss(p_k, (target == k).astype(logits.dtype)) for k, p_k in enumerate(ops.split(p, [1] * classes))
    ]
    total = losses[0]
    for loss in losses[1:]:
        total = ops.add(total, loss)
    return ops.scale(total, 1 / classes)


def _known(x: Tensor, t: Any, labels: Labels) -> tuple[Tensor, Any]:
    """x and t (or None) with zeros where the labels, (N, H, W, 1), are ignored: in sums of products and differences
    they are then left out.
    """
    counted = labels != IGNORE
    if isinstance(counted, np.ndarray) and counted.all():  # of a device: not asked, as that would wait for it
        return x, t
    mask = backends.owner(x.data).empty(x.shape, x.dtype)
    mask[...] = like(counted, x)
    size = (1, 1, 1, mask.size)  # the product with a map is a gate on so many channels
    masked = ops.gate(ops.reshape(x, size), Tensor(mask.reshape(size)))
    return ops.reshape(masked, x.shape), None if t is None else t * counted.astype(x.dtype)


def shrink(labels: Any, size: tuple[int, int]) -> Any:
    """Maps (N, H, W) at a smaller size (h, w): the nearest pixel of the output's grid. Of that size: as they are.

    An output of every s-th pixel starts at the first one: row i is the map's row i H / h where that is whole, as from
    strided convolutions of 480 rows to 60; row i (H - 1) / (h - 1) where that is, as of 321 rows to 41; else the first,
    rounded down.
    """
    for axis, (big, small) in enumerate(zip(labels.shape[1:3], size), 1):
        if big != small:
            name = backends.owner(labels).name
            labels = labels.take(_grid(name, big, small), axis)
    return labels


@lru_cache(maxsize=64)
def _grid(backend: str, big: int, small: int) -> Any:
    """The rows (or columns) of the map for those of the output, as indices where the map lies: copied there once."""
    rows = np.arange(small) * big // small
    if small > 1 and big % small and (big - 1) % (small - 1) == 0:
        rows = np.arange(small) * ((big - 1) // (small - 1))
    return backends.get(backend).asarray(rows)


def edges(target: Labels) -> Labels:
    """1 near edges, 0 elsewhere, IGNORE where the label is: int32 (N, H, W).

    An edge is where two 4-neighbours have different labels, both known; it is widened to a square of EDGE px.
    """
    known = target != IGNORE
    edge = target != target  # False everywhere, where the target lies
    for axis in (1, 2):
        after, before = _part(axis, slice(1, None)), _part(axis, slice(None, -1))
        differ = (target[after] != target[before]) & known[after] & known[before]
        edge[after] |= differ
        edge[before] |= differ
    for axis in (1, 2):  # a square is a row of columns
        thin = edge.copy()
        for k in range(1, EDGE // 2 + 1):
            after, before = _part(axis, slice(k, None)), _part(axis, slice(None, -k))
            edge[after] |= thin[before]
            edge[before] |= thin[after]
    return (edge & known).astype(np.int32) + (~known).astype(np.int32) * IGNORE


def _part(axis: int, part: slice) -> tuple[slice, ...]:
    """The index of that part of an array along the axis."""
    return (*[slice(None)] * axis, part)
