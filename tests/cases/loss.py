"""Losses: extreme logits, every mixture of weights, ignored pixels."""

from __future__ import annotations

from collections.abc import Iterable

from .sample import IGNORE, MAPS, Case, bits, extreme, labels, make, normal, probabilities, rows, uniform

_LOGITS = {**MAPS, "19 classes": (2, 4, 7, 19), "two classes": (1, 6, 5, 2)}


@rows("softmax")
def _softmax(_: str) -> Iterable[Case]:
    for label, shape in {**_LOGITS, "matrix": (5, 7)}.items():
        yield Case(label, make(normal(*shape, std=3.0)))
        yield Case(f"{label}, extreme", make(extreme(*shape)))


@rows("softmax_grad")
def _softmax_grad(_: str) -> Iterable[Case]:
    for label, shape in _LOGITS.items():
        if shape[-1] > 1:  # with one class it is 0 for any dy, and only rounding would be seen
            yield Case(label, make(normal(*shape), probabilities(*shape)))


_DY, _FACTOR = uniform(0.5, 1.5, 1), uniform(0.1, 0.7, 1)  # what comes to a loss, and 1 / divisor


@rows("softmax_cross_entropy", "softmax_cross_entropy_grad")
def _softmax_cross_entropy(row_name: str) -> Iterable[Case]:
    between = (_DY, _FACTOR) if row_name.endswith("grad") else ()

    def case(label: str, logits, target, *weights, reduction: str = "mean", ignored: int = IGNORE) -> Case:
        options = {"ignore_index": ignored} | ({} if between else {"reduction": reduction})
        return Case(label, make(logits, target, *between, *weights), options)

    for label, (*pixels, k) in _LOGITS.items():
        logits, target = normal(*pixels, k, std=3.0), labels(k, *pixels)
        map_, class_weight = uniform(0, 12, *pixels), uniform(0.1, 4, k)
        if k > 1:  # one class: loss and gradient are 0 but for rounding
            yield case(label, logits, target, None, None)
            yield case(f"{label}, extreme", extreme(*pixels, k), target, map_, None, reduction="weighted")
            yield case(f"{label}, class weights", logits, target, None, class_weight, reduction="sum")
        some = labels(k, *pixels, ignored=0.4)
        for reduction in ("mean",) if between else ("mean", "sum", "weighted"):
            title = f"{label}, all weights, some ignored, {reduction}"
            yield case(title, logits, some, map_, class_weight, reduction=reduction)
            none = labels(k, *pixels, ignored=1.0)
            yield case(f"{label}, all ignored, {reduction}", logits, none, None, class_weight, reduction=reduction)
    logits, target = normal(2, 5, 4, 3), labels(3, 2, 5, 4)
    yield case("class 0 ignored", logits, target, None, uniform(0.1, 4, 3), reduction="weighted", ignored=0)


@rows("pixel_cross_entropy")
def _pixel_cross_entropy(_: str) -> Iterable[Case]:
    options = {"ignore_index": IGNORE}
    for label, (*pixels, k) in _LOGITS.items():
        if k > 1:
            yield Case(label, make(normal(*pixels, k, std=3.0), labels(k, *pixels)), options)
            yield Case(f"{label}, extreme", make(extreme(*pixels, k), labels(k, *pixels)), options)
        some = labels(k, *pixels, ignored=0.4)
        yield Case(f"{label}, some ignored", make(normal(*pixels, k), some), options)
        yield Case(f"{label}, all ignored", make(normal(*pixels, k), labels(k, *pixels, ignored=1.0)), options)
    yield Case("class 0 ignored", make(normal(2, 5, 4, 3), labels(3, 2, 5, 4)), {"ignore_index": 0})


_BINARY = {**MAPS, "one class, H != W": (2, 11, 23, 1), "a row of numbers": (301,)}


@rows("sigmoid_cross_entropy", "sigmoid_cross_entropy_grad")
def _sigmoid_cross_entropy(row_name: str) -> Iterable[Case]:
    between = (_DY, _FACTOR) if row_name.endswith("grad") else ()

    def case(label: str, logits, target, weight_map, reduction: str = "mean", ignored: int = IGNORE) -> Case:
        options = {"ignore_index": ignored} | ({} if between else {"reduction": reduction})
        return Case(label, make(logits, target, *between, weight_map), options)

    for label, shape in _BINARY.items():
        logits, map_ = normal(*shape, std=3.0), uniform(0, 12, *shape)
        yield case(label, logits, bits(*shape), None)
        yield case(f"{label}, between 0 and 1", logits, uniform(0, 1, *shape), None, "sum")
        yield case(f"{label}, extreme", extreme(*shape), bits(*shape), map_, "weighted")
        for reduction in ("mean",) if between else ("mean", "sum", "weighted"):
            some, none = bits(*shape, ignored=0.4), bits(*shape, ignored=1.0)
            yield case(f"{label}, weights, some ignored, {reduction}", logits, some, map_, reduction)
            yield case(f"{label}, all ignored, {reduction}", logits, none, None, reduction)
    yield case("0 ignored", normal(2, 5, 4, 3), bits(2, 5, 4, 3), None, ignored=0)


@rows("focal_loss", "focal_loss_grad")
def _focal_loss(row_name: str) -> Iterable[Case]:
    between = (_DY, _FACTOR) if row_name.endswith("grad") else ()

    def case(label: str, logits, target, reduction: str = "mean", gamma: float = 2.0, alpha: float = 0.25) -> Case:
        options = {"gamma": gamma, "alpha": alpha, "ignore_index": IGNORE}
        return Case(label, make(logits, target, *between), options | ({} if between else {"reduction": reduction}))

    for label, shape in _BINARY.items():
        logits = normal(*shape, std=3.0)
        yield case(label, logits, bits(*shape))
        yield case(f"{label}, extreme", extreme(*shape), bits(*shape), "sum")
        yield case(f"{label}, some ignored", logits, bits(*shape, ignored=0.4))
        yield case(f"{label}, all ignored", logits, bits(*shape, ignored=1.0))
    for gamma, alpha in ((0.0, 0.5), (0.5, 0.9), (1.0, 1.0), (5.3, 0.0)):
        for label, logits in (("", normal(2, 9, 7, 1)), (", extreme", extreme(2, 9, 7, 1))):
            title = f"gamma {gamma}, alpha {alpha}{label}"
            yield case(title, logits, bits(2, 9, 7, 1), "sum", gamma=gamma, alpha=alpha)


@rows("overlap")
def _overlap(_: str) -> Iterable[Case]:
    for label, shape in _BINARY.items():
        for kind, smooth in (("dice", 1.0), ("jaccard", 0.7)):
            options = {"kind": kind, "smooth": smooth}
            yield Case(f"{kind}, {label}", make(uniform(0, 1, *shape), bits(*shape)), options)
            between = make(uniform(0, 1, *shape), uniform(0, 1, *shape))
            yield Case(f"{kind}, {label}, between 0 and 1", between, options | {"smooth": 0.0})
    for kind in ("dice", "jaccard"):
        zero = uniform(0, 0, 2, 5, 3, 1)
        yield Case(f"{kind}, nothing there", make(uniform(0, 1, 2, 5, 3, 1), zero), {"kind": kind, "smooth": 1.0})
        yield Case(f"{kind}, nothing there nor found", make(zero, zero), {"kind": kind, "smooth": 0.0})


@rows("overlap_grad")
def _overlap_grad(_: str) -> Iterable[Case]:
    for label, shape in _BINARY.items():
        yield Case(label, make(bits(*shape), _DY, normal(2)))
        yield Case(f"{label}, between 0 and 1", make(uniform(0, 1, *shape), _DY, uniform(0.1, 1, 2)))


@rows("distance", "distance_grad")
def _distance(row_name: str) -> Iterable[Case]:
    between = (_DY,) if row_name.endswith("grad") else ()
    for kind in ("mse", "mae", "smooth_l1"):
        options = {"kind": kind}
        for label, shape in _BINARY.items():
            yield Case(f"{kind}, {label}", make(normal(*shape), normal(*shape), *between), options)
        yield Case(f"{kind}, extreme", make(extreme(3, 7, 5, 2), normal(3, 7, 5, 2), *between), options)
        same = uniform(0.5, 0.5, 2, 3, 5, 1)
        yield Case(f"{kind}, nothing to learn", make(same, same, *between), options)
