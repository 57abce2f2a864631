"""What training makes small: the loss by its name, over all outputs that a network has in training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minunet import ops
from minunet.data import IGNORE
from minunet.models import Network
from minunet.ops.shared import like
from minunet.tensor import Tensor
from minunet.training.config import Config

KEPT = 16  # ohem keeps the hardest 1/16 of the pixels at least, and all below HARD (BiSeNet's code)
HARD = 0.7
EDGE = 7  # px: side of the square by which edges are widened (DFN's code)

Labels = np.ndarray  # int32 (N, H, W), class indices, IGNORE where a pixel does not count
Weights = np.ndarray | None  # float32 (N, H, W), or (K,) by class


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
    class_weight : (K,)

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
    if logits.shape[-1] > 1 and kind == "ce":
        return ops.softmax_cross_entropy(logits, target, weight_map, class_weight, reduction=config.reduction)
    if logits.shape[-1] > 1 and kind == "ohem":
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


DISTANCES: dict[str, Callable] = {"mse": ops.mse_loss, "mae": ops.mae_loss, "smooth_l1": ops.smooth_l1_loss}


def _binary(logits: Tensor, target: Labels, weight_map: Weights, config: Config, class_weight: Weights) -> Tensor:
    """The cross-entropy of one logit (N, H, W, 1); class weights become a part of the weight map."""
    w = None if weight_map is None else weight_map[..., None]
    if class_weight is not None:
        table = np.zeros(IGNORE + 1, np.float32)
        table[: len(class_weight)] = class_weight
        w = table[target] if w is None else w * table[target]
    return ops.sigmoid_cross_entropy(logits, target, w, reduction=config.reduction)


def _dice(logits: Tensor, target: Labels) -> Tensor:
    """1 - Dice of the class that one logit means, or the mean over K classes, over the whole batch."""
    classes = logits.shape[-1]
    if classes == 1:
        p, t = _known(ops.sigmoid(logits), target[..., None].astype(logits.dtype), target[..., None])
        return ops.dice_loss(p, t)
    one_hot = (target[..., None] == np.arange(classes)).astype(logits.dtype)  # (N, H, W, K)
    p, t = _known(ops.softmax(logits), one_hot, np.broadcast_to(target[..., None], logits.shape))
    losses = [
        ops.dice_loss(p_k, np.ascontiguousarray(t[..., k : k + 1])) for k, p_k in enumerate(ops.split(p, [1] * classes))
    ]
    total = losses[0]
    for loss in losses[1:]:
        total = ops.add(total, loss)
    return ops.scale(total, 1 / classes)


def _known(x: Tensor, t: np.ndarray, labels: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """x and t with zeros where the labels (of x's shape) are ignored: in sums of products and differences they are
    then left out.
    """
    counted = labels != IGNORE
    if counted.all():
        return x, t
    size = (1, 1, 1, counted.size)  # the product with a map is a gate on so many channels
    mask = counted.astype(x.dtype)
    masked = ops.gate(ops.reshape(x, size), Tensor(like(mask.reshape(size), x)))
    return ops.reshape(masked, x.shape), t * mask


def shrink(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps (N, H, W) at a smaller size (h, w): the nearest pixel of the output's grid. Of that size: as they are.

    An output of every s-th pixel starts at the first one: row i is the map's row i H / h where that is whole, as from
    strided convolutions of 480 rows to 60; row i (H - 1) / (h - 1) where that is, as of 321 rows to 41; else the first,
    rounded down.
    """
    if labels.shape[1:3] == tuple(size):
        return labels
    rows, columns = (_grid(big, small) for big, small in zip(labels.shape[1:3], size))
    return np.ascontiguousarray(labels[:, rows[:, None], columns])


def _grid(big: int, small: int) -> np.ndarray:
    if small > 1 and big % small and (big - 1) % (small - 1) == 0:
        return np.arange(small) * ((big - 1) // (small - 1))
    return np.arange(small) * big // small


def edges(target: Labels) -> np.ndarray:
    """1 near edges, 0 elsewhere, IGNORE where the label is: int32 (N, H, W).

    An edge is where two 4-neighbours have different labels, both known; it is widened to a square of EDGE px.
    """
    from scipy.ndimage import maximum_filter

    edge = np.zeros(target.shape, np.uint8)
    for axis in (1, 2):
        a, b = (np.take(target, np.arange(k, target.shape[axis] - 1 + k), axis) for k in (0, 1))
        differ = (a != b) & (a != IGNORE) & (b != IGNORE)
        after = np.pad(differ, [(0, 0)] + [(1, 0) if ax == axis else (0, 0) for ax in (1, 2)])
        before = np.pad(differ, [(0, 0)] + [(0, 1) if ax == axis else (0, 0) for ax in (1, 2)])
        edge |= after | before
    wide = maximum_filter(edge, size=(1, EDGE, EDGE), mode="constant").astype(np.int32)
    wide[target == IGNORE] = IGNORE
    return wide
