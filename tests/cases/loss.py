"""Softmax and cross-entropy: extreme logits, every mixture of weights, ignored pixels."""

from __future__ import annotations

from collections.abc import Iterable

from .sample import IGNORE, MAPS, Case, extreme, labels, make, normal, probabilities, rows, uniform

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
