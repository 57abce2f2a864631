"""Losses: one number from a map, and the gradients that go with them.

Sums are added in float64, in an order that depends on the sizes alone, so that a loss has the same bits every time.
What backward needs of them (`factor`, `slopes`) stays an array, as does the gradient `dy` that comes to a loss: a
device never waits for the host to read a number. Arrays of one number have any shape of one element.
"""

from __future__ import annotations

from math import prod

from minunet.contract.row import SUM, Spec, Work, channels, require, row, same

REDUCTIONS = ("mean", "sum", "weighted")
OVERLAPS = ("dice", "jaccard")
DISTANCES = ("mse", "mae", "smooth_l1")


def _one(what: str, **numbers: Spec) -> None:
    """Raise unless each has one element."""
    for name, spec in numbers.items():
        require(prod(spec.shape) == 1, f"{what}: {name} has shape {spec.shape}; it must have one element")


def _reduced(x: Spec, reduction: str, what: str, allowed: tuple[str, ...] = REDUCTIONS) -> tuple[Spec, Spec]:
    """The specs of (loss, factor)."""
    require(reduction in allowed, f"{what}: reduction {reduction!r} is unknown; it is one of {', '.join(allowed)}")
    return (Spec((), x.dtype),) * 2


def _classes(logits: Spec, what: str) -> None:
    """Raise unless there is something to take the maximum of."""
    require(prod(logits.shape[-1:]) > 0, f"{what}: the last axis of {logits.shape} needs at least one class")


@row("loss")
def softmax(x):
    """y = exp(x - max x) / sum exp(x - max x) over the last axis."""
    _classes(x, "softmax")
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
    _classes(logits, "softmax_cross_entropy")
    if weight_map is not None:
        same(weight_map, target, "softmax_cross_entropy: weight map and target")
    channels(class_weight, logits.shape[-1], "softmax_cross_entropy: the class weights")
    return 5 * prod(logits.shape)


@row("loss", tolerance=SUM, integers=("target",))
def softmax_cross_entropy(logits, target, weight_map=None, class_weight=None, *, ignore_index, reduction):
    """loss = factor sum_p w_p l_p, and factor = 1 / divisor, or 0 where the divisor is not positive; both of shape ().

    l_p = log sum_k exp(logits_pk) - logits_p,target_p; w_p = weight_map_p class_weight_target_p (missing: 1).
    divisor: the number of pixels p that count ("mean"), 1 ("sum"), sum_p w_p ("weighted"). Pixels whose target is
    ignore_index do not count.
    """
    flops = _cross_entropy(logits, target, weight_map, class_weight)
    return Work(_reduced(logits, reduction, "softmax_cross_entropy"), flops)


@row("loss", linear=("dy", "factor"), tolerance=SUM, integers=("target",))
def softmax_cross_entropy_grad(logits, target, dy, factor, weight_map=None, class_weight=None, *, ignore_index):
    """dlogits_pk = dy factor w_p (softmax_pk - [k = target_p]); 0 if ignored. Nothing is stored: softmax again."""
    _one("softmax_cross_entropy_grad", dy=dy, factor=factor)
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
def sigmoid_cross_entropy(logits, target, weight_map=None, *, ignore_index, reduction):
    """loss = factor sum_i w_i l_i, and factor = 1 / divisor, or 0 where the divisor is not positive; both of shape ().

    l = max(x, 0) - x t + log(1 + exp(-|x|)) = -t log s - (1 - t) log(1 - s), s = sigmoid(x), t the target in [0, 1];
    w_i = weight_map_i (missing: 1). divisor: the number of elements i that count ("mean"), 1 ("sum"), sum_i w_i
    ("weighted"). Elements whose target equals ignore_index do not count.
    """
    _binary(logits, target, weight_map, "sigmoid_cross_entropy")
    return Work(_reduced(logits, reduction, "sigmoid_cross_entropy"), 8 * prod(logits.shape))


@row("loss", linear=("dy", "factor"), tolerance=SUM)
def sigmoid_cross_entropy_grad(logits, target, dy, factor, weight_map=None, *, ignore_index):
    """dlogits_i = dy factor w_i (sigmoid(x_i) - t_i); 0 where the target equals ignore_index."""
    _binary(logits, target, weight_map, "sigmoid_cross_entropy_grad")
    _one("sigmoid_cross_entropy_grad", dy=dy, factor=factor)
    return Work((logits,), 7 * prod(logits.shape))


def _focal(logits: Spec, target: Spec, gamma: float, alpha: float, what: str) -> None:
    _binary(logits, target, None, what)
    require(gamma >= 0, f"{what}: gamma is {gamma}; it must be at least 0")
    require(0 <= alpha <= 1, f"{what}: alpha is {alpha}; it must be in 0..1")


@row("loss", tolerance=SUM)
def focal_loss(logits, target, *, gamma, alpha, ignore_index, reduction):
    """loss = factor sum_i l_i, factor = 1 / (number of elements i that count), or 0 where none does ("mean"), or 1
    ("sum"); both of shape (). The target t is 0 or 1, or ignore_index: does not count.

    z = (2 t - 1) x, q = sigmoid(-z) = 1 - p_t, a = t alpha + (1 - t)(1 - alpha):
    l = a q^gamma log(1 + exp(-z)) = -a (1 - p_t)^gamma log p_t.
    """
    _focal(logits, target, gamma, alpha, "focal_loss")
    return Work(_reduced(logits, reduction, "focal_loss", REDUCTIONS[:2]), 14 * prod(logits.shape))


@row("loss", linear=("dy", "factor"), tolerance=SUM)
def focal_loss_grad(logits, target, dy, factor, *, gamma, alpha, ignore_index):
    """dlogits_i = -dy factor (2 t - 1) a q^gamma (gamma p_t log(1 + exp(-z)) + q), as in focal_loss; 0 if ignored."""
    _focal(logits, target, gamma, alpha, "focal_loss_grad")
    _one("focal_loss_grad", dy=dy, factor=factor)
    return Work((logits,), 18 * prod(logits.shape))


@row("loss", tolerance=SUM)
def overlap(p, target, *, kind, smooth):
    """loss = 1 - (above + smooth) / (below + smooth), shape (), and slopes = (a, b) with dloss/dp_i = a t_i + b.

    I = sum_i p_i t_i, P = sum_i p_i, T = sum_i t_i. "dice": above = 2 I, below = P + T; "jaccard": above = I,
    below = P + T - I. With u and v the ratio's two parts, smooth included: b = u / v^2, a = -2 / v ("dice"),
    -(u + v) / v^2 ("jaccard"). Where v = 0, nothing is there and nothing is found: the loss and both slopes are 0.
    """
    same(target, p, "overlap: target and probabilities")
    require(kind in OVERLAPS, f"overlap: kind {kind!r} is unknown; it is one of {', '.join(OVERLAPS)}")
    require(smooth >= 0, f"overlap: smooth is {smooth}; it must be at least 0")
    return Work((Spec((), p.dtype), Spec((2,), p.dtype)), 4 * prod(p.shape))


@row("loss", linear=("dy", "slopes"))
def overlap_grad(target, dy, slopes):
    """dp_i = dy (slopes_0 t_i + slopes_1)."""
    _one("overlap_grad", dy=dy)
    require(slopes.shape == (2,), f"overlap_grad: slopes has shape {slopes.shape}; it must be (2,)")
    return Work((target,), 3 * prod(target.shape))


def _distance(x: Spec, target: Spec, kind: str, what: str) -> None:
    require(kind in DISTANCES, f"{what}: kind {kind!r} is unknown; it is one of {', '.join(DISTANCES)}")
    same(target, x, f"{what}: target and x")
    require(prod(x.shape) > 0, f"{what}: x has shape {x.shape}; a mean needs an element")


@row("loss", tolerance=SUM)
def distance(x, target, *, kind):
    """loss = sum_i l(x_i - t_i) / n over the n elements, shape ().

    "mse": l(d) = d^2     "mae": l(d) = |d|     "smooth_l1": l(d) = d^2 / 2 where |d| < 1, else |d| - 1/2
    """
    _distance(x, target, kind, "distance")
    return Work((Spec((), x.dtype),), 4 * prod(x.shape))


@row("loss", linear=("dy",))
def distance_grad(x, target, dy, *, kind):
    """dx_i = dy l'(x_i - t_i) / n: l'(d) = 2 d, sign(d) (0 at 0), and d held within -1..1."""
    _distance(x, target, kind, "distance_grad")
    _one("distance_grad", dy=dy)
    return Work((x,), 4 * prod(x.shape))
