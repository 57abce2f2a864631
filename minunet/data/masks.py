"""Masks as people save them - 0/1, 0/255, grey levels, palette, colours, instance numbers - as classes, and back.

A table says which value of the masks is which class. It is what JSON can say, so that a checkpoint can hold it:

    {"kind": "values" | "colours" | "instances", "type": "uint8",
     "map": [[value, class], ...],     a value is a number, or 0xRRGGBB for colours; class null: ignored
     "classes": ["background", ...]}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minunet.data.dataset import IGNORE, Colour
from minunet.data.maskfile import Survey, is_colour, is_stack, packed, read_mask, survey  # noqa: F401 for who imports them here
from minunet.errors import UserError

MAX_CLASSES = 32  # more different values than this are instance numbers, or an image that was scaled or compressed
IGNORED_WORD = "ignore"
Table = dict[str, Any]


def make_table(masks: Mapping[Path, Survey], labels: str = "", instances: bool = False) -> Table:
    """The table for all masks of a data set: each value a class, in rising order.

    labels    : "0=background,128=nucleus,255=ignore" or with colours "#ff0000=cell,...": the classes in this order and
                by these names; values of one name are one class, and "ignore" is no class
    instances : every value but 0 (or black) is one cell: two classes, background and cell

    Without `labels`, 255 beside two or more class numbers below MAX_CLASSES means "ignore", as in Pascal VOC and
    CamVid; but where some masks hold 0 and 1, others 0 and 255, and none both, 1 and 255 are one class. Raises
    UserError, naming the file, for masks of numbers and of colours mixed, values that `labels` does not have, too many
    values, a single one, or negative ones.
    """
    kinds = {mask.colour: path for path, mask in masks.items()}
    if len(kinds) > 1 and not instances:
        raise UserError(f"{kinds[True]}: is in colours, and {kinds[False]} in grey; save all masks alike")
    colour = True in kinds
    for path, mask in masks.items():
        if min(mask.counts) < 0:
            raise UserError(f"{path}: holds the value {min(mask.counts)}; number classes from 0")
    dtype = "uint8" if colour else str(np.result_type(*(m.dtype for m in masks.values())))
    dtype = "int64" if dtype.startswith("float") else dtype  # of int64 with uint64
    if instances:
        if labels:
            raise UserError(f"--labels {labels}: goes without --instances, whose classes are background and cell")
        return {"kind": "instances", "type": dtype, "map": [[0, 0]], "classes": ["background", "cell"]}
    kind = "colours" if colour else "values"
    if labels:
        rows, names = _parse(labels, colour)
        known = {value for value, _ in rows}
        for path, mask in masks.items():
            for value in mask.counts:
                if value not in known:
                    shown = written(value, kind)
                    raise UserError(
                        f"{path}: holds {shown}, which --labels does not have; add {shown}=NAME, or "
                        f"{shown}={IGNORED_WORD}"
                    )
        return {"kind": kind, "type": dtype, "map": rows, "classes": names}
    values = sorted(set().union(*(mask.counts for mask in masks.values())))
    _check_number(masks, values, kind)
    if kind == "values" and _two_ways(masks):
        return {"kind": kind, "type": dtype, "map": [[0, 0], [1, 1], [255, 1]], "classes": ["0", "1"]}
    ignored = kind == "values" and values[-1] == IGNORE and len(values) > 2 and values[-2] < MAX_CLASSES
    classes = values[:-1] if ignored else values
    rows = [[value, k] for k, value in enumerate(classes)] + ([[IGNORE, None]] if ignored else [])
    names = [written(value, kind) for value in classes]
    return {"kind": kind, "type": dtype, "map": rows, "classes": names}


def doubts(masks: Mapping[Path, Survey], table: Table) -> Iterator[str]:
    """What should be known of a table that `make_table` made without `labels`: masks that were saved in two ways, or
    numbers that seem to be classes where they are cells, or cells where they are classes.
    """
    if table["kind"] == "instances":
        if all(len(mask.counts.keys() - {0}) <= 1 for mask in masks.values()):
            yield (
                f"{next(iter(masks))}: holds one number beside 0, as all masks do, so that each image has one cell; if "
                "cells are what hangs together, leave out --instances"
            )
        return
    if table["kind"] == "values" and len(table["classes"]) > 2 and table["type"] not in ("uint8", "int8"):
        most = max(masks, key=lambda path: len(masks[path].counts))
        yield (
            f"{most}: holds {len(masks[most].counts)} values of {table['type']}, each taken for a class; if each cell "
            "has its own number, add --instances"
        )
    pairs = {tuple(sorted(mask.counts)): path for path, mask in masks.items() if len(mask.counts) == 2}
    most = max(len(mask.counts) for mask in masks.values())
    if _two_ways(masks):
        one, other = (next(p for p, m in masks.items() if value in m.counts) for value in (1, 255))
        yield (
            f"{other}: holds 255 where {one} holds 1, and both are taken for class 1; if 255 is no class, say "
            f"--labels 0=background,1=cell,255={IGNORED_WORD}"
        )
    elif most <= 2 < len(table["classes"]) and len(pairs) > 1:
        (a, one), (b, other) = list(pairs.items())[:2]
        first, second = (", ".join(written(v, table["kind"]) for v in values) for values in (a, b))
        yield (
            f"{other}: holds {second}, and {one} {first}, which makes {len(table['classes'])} classes; if it is two, "
            "save all masks alike, or say what is what with --labels"
        )


def _two_ways(masks: Mapping[Path, Survey]) -> bool:
    """Whether some masks are 0 and 1, and others 0 and 255."""
    found = [set(mask.counts) for mask in masks.values()]
    return set().union(*found) == {0, 1, 255} and not any({1, 255} <= values for values in found)


def apply(mask: np.ndarray, table: Table) -> np.ndarray:
    """A mask (from `read_mask`) as classes, uint8 of its (H, W) or (S, H, W), IGNORE where the table says so.

    Raises UserError for a value that the table does not have.
    """
    mask = packed(mask)
    if table["kind"] == "instances":
        return (mask != 0).astype(np.uint8)
    rows = sorted(table["map"])
    values = np.array([value for value, _ in rows])
    classes = np.array([IGNORE if k is None else k for _, k in rows], np.uint8)
    at = np.minimum(np.searchsorted(values, mask), len(values) - 1)
    unknown = values[at] != mask
    if unknown.any():
        raise UserError(
            f"holds {written(int(mask[unknown][0]), table['kind'])}, which is none of the training's values"
        )
    return classes[at]


def undo(classes: np.ndarray, table: Table) -> np.ndarray:
    """Classes (..., H, W) as the masks had them: values of their type, colours uint8 (..., H, W, 3), or, of instances,
    the 4-connected components of class 1 of each section, numbered from 1 (uint16, int32 above 65535).

    A class that several values had becomes the first of them. Raises UserError for a table that makes no sense.

    >>> undo(np.array([[0, 1]]), {"kind": "values", "type": "uint8", "map": [[0, 0], [255, 1]], "classes": []})
    array([[  0, 255]], dtype=uint8)
    """
    try:
        if table["kind"] == "instances":
            return _numbered(np.asarray(classes) == 1)
        first: dict[int, int] = {}
        for value, k in table["map"]:
            first.setdefault(IGNORE if k is None else k, value)
        lookup = np.zeros(256, np.int64)
        lookup[list(first)] = list(first.values())
        values = lookup[classes]
        if table["kind"] == "colours":
            return np.stack([values >> 16 & 255, values >> 8 & 255, values & 255], axis=-1).astype(np.uint8)
        return values.astype(np.dtype(table["type"]))
    except (KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
        raise UserError(f"label table: cannot be used ({error}); take a checkpoint that minunet train wrote") from error


def describe(table: Table, pixels: Sequence[int] | None = None) -> list[str]:
    """The table in plain words, one class a line; `pixels` of each class, for their shares."""
    if table["kind"] == "instances":
        lines = ["  0 -> class 0 (background)", "  every other value: one cell each -> class 1 (cell)"]
    else:
        lines = []
        for value, k in table["map"]:
            to = "ignored" if k is None else f"class {k}"
            name = "" if k is None or table["classes"][k] == written(value, table["kind"]) else table["classes"][k]
            lines.append(f"  {written(value, table['kind'])} -> {to}{f' ({name})' if name else ''}")
    if pixels is not None:
        total = max(sum(pixels), 1)
        shares = ", ".join(f"{name} {n / total:.1%}" for name, n in zip(table["classes"], pixels))
        lines.append(f"  shares of pixels: {shares}")
    return lines


def colours(table: Table, palette: Sequence[Colour] | None = None) -> tuple[Colour, ...]:
    """A colour for each class: the masks' own, their palette's, black and white for two, else a wheel of hues."""
    first = {k: value for value, k in reversed(table["map"]) if k is not None}
    n = len(table["classes"])
    if table["kind"] == "colours":
        return tuple((v >> 16, v >> 8 & 255, v & 255) for v in (first[k] for k in range(n)))
    if palette is not None and all(first.get(k, 256) < len(palette) for k in range(n)):
        return tuple(palette[first[k]] for k in range(n))
    if n <= 2:
        return ((0, 0, 0), (255, 255, 255))[:n]
    return ((0, 0, 0), *(_hue((k * 0.618) % 1) for k in range(n - 1)))


def written(value: int, kind: str) -> str:
    """A value as people write it: 255, or #ff0000."""
    return f"#{value:06x}" if kind == "colours" else str(value)


def _check_number(masks: Mapping[Path, Survey], values: list[int], kind: str) -> None:
    """Raise UserError unless the values can be classes."""
    path, mask = max(masks.items(), key=lambda item: len(item[1].counts))
    if len(values) > MAX_CLASSES:
        if kind == "colours":
            remedy = "save masks without smoothing, as PNG; if each cell has its own colour, add --instances"
        else:
            remedy = "if each cell has its own number, add --instances; else resize masks by nearest neighbour only"
        here = f"{len(mask.counts)} different {kind}"
        if len(mask.counts) <= MAX_CLASSES:
            here += f", and all masks together {len(values)}"
        raise UserError(f"{path}: has {here}, too many for classes; {remedy}")
    if len(values) < 2:
        raise UserError(f"{path}: all masks hold {written(values[0], kind)} only; bring masks of two classes or more")


def _parse(text: str, colour: bool) -> tuple[list[list[int | None]], list[str]]:
    """Rows [value, class] and the classes' names of "0=background,255=cell"."""
    rows: list[list[int | None]] = []
    names: list[str] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9}|#[0-9a-fA-F]{6})\s*=\s*([^=]*?)\s*", part)
        if match is None or not match[2]:
            raise UserError(f'--labels {text}: cannot read "{part}"; write 0=background,255=cell or #ff0000=cell')
        if match[1].startswith("#") != colour:
            have = "colours such as #ff0000" if colour else "numbers"
            raise UserError(f"--labels {text}: {match[1]} does not fit these masks, which hold {have}")
        value = int(match[1][1:], 16) if colour else int(match[1])
        if value in (v for v, _ in rows):
            raise UserError(f"--labels {text}: {match[1]} stands there twice; leave one out")
        if match[2] == IGNORED_WORD:
            rows.append([value, None])
            continue
        if match[2] not in names:
            names.append(match[2])
        rows.append([value, names.index(match[2])])
    if not 2 <= len(names) < IGNORE:
        raise UserError(f"--labels {text}: names {len(names)} class(es); name 2 to {IGNORE - 1}")
    return rows, names


def _numbered(cells: np.ndarray) -> np.ndarray:
    """4-connected components of each section of bool (..., H, W)."""
    from scipy import ndimage

    out = np.zeros(cells.shape, np.int32)
    for s in np.ndindex(cells.shape[:-2]):
        out[s] = ndimage.label(cells[s], output=np.int32)[0]
    return out.astype(np.uint16) if out.max(initial=0) < 2**16 else out


def _hue(h: float) -> Colour:
    from colorsys import hsv_to_rgb

    return tuple(round(255 * c) for c in hsv_to_rgb(h, 0.75, 0.95))
