"""What is written of a prediction: masks, classes, colours, the masks' own values, probabilities, overlays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from minunet.data.dataset import paint
from minunet.data.masks import undo
from minunet.data.reading import SectionFile
from minunet.errors import UsageError

Colour = tuple[int, int, int]
PIXELS = 1 << 18  # of an overlay at a time, in whole rows
SHARE = 0.4  # of an overlay's colours; the rest is the image
EDGE: Colour = (255, 210, 0)
TINTS: tuple[Colour, ...] = (
    (230, 60, 50), (40, 120, 230), (250, 200, 30), (60, 180, 75), (170, 80, 220), (250, 130, 30), (40, 200, 200),
    (240, 90, 180), (140, 200, 40), (150, 100, 60),
)  # fmt: skip


class Results:
    """The kinds of results for a network of `n_classes`, each with its dtype and channels (0: a plane of numbers).

    classes : whose probability to write       colours : of the classes; empty: none known
    table   : which value of the training's masks was which class (`minunet.data.masks`); None: they were classes
    overlay : "colours", "edges" or None               painted : write a picture in the classes' colours
    """

    def __init__(
        self, n_classes: int, classes: Sequence[int], colours: Sequence[Colour], table: Mapping[str, Any] | None,
        overlay: str | None, painted: bool,
    ):  # fmt: skip
        self.n_classes, self.classes, self.colours = n_classes, classes, tuple(colours)
        self.table, self.overlay = table, overlay
        wide = np.uint8 if n_classes <= 256 else np.uint16
        self.kinds: dict[str, tuple[Any, int]] = {"mask": (np.uint8, 0)}
        if n_classes > 2:
            self.kinds["classes"] = (wide, 0)
        if painted:
            self.kinds["colours"] = (np.uint8, 3)
        self.kinds |= {f"probability {c}": (np.uint16, 0) for c in classes}
        if table is not None:
            like = undo(np.zeros((1, 1), np.uint8), table)
            instances = table.get("kind") == "instances"
            self.kinds["labels"] = (np.int32 if instances else like.dtype, 3 if like.ndim == 3 else 0)
        if overlay:
            self.kinds["overlay"] = (np.uint8, 3)

    @property
    def late(self) -> list[str]:
        """Kinds that are made of whole sections' classes, once these are there."""
        cells = self.table is not None and self.table.get("kind") == "instances"
        return [kind for kind in self.kinds if kind == "overlay" or (kind == "labels" and cells)]

    def blocks(self, p: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """(kind, block) of the kinds that are made tile by tile, of probabilities (h, w, K); K = 1: P(class 1)."""
        if p.shape[2] == 1:
            p = np.concatenate([1 - p, p], axis=2)
        found = p.argmax(axis=2)
        for kind, (dtype, _) in self.kinds.items():
            if kind in self.late:
                continue
            if kind == "mask":
                yield kind, (found * 255 // (self.n_classes - 1)).astype(np.uint8)
            elif kind == "classes":
                yield kind, found.astype(dtype)
            elif kind == "colours":
                yield kind, paint(found, self.colours)
            elif kind == "labels":
                yield kind, undo(found, self.table)
            else:
                yield kind, np.round(p[..., int(kind.split()[1])] * 65535).astype(np.uint16)

    def write_late(self, stores: Mapping[str, Any], source: SectionFile) -> None:
        """Write the late kinds of all sections from the classes in the stores."""
        for s in range(source.shape[0] if self.late else 0):
            if "labels" in self.late:
                stores["labels"].write(s, 0, 0, undo(self._found(stores, s, 0, source.shape[1]), self.table))
            if self.overlay:
                self._write_overlay(stores, source, s)

    def _found(self, stores: Mapping[str, Any], s: int, top: int, bottom: int) -> np.ndarray:
        """The classes of some rows, (h, W)."""
        if "classes" in stores:
            return stores["classes"].rows(s, top, bottom)
        return stores["mask"].rows(s, top, bottom) // 255

    def _write_overlay(self, stores: Mapping[str, Any], source: SectionFile, s: int) -> None:
        H, W = source.shape[1:3]
        source.choose(s)
        seen = source.sample()
        low, high = shown_range(seen)
        step = max(1, PIXELS // W)
        for top in range(0, H, step):
            bottom = min(top + step, H)
            first, last = max(top - 1, 0), min(bottom + 1, H)
            found = self._found(stores, s, first, last)
            picture = grey_levels(source.raw(top, 0, bottom - top, W), low, high)
            rows = slice(top - first, bottom - first)
            if self.overlay == "edges":
                picture[edges(found)[rows]] = EDGE
            else:
                picture = tinted(picture, found[rows], self.tints())
            stores["overlay"].write(s, top, 0, picture)

    def tints(self) -> list[Colour]:
        """Each class's colour in overlays: its own, unless all are greys, which would not show on grey images."""
        if any(len(set(colour)) > 1 for colour in self.colours):
            return list(self.colours)
        return [TINTS[k % len(TINTS)] for k in range(self.n_classes)]


def spoken(kind: str) -> str:
    """What people call a kind of result: P(class 1) is the probability."""
    return "probability" if kind == "probability 1" else kind


def shown_range(x: np.ndarray) -> tuple[float, float]:
    """The values that are shown black and white: 0 and 255 of 8 bits, else all but the darkest and brightest percent,
    or all where so few pixels hold anything.
    """
    if x.dtype == np.uint8:
        return 0.0, 255.0
    low, high = np.percentile(x.astype(np.float64), (1, 99)).tolist()
    return (low, high) if low < high else (float(x.min()), float(x.max()))


def grey_levels(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Pixels (h, w, C) as a picture uint8 (h, w, 3), low .. high as black .. white; of C channels but 3 the first."""
    x = x if x.shape[2] == 3 else np.repeat(x[..., :1], 3, axis=2)
    scale = 255 / (high - low) if high > low else 0.0
    return np.clip(np.rint((x.astype(np.float32) - low) * scale), 0, 255).astype(np.uint8)


def tinted(picture: np.ndarray, found: np.ndarray, colours: Sequence[Colour]) -> np.ndarray:
    """A picture uint8 (h, w, 3) with the classes' colours over it, as far as SHARE says; class 0 stays as it is."""
    table = np.zeros((max(len(colours), int(found.max(initial=0)) + 1), 3), np.float32)
    table[: len(colours)] = colours
    mixed = np.rint((1 - SHARE) * picture + SHARE * table[found]).astype(np.uint8)
    return np.where((found == 0)[..., None], picture, mixed)


def edges(found: np.ndarray) -> np.ndarray:
    """Pixels (h, w) with a pixel of another class above, below, left or right."""
    edge = np.zeros(found.shape, bool)
    for axis in (0, 1):
        a, b = (found[1:], found[:-1]) if axis == 0 else (found[:, 1:], found[:, :-1])
        there = a != b
        if axis == 0:
            edge[1:] |= there
            edge[:-1] |= there
        else:
            edge[:, 1:] |= there
            edge[:, :-1] |= there
    return edge


def read_palette(text: str, n_classes: int) -> list[Colour]:
    """Colours of "#000000,#ff0000,...", one a class. Raises UsageError."""
    parts = [part.strip().lstrip("#") for part in text.split(",")]
    if not all(len(part) == 6 and all(c in "0123456789abcdefABCDEF" for c in part) for part in parts):
        raise UsageError(f'--palette {text}: cannot be read; write colours like "#000000,#ff8000", one a class')
    if len(parts) != n_classes:
        raise UsageError(f"--palette {text}: has {len(parts)} colours for {n_classes} classes; give one a class")
    return [tuple(int(part[k : k + 2], 16) for k in (0, 2, 4)) for part in parts]
