"""Training tiles: windows inside, across and far beyond the section, every turn, tiny sizes; cells and walls."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from .sample import MAPS, Array, Case, Make, Rng, make, normal, rows, uniform

_WINDOWS = {  # label: (S, H, W, C) of the sections, (h, w) of a tile, tiles, farthest top and left beyond the section
    "inside": ((2, 12, 15, 1), (5, 7), 3, 0),
    "across the border": ((3, 9, 8, 3), (7, 6), 8, 6),
    "beyond several mirrors": ((1, 3, 4, 2), (13, 5), 4, 20),
    "one pixel to show": ((2, 1, 1, 1), (3, 2), 8, 3),
    "one row": ((1, 1, 9, 1), (4, 5), 8, 2),
    "one column, 5 channels": ((2, 7, 1, 5), (6, 1), 5, 4),
    "one pixel to fill": ((2, 8, 5, 1), (1, 1), 4, 1),
    "two by two": ((1, 2, 2, 3), (3, 3), 8, 2),
    "40 channels": ((1, 6, 7, 40), (5, 4), 2, 3),
    "more columns than threads": ((1, 5, 11, 1), (2, 300), 2, 9),
}


def places(sections: tuple[int, ...], tile: tuple[int, int], tiles: int, beyond: int) -> Make:
    """(section, top, left, turns, flip) by chance, all eight ways to turn one after the other."""

    def sample(rng: Rng, dtype: np.dtype) -> Array:
        found = np.empty((tiles, 5), np.int32)
        for n in range(tiles):
            turns, flip = n % 4, n // 4 % 2
            h, w = tile if turns % 2 == 0 else tile[::-1]
            top = rng.integers(-beyond, max(sections[1] - h, 0) + beyond + 1)
            left = rng.integers(-beyond, max(sections[2] - w, 0) + beyond + 1)
            found[n] = rng.integers(sections[0]), top, left, turns, flip
        return found

    return sample


def nodes(tiles: int, sd: float) -> Make:
    """Displacements in float64, whatever the images' dtype."""
    return lambda rng, dtype: rng.normal(0, sd, (tiles, 2, 3, 3))


def numbers(*shape: int) -> Make:
    """Labels, some of them negative or large."""
    return lambda rng, dtype: rng.choice(np.array([-3, 0, 1, 2, 255, 70_000], np.int32), shape)


@rows("deform")
def _deform(_: str) -> Iterable[Case]:
    for label, (sections, tile, tiles, beyond) in _WINDOWS.items():
        images, where = normal(*sections, mean=0.5), places(sections, tile, tiles, beyond)
        yield Case(f"{label}, cut", make(images, where, None), {"size": tile, "cubic": True})
        for cubic in (True, False):
            options = {"size": tile, "cubic": cubic}
            yield Case(f"{label}, {'cubic' if cubic else 'linear'}", make(images, where, nodes(tiles, 2.5)), options)
    sections, tile, tiles, beyond = _WINDOWS["across the border"]
    inputs = make(normal(*sections, mean=0.5), places(sections, tile, tiles, beyond), nodes(tiles, 60))
    yield Case("displaced beyond several mirrors", inputs, {"size": tile, "cubic": True})


@rows("deform_nearest")
def _deform_nearest(_: str) -> Iterable[Case]:
    for label, (sections, tile, tiles, beyond) in _WINDOWS.items():
        labels, where = numbers(*sections[:3]), places(sections, tile, tiles, beyond)
        yield Case(f"{label}, cut", make(labels, where, None), {"size": tile, "outside": 255})
        yield Case(label, make(labels, where, nodes(tiles, 2.5)), {"size": tile, "outside": 0})


@rows("gamma_curve")
def _gamma_curve(_: str) -> Iterable[Case]:
    for label, shape in MAPS.items():
        yield Case(label, make(normal(*shape), uniform(0.7, 1.4, shape[0])))
    yield Case("several blocks", make(normal(2, 97, 51, 1, mean=3.0), uniform(0.7, 1.4, 2)))
    same = lambda rng, dtype: np.full((2, 3, 5, 1), 0.3, dtype)  # noqa: E731
    yield Case("one value", make(same, uniform(0.7, 1.4, 2)))


@rows("stretch")
def _stretch(_: str) -> Iterable[Case]:
    for label, shape in MAPS.items():
        of_tiles = shape[0], shape[3]
        yield Case(label, make(normal(*shape, mean=0.5), uniform(0.5, 1.5, *of_tiles), normal(*of_tiles)))


@rows("add_noise")
def _add_noise(_: str) -> Iterable[Case]:
    for label, shape in MAPS.items():
        yield Case(label, make(normal(*shape, mean=0.5), uniform(0.1, 2, shape[0])), {"seed": 7})
    inputs = make(normal(1, 61, 47, 1), uniform(0.1, 2, 1))
    yield Case("several blocks, a large seed", inputs, {"seed": 2**64 - 3})


def cells(share: float, most: int, *shape: int) -> Make:
    """Blocks of 2 x 3 pixels, a share of them on a cell of the numbers 1 .. most, with walls of background."""

    def sample(rng: Rng, dtype: np.dtype) -> Array:
        n, h, w = shape
        coarse = rng.integers(1, most + 1, (n, h // 2 + 1, w // 3 + 1), dtype=np.int32)
        coarse[rng.random(coarse.shape) >= share] = 0
        found = coarse.repeat(2, axis=1).repeat(3, axis=2)[:, :h, :w].copy()
        found[:, ::5] = 0
        return found

    return sample


_CELLS = {  # label: (N, H, W), share of cells, largest number, sigma, rim
    "two tiles": ((2, 17, 13), 0.5, 9, 1.0, 0),
    "a rim": ((2, 19, 16), 0.5, 9, 0.7, 4),
    "few cells, far apart": ((1, 21, 34), 0.04, 40, 2.0, 0),
    "large numbers": ((1, 9, 11), 0.6, 2**31 - 2, 1.0, 1),
    "one pixel": ((3, 1, 1), 1.0, 2, 1.0, 0),
    "a row": ((1, 1, 30), 0.6, 5, 0.5, 0),
    "no cells": ((1, 6, 7), 0.0, 2, 1.0, 0),
    "one cell": ((1, 8, 9), 1.0, 1, 1.0, 2),
    "nearly all rim": ((1, 7, 8), 0.5, 4, 1.0, 3),
}


@rows("border_weights")
def _border_weights(_: str) -> Iterable[Case]:
    for label, (shape, share, most, sigma, rim) in _CELLS.items():
        for everywhere in (False, True):
            options = {"w0": 10.0, "sigma": sigma, "reach": math.ceil(6 * sigma), "rim": rim, "everywhere": everywhere}
            yield Case(f"{label}{', everywhere' * everywhere}", make(cells(share, most, *shape)), options)
