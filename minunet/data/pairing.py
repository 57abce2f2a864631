"""Which mask belongs to which image, by their names: never by their order, and never by luck."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from minunet.errors import UserError

IMAGE_WORDS = ("image", "images", "img", "imgs", "raw", "volume", "input", "orig", "original", "photo", "frame")
MASK_WORDS = (
    *("mask", "masks", "label", "labels", "gt", "seg", "segmentation", "truth", "groundtruth", "annotation"),
    *("annotations", "annot"),
)
_WORDS = frozenset((*IMAGE_WORDS, *MASK_WORDS, "man", "target", "targets"))
_TOKEN = re.compile(r"\d+|[^\W\d_]+|[\W_]+")


class Pairing(NamedTuple):
    """What belongs together, in the order of the images, and what is left over."""

    pairs: list[tuple[Path, Path]]
    images_left: list[Path]
    masks_left: list[Path]

    def lines(self) -> list[str]:
        """A table for people: the pairs, then what was left out and why."""
        width = max((len(image.name) for image, _ in self.pairs), default=0)
        rows = [f"  {image.name:<{width}}  -  {mask.name}" for image, mask in self.pairs]
        rows += [f"  left out: {p.name}: no mask of its name" for p in self.images_left]
        return rows + [f"  left out: {p.name}: no image of its name" for p in self.masks_left]


def pair(images: Sequence[Path], masks: Sequence[Path]) -> Pairing:
    """Pair images and masks by the first of these that fits; what it pairs is out of the question for the next:

    1. equal names without ending:                     cell1.ome.tif     cell1.png
    2. equal but for case and words such as mask, gt:  cell1.png         Cell1_mask.png, mask-cell1.png
    3. equal but for these, and for words with which all images, or all masks, begin or end:
                                                       t012.png          man_seg012.png
    4. as 3, numbers by their value:                   slice 7.png       label_007.png

    Numbers are never taken away, so that day1_t3 does not get the mask of day2_t3. An umlaut is the same whether it is
    written as one sign or, as macOS does, as a letter and its dots. Raises UserError where a rule would give an image
    two masks or a mask two images; the line names them.

    >>> for line in pair([Path("t1.png"), Path("t2.png")], [Path("t2_gt.png")]).lines():
    ...     print(line.strip())
    t2.png  -  t2_gt.png
    left out: t1.png: no mask of its name
    """
    image_core, mask_core = _without_common(images), _without_common(masks)
    rules: list[tuple[Callable[[Path], object], Callable[[Path], object]]] = [
        (_stem, _stem),
        (_without_words, _without_words),
        (image_core, mask_core),
        (lambda p: _by_value(image_core(p)), lambda p: _by_value(mask_core(p))),
    ]
    found: dict[Path, Path] = {}
    free_images, free_masks = list(images), list(masks)
    for image_key, mask_key in rules:
        ours, theirs = _grouped(free_images, image_key), _grouped(free_masks, mask_key)
        for key in ours:
            if key and key in theirs:
                found[_only(ours[key], theirs[key])] = theirs[key][0]
        taken = set(found.values())
        free_images = [p for p in free_images if p not in found]
        free_masks = [p for p in free_masks if p not in taken]
    return Pairing([(p, found[p]) for p in images if p in found], free_images, free_masks)


def is_mask_name(path: Path) -> bool:
    """Whether the name begins or ends with a word for masks (cell1_mask.png, label-3.tif)."""
    words = _solid(_tokens(path))
    return bool(words) and (words[-1] in MASK_WORDS or words[0] in MASK_WORDS)


def _only(images: list[Path], masks: list[Path]) -> Path:
    """The one image of a group with one mask."""
    if len(masks) > 1:
        raise UserError(
            f"{images[0]}: both {masks[0].name} and {masks[1].name} could be its mask; rename one of them or move it"
        )
    if len(images) > 1:
        raise UserError(
            f"{masks[0]}: both {images[0].name} and {images[1].name} could be its image; rename one of them or move it"
        )
    return images[0]


def _grouped(paths: Iterable[Path], key: Callable[[Path], object]) -> dict[object, list[Path]]:
    groups: dict[object, list[Path]] = defaultdict(list)
    for p in paths:
        groups[key(p)].append(p)
    return groups


def _stem(path: Path) -> str:
    """The name without its ending, .ome.tif being one, each letter as one sign (Unicode's form NFC)."""
    stem = unicodedata.normalize("NFC", path.stem)
    return stem[:-4] if stem.lower().endswith(".ome") else stem


def _tokens(path: Path) -> list[str]:
    """Runs of digits, of letters and of the rest: "man_seg012" is man _ seg 012."""
    return _TOKEN.findall(_stem(path).casefold())


def _solid(tokens: Iterable[str]) -> tuple[str, ...]:
    """Without what only separates."""
    return tuple(t for t in tokens if t[0].isalnum())


def _without_words(path: Path) -> tuple[str, ...]:
    """The name's tokens without the words for images and masks at its begin and end."""
    tokens = list(_solid(_tokens(path)))
    while tokens and tokens[-1] in _WORDS:
        tokens.pop()
    while tokens and tokens[0] in _WORDS:
        tokens.pop(0)
    return tuple(tokens)


def _without_common(paths: Sequence[Path]) -> Callable[[Path], tuple[str, ...]]:
    """A key: as `_without_words`, and without the words with which all names begin, and with which all end; numbers
    stay. A single name has nothing in common with others.
    """
    rows = [_without_words(p) for p in paths]
    if len(rows) < 2:
        return _without_words
    shortest = min(map(len, rows))
    begin = 0
    while begin < shortest and len({row[begin] for row in rows}) == 1:
        begin += 1
    end = 0
    while end < shortest - begin and len({row[-1 - end] for row in rows}) == 1:
        end += 1

    def key(path: Path) -> tuple[str, ...]:
        tokens = _without_words(path)
        stop = len(tokens) - end
        return tuple(t for k, t in enumerate(tokens) if begin <= k < stop or t.isdecimal())

    return key


def _by_value(tokens: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(t.lstrip("0") or "0" if t.isdecimal() else t for t in tokens)
