"""Crops by even and odd margins; padding as far as mirrors reach."""

from __future__ import annotations

from collections.abc import Iterable

from .sample import Case, make, normal, rows

_CROP = {  # label: shapes of x and skip
    "no crop": ((2, 5, 4, 3), (2, 5, 4, 2)),
    "even crop": ((1, 4, 6, 5), (1, 8, 10, 7)),
    "odd crop": ((2, 5, 4, 3), (2, 8, 9, 1)),
    "one side only": ((1, 3, 7, 16), (1, 3, 12, 17)),
    "one pixel": ((3, 1, 1, 1), (3, 4, 3, 2)),
}


@rows("crop_concat")
def _crop_concat(_: str) -> Iterable[Case]:
    for label, (x, skip) in _CROP.items():
        yield Case(label, make(normal(*x), normal(*skip)))


@rows("crop_concat_grad")
def _crop_concat_grad(_: str) -> Iterable[Case]:
    for label, ((n, h, w, c), skip) in _CROP.items():
        yield Case(label, make(normal(n, h, w, c + skip[3])), {"size": skip[1:3], "split": c})


_PAD = {  # label: (N, H, W, C), padding (top, bottom, left, right)
    "nothing": ((2, 3, 4, 3), (0, 0, 0, 0)),
    "all sides": ((2, 5, 4, 3), (1, 2, 3, 1)),
    "as far as mirrors reach": ((1, 4, 3, 5), (3, 3, 2, 2)),
    "one side": ((1, 7, 6, 17), (0, 0, 0, 5)),
}


@rows("pad")
def _pad(_: str) -> Iterable[Case]:
    for label, (x, padding) in _PAD.items():
        for mode, value in (("reflect", 0.0), ("constant", 0.0), ("constant", -1.5)):
            options = {"padding": padding, "mode": mode, "value": value}
            yield Case(f"{label}, {mode} {value}", make(normal(*x)), options, linear=value == 0)
    options = {"padding": (2, 1, 0, 3), "mode": "constant", "value": 0.0}
    yield Case("one pixel", make(normal(1, 1, 1, 1)), options)


@rows("pad_grad")
def _pad_grad(_: str) -> Iterable[Case]:
    for label, ((n, h, w, c), (top, bottom, left, right)) in _PAD.items():
        for mode in ("reflect", "constant"):
            options = {"padding": (top, bottom, left, right), "mode": mode}
            yield Case(f"{label}, {mode}", make(normal(n, h + top + bottom, w + left + right, c)), options)
