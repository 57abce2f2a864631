"""One file of a folder of images and masks: what it holds, and what is wrong with it on its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minunet.data import masks as mask_values
from minunet.data.download import pixels_sha256
from minunet.data.maskfile import Survey, is_colour, is_stack
from minunet.data.masks import MAX_CLASSES, written
from minunet.data.picture import read_picture, turned


@dataclass(frozen=True)
class Finding:
    """One line about one file (or the folder): a problem stops training, a note is worth knowing."""

    problem: bool
    text: str


@dataclass
class Entry:
    """One file: its role, and its pixels' facts."""

    path: Path
    mask: bool
    shape: tuple[int, ...] | None = None  # None: could not be read
    dtype: str = ""  # of an image's pixels; "" where they are of no use
    facts: str = ""
    grey: bool = True  # no colour, whatever the number of channels
    sections: dict[int, str] = field(default_factory=dict)  # sha256 of each section that is not constant
    survey: Survey | None = None  # of a mask that could be read


def look_at_image(entry: Entry) -> Iterator[Finding]:
    """Fill in what the image's file holds, and yield what is wrong with it on its own."""
    path, pixels = entry.path, read_picture(entry.path)
    entry.shape = pixels.shape
    size = " x ".join(map(str, pixels.shape))
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        entry.facts = f"{size}  {pixels.dtype}"
        yield Finding(True, f"{path}: holds NaN or infinite values; replace them, for example by the mean")
        return
    entry.dtype = str(pixels.dtype)
    entry.facts = f"{size}  {pixels.dtype}  {pixels.min():g}..{pixels.max():g}  mean {pixels.mean(dtype=float):.5g}"
    if note := turned(path):
        yield Finding(False, f"{path}: {note}")
    colour = is_colour(pixels.shape)
    entry.grey = not colour or bool((pixels[..., 1:3] == pixels[..., :1]).all())  # without opacity
    blank = []
    for s, section in enumerate(sections(pixels)):
        if section.min() == section.max():
            blank.append(s)
        else:
            entry.sections[s] = pixels_sha256(section)
    if blank:
        which = f"section {some(blank)}" if is_stack(pixels.shape) else "every pixel"
        yield Finding(True, f"{path}: {which} has one and the same value; leave it out, or export it again")
    elif ((pixels == pixels.min()) | (pixels == pixels.max())).all():
        yield Finding(False, f"{path}: has two grey values only; if it is a mask, put it into the folder masks")


def look_at_mask(entry: Entry, instances: bool) -> Iterator[Finding]:
    """As `look_at_image`, for a mask."""
    path, pixels = entry.path, mask_values.read_mask(entry.path)
    entry.shape = pixels.shape
    found = mask_values.survey(pixels)
    total, values = sum(found.counts.values()), sorted(found.counts)
    kind = "colours" if found.colour else "values"
    shown = some([f"{written(v, kind)}: {found.counts[v] / total:.1%}" for v in values], 8, "  ")
    entry.facts = f"{' x '.join(map(str, pixels.shape))}  {pixels.dtype}  {shown}"
    if len(values) > MAX_CLASSES and not instances:
        mask_values.make_table({path: found})  # raises, with the remedy
    entry.survey = found
    if len(values) == 1:
        one = written(values[0], kind)
        yield Finding(False, f"{path}: has the single class {one}; nothing is learned from it alone")
    elif values[0] != 0 and not found.colour:
        yield Finding(False, f"{path}: has no class 0; check that classes are counted from 0")


def sections(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The sections of a stack, or the one grey or colour image."""
    if is_stack(pixels.shape):
        yield from pixels
    else:
        yield pixels


def some(items, most: int = 4, between: str = ", ") -> str:
    """The first few, for a message."""
    shown = between.join(str(i) for i in items[:most])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")
