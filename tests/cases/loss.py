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


@rows("softmax_cross_entropy", "softmax_cross_entropy_grad")
def _softmax_cross_entropy(row_name: str) -> Iterable[Case]:
    options = {"ignore_index": IGNORE} | ({"scale": 0.37} if row_name.endswith("grad") else {})
    for label, (*pixels, k) in _LOGITS.items():
        logits, target = normal(*pixels, k, std=3.0), labels(k, *pixels)
        map_, class_weight = uniform(0, 12, *pixels), uniform(0.1, 4, k)
        if k > 1:  # one class: loss and gradient are 0 but for rounding
            yield Case(label, make(logits, target, None, None), options)
            yield Case(f"{label}, extreme", make(extreme(*pixels, k), target, map_, None), options)
            yield Case(f"{label}, class weights", make(logits, target, None, class_weight), options)
        some = labels(k, *pixels, ignored=0.4)
        yield Case(f"{label}, all weights, some ignored", make(logits, some, map_, class_weight), options)
        yield Case(f"{label}, all ignored", make(logits, labels(k, *pixels, ignored=1.0), None, class_weight), options)
    first = options | {"ignore_index": 0}
    yield Case("class 0 ignored", make(normal(2, 5, 4, 3), labels(3, 2, 5, 4), None, uniform(0.1, 4, 3)), first)


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
    options = {"ignore_index": IGNORE} | ({"scale": 0.37} if row_name.endswith("grad") else {})
    for label, shape in _BINARY.items():
        logits, map_ = normal(*shape, std=3.0), uniform(0, 12, *shape)
        yield Case(label, make(logits, bits(*shape), None), options)
        yield Case(f"{label}, between 0 and 1", make(logits, uniform(0, 1, *shape), None), options)
        yield Case(f"{label}, extreme", make(extreme(*shape), bits(*shape), map_), options)
        yield Case(f"{label}, weights, some ignored", make(logits, bits(*shape, ignored=0.4), map_), options)
        yield Case(f"{label}, all ignored", make(logits, bits(*shape, ignored=1.0), None), options)
    yield Case("0 ignored", make(normal(2, 5, 4, 3), bits(2, 5, 4, 3), None), options | {"ignore_index": 0})


@rows("focal_loss", "focal_loss_grad")
def _focal_loss(row_name: str) -> Iterable[Case]:
    scale = {"scale": 0.37} if row_name.endswith("grad") else {}
    options = {"gamma": 2.0, "alpha": 0.25, "ignore_index": IGNORE} | scale
    for label, shape in _BINARY.items():
        logits = normal(*shape, std=3.0)
        yield Case(label, make(logits, bits(*shape)), options)
        yield Case(f"{label}, extreme", make(extreme(*shape), bits(*shape)), options)
        yield Case(f"{label}, some ignored", make(logits, bits(*shape, ignored=0.4)), options)
        yield Case(f"{label}, all ignored", make(logits, bits(*shape, ignored=1.0)), options)
    for gamma, alpha in ((0.0, 0.5), (0.5, 0.9), (1.0, 1.0), (5.3, 0.0)):
        changed = options | {"gamma": gamma, "alpha": alpha}
        for label, logits in (("", normal(2, 9, 7, 1)), (", extreme", extreme(2, 9, 7, 1))):
            yield Case(f"gamma {gamma}, alpha {alpha}{label}", make(logits, bits(2, 9, 7, 1)), changed)


@rows("overlap")
def _overlap(_: str) -> Iterable[Case]:
    for label, shape in _BINARY.items():
        yield Case(label, make(uniform(0, 1, *shape), bits(*shape)))
        yield Case(f"{label}, between 0 and 1", make(uniform(0, 1, *shape), uniform(0, 1, *shape)))
    yield Case("nothing there", make(uniform(0, 1, 2, 5, 3, 1), uniform(0, 0, 2, 5, 3, 1)))


@rows("overlap_grad")
def _overlap_grad(_: str) -> Iterable[Case]:
    for label, shape in _BINARY.items():
        yield Case(label, make(bits(*shape)), {"a": -0.7, "b": 0.3})
        yield Case(f"{label}, between 0 and 1", make(uniform(0, 1, *shape)), {"a": -0.01, "b": 0.003})


@rows("distance", "distance_grad")
def _distance(row_name: str) -> Iterable[Case]:
    scale = {"scale": 0.37} if row_name.endswith("grad") else {}
    for kind in ("mse", "mae", "smooth_l1"):
        for label, shape in _BINARY.items():
            yield Case(f"{kind}, {label}", make(normal(*shape), normal(*shape)), {"kind": kind} | scale)
        yield Case(f"{kind}, extreme", make(extreme(3, 7, 5, 2), normal(3, 7, 5, 2)), {"kind": kind} | scale)
        same = uniform(0.5, 0.5, 2, 3, 5, 1)
        yield Case(f"{kind}, nothing to learn", make(same, same), {"kind": kind} | scale)
