"""Crops by even and odd margins, windows at every edge; padding as far as mirrors reach."""

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


_WINDOW = {  # label: (N, H, W, C), offset (top, left, first), size (h, w, c)
    "everything": ((2, 5, 4, 3), (0, 0, 0), (5, 4, 3)),
    "one pixel": ((1, 1, 1, 1), (0, 0, 0), (1, 1, 1)),
    "one number": ((2, 5, 4, 3), (3, 1, 2), (1, 1, 1)),
    "space": ((2, 7, 6, 5), (2, 1, 0), (4, 3, 5)),
    "rows": ((1, 9, 4, 17), (8, 0, 0), (1, 4, 17)),
    "columns at the right edge": ((3, 3, 11, 2), (0, 7, 0), (3, 4, 2)),
    "first channels": ((2, 3, 4, 19), (0, 0, 0), (3, 4, 16)),
    "last channels": ((2, 3, 4, 19), (0, 0, 16), (3, 4, 3)),
    "space and channels": ((2, 6, 5, 9), (1, 2, 3), (4, 3, 5)),
}


@rows("crop")
def _crop(_: str) -> Iterable[Case]:
    for label, (large, offset, size) in _WINDOW.items():
        yield Case(label, make(normal(*large)), {"offset": offset, "size": size})


@rows("embed")
def _embed(_: str) -> Iterable[Case]:
    for label, ((n, *size), offset, small) in _WINDOW.items():
        yield Case(label, make(normal(n, *small)), {"offset": offset, "size": tuple(size)})
