"""Losses: sums over a map, in float64, and the gradients that go with them.

Sums are added in an order that depends on the sizes alone, so that a loss has the same bits every time.
"""

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


@row("loss", tolerance=SUM, integers=("target",))
def pixel_cross_entropy(logits, target, *, ignore_index):
    """l_p = log sum_k exp(logits_pk) - logits_p,target_p >= 0 for each pixel; -1 where the target is ignore_index."""
    flops = _cross_entropy(logits, target, None, None)
    return Work((Spec(target.shape, logits.dtype),), flops)


def _binary(logits: Spec, target: Spec, weight_map: Spec | None, what: str) -> None:
    same(target, logits, f"{what}: target and logits")
    if weight_map is not None:
        same(weight_map, logits, f"{what}: weight map and logits")


@row("loss", tolerance=SUM)
def sigmoid_cross_entropy(logits, target, weight_map=None, *, ignore_index):
    """sums = (sum_i w_i l_i, sum_i w_i, number of elements i counted), float64; w_i = weight_map_i (missing: 1).

    l = max(x, 0) - x t + log(1 + exp(-|x|)) = -t log s - (1 - t) log(1 - s), s = sigmoid(x), t the target in [0, 1].
    Elements whose target equals ignore_index do not count.
    """
    _binary(logits, target, weight_map, "sigmoid_cross_entropy")
    return Work((Spec((3,), F64),), 8 * prod(logits.shape))


@row("loss", tolerance=SUM)
def sigmoid_cross_entropy_grad(logits, target, weight_map=None, *, ignore_index, scale):
    """dlogits_i = scale w_i (sigmoid(x_i) - t_i); 0 where the target equals ignore_index."""
    _binary(logits, target, weight_map, "sigmoid_cross_entropy_grad")
    return Work((logits,), 7 * prod(logits.shape))


def _focal(logits: Spec, target: Spec, gamma: float, alpha: float, what: str) -> None:
    _binary(logits, target, None, what)
    require(gamma >= 0, f"{what}: gamma is {gamma}; it must be at least 0")
    require(0 <= alpha <= 1, f"{what}: alpha is {alpha}; it must be in 0..1")


@row("loss", tolerance=SUM)
def focal_loss(logits, target, *, gamma, alpha, ignore_index):
    """sums = (sum_i l_i, number of elements i counted), float64; the target t is 0 or 1, or ignore_index: not counted.

    z = (2 t - 1) x, q = sigmoid(-z) = 1 - p_t, a = t alpha + (1 - t)(1 - alpha):
    l = a q^gamma log(1 + exp(-z)) = -a (1 - p_t)^gamma log p_t.
    """
    _focal(logits, target, gamma, alpha, "focal_loss")
    return Work((Spec((2,), F64),), 14 * prod(logits.shape))


@row("loss", tolerance=SUM)
def focal_loss_grad(logits, target, *, gamma, alpha, ignore_index, scale):
    """dlogits_i = -scale (2 t - 1) a q^gamma (gamma p_t log(1 + exp(-z)) + q), as in focal_loss; 0 where ignored."""
    _focal(logits, target, gamma, alpha, "focal_loss_grad")
    return Work((logits,), 18 * prod(logits.shape))


@row("loss", tolerance=SUM)
def overlap(p, target):
    """sums = (sum_i p_i t_i, sum_i p_i, sum_i t_i), float64: what the Dice and Jaccard losses are made of."""
    same(target, p, "overlap: target and probabilities")
    return Work((Spec((3,), F64),), 4 * prod(p.shape))


@row("loss")
def overlap_grad(target, *, a, b):
    """dp_i = a t_i + b."""
    return Work((target,), 2 * prod(target.shape))


DISTANCES = ("mse", "mae", "smooth_l1")


def _distance(x: Spec, target: Spec, kind: str, what: str) -> None:
    require(kind in DISTANCES, f"{what}: kind {kind!r} is unknown; it is one of {', '.join(DISTANCES)}")
    same(target, x, f"{what}: target and x")


@row("loss", tolerance=SUM)
def distance(x, target, *, kind):
    """sums = (sum_i l(x_i - t_i),), float64.

    "mse": l(d) = d^2     "mae": l(d) = |d|     "smooth_l1": l(d) = d^2 / 2 where |d| < 1, else |d| - 1/2
    """
    _distance(x, target, kind, "distance")
    return Work((Spec((1,), F64),), 4 * prod(x.shape))


@row("loss")
def distance_grad(x, target, *, kind, scale):
    """dx_i = scale l'(x_i - t_i): l'(d) = 2 d, sign(d) (0 at 0), and d held within -1..1."""
    _distance(x, target, kind, "distance_grad")
    return Work((x,), 4 * prod(x.shape))
