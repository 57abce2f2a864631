"""The files of a folder of images and masks against each other: copies, differences, classes, pairs, displacement."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from minunet.data import masks as mask_values
from minunet.data.align import displacement
from minunet.data.look import Entry, Finding, sections, some
from minunet.data.maskfile import Survey, is_colour, is_stack, sides_of, unlike
from minunet.data.pairing import Pairing, pair
from minunet.data.picture import read_picture
from minunet.errors import UserError

LOOKED_AT = 8  # pairs, and sections of each, that tell whether masks lie beside what they outline
BESIDE = 0.3  # px: nearer, it is not worth a word


def copies(entries: list[Entry]) -> Iterator[Finding]:
    """Images, or sections of stacks, with exactly the same pixels: one line for each two files."""
    first: dict[str, tuple[Entry, int]] = {}
    found: dict[tuple[Path, Path], list[tuple[str, str]]] = defaultdict(list)
    for entry in entries:
        for s, digest in entry.sections.items():
            original, o = first.setdefault(digest, (entry, s))
            if original is not entry or o != s:
                found[entry.path, original.path].append((_place(entry, s), _place(original, o)))
    why = "since a copy among the held-out sections makes scores worthless"
    for places in found.values():
        (a, b), more = places[0], len(places) - 1
        if more:
            a, b = f"{a} and {more} more", f"{b} and others"
        yield Finding(True, f"{a}: same pixels as {b}; remove one, {why}")


def _place(entry: Entry, s: int) -> str:
    return f"{entry.path} section {s}" if is_stack(entry.shape) else str(entry.path)


def alike(images: list[Entry]) -> Iterator[Finding]:
    """What differs between the images."""
    read = [e for e in images if e.dtype]
    plain = [e for e in read if not is_colour(e.shape)]
    coloured = [e for e in read if not e.grey]
    if plain and coloured:
        yield Finding(
            True,
            f"{plain[0].path}: is grey, and {coloured[0].path} in colour; convert all images to grey, or all to colour",
        )
    types: dict[str, Entry] = {}
    sizes: dict[tuple[int, ...], Entry] = {}
    for e in read:
        types.setdefault(e.dtype, e)
        sizes.setdefault(sides_of(e.shape)[-2:], e)
    if len(types) > 1:
        first, second = list(types.values())[:2]
        yield Finding(
            False,
            f"{second.path}: is {second.dtype}, and {first.path} {first.dtype}; each image is normalised by itself, so "
            "this does no harm unless brightness carries meaning: then export all alike",
        )
    if len(sizes) > 1:
        areas = sorted(sizes, key=lambda s: s[0] * s[1])
        yield Finding(
            False,
            f"{sizes[areas[-1]].path}: is {_by(areas[-1])}, and {sizes[areas[0]].path} {_by(areas[0])}; training takes "
            "mixed sizes, but things should look equally large: else bring them to one size with --size",
        )


def labels(masks: list[Entry], labels: str, instances: bool) -> tuple[list[str], list[Finding]]:
    """The table of classes in words, and what is wrong with all masks together."""
    if not masks:
        return [], []
    surveys = {e.path: e.survey for e in masks}
    try:
        table = mask_values.make_table(surveys, labels, instances)
    except UserError as error:
        return [], [Finding(True, str(error))] if len(masks) > 1 or labels else []
    pixels = [0] * len(table["classes"])
    classes = dict(table["map"])
    for found in surveys.values():
        for value, n in found.counts.items():
            k = classes[value] if table["kind"] != "instances" else int(value != 0)
            if k is not None:
                pixels[k] += n
    findings = [] if labels else [Finding(False, text) for text in mask_values.doubts(surveys, table)]
    dark = [path for path, f in surveys.items() if set(f.counts) in ({0, 1}, {0, 255}) and _share_of_0(f) > 0.5]
    if dark and not labels and table["kind"] == "values":
        mean = sum(_share_of_0(surveys[path]) for path in dark) / len(dark)
        text = (
            f"{some(dark, 1)}: {mean:.0%} is 0 (black); for membranes, 0 is the membrane and 255 the cell interior: "
            "exchange them if it is the other way round"
        )
        findings.append(Finding(False, text))
    return mask_values.describe(table, pixels), findings


def _share_of_0(found: Survey) -> float:
    return found.counts.get(0, 0) / sum(found.counts.values())


def paired(images: list[Entry], masks: list[Entry]) -> tuple[Pairing | None, list[Finding]]:
    """Which image has which mask, and what does not fit."""
    try:
        pairing = pair([e.path for e in images], [e.path for e in masks])
    except UserError as error:
        return None, [Finding(True, str(error))]
    entry = {e.path: e for e in (*images, *masks)}
    findings = []
    for image, mask in ((entry[a], entry[b]) for a, b in pairing.pairs):
        if image.shape is None or mask.shape is None:
            continue
        if sides_of(mask.shape) != sides_of(image.shape):
            findings.append(Finding(True, unlike(mask.path, mask.shape, image.path, image.shape)))
    findings += [
        Finding(True, f"{m}: no image of that name; add the image, rename one of them, or remove the mask")
        for m in pairing.masks_left
    ]
    bare = pairing.images_left
    if bare and not masks:
        text = "no masks: this can be predicted, not trained on; put masks of the same names into the folder masks"
        findings.append(Finding(False, f"{bare[0].parent}: {text}"))
    elif bare:
        names = some([p.name for p in bare])
        findings.append(Finding(False, f"{names}: no mask, so of no use for training; draw one, or leave it out"))
    return pairing, findings


def beside(pairing: Pairing) -> Iterator[Finding]:
    """Masks of two values that lie a fraction of a pixel beside what they outline, by a few of the sections."""
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    for image, mask in _spread(pairing.pairs):
        labels = mask_values.read_mask(mask)
        if not is_colour(labels.shape) and len(np.unique(labels)) == 2:
            planes = zip(sections(read_picture(image)), sections((labels == labels.max()).astype(np.uint8)))
            shown += _spread(list(planes))
    by = displacement(*zip(*shown)) if shown else None
    if by is not None and math.hypot(*by) >= BESIDE:
        down, right = by
        yield Finding(
            False,
            f"{pairing.pairs[0][1].parent}: masks lie {-down:+.2f} px down and {-right:+.2f} px to the right of what"
            " they outline, as grey values tell; train with --align 1, which moves the images there",
        )


def _spread(items: list) -> list:
    """About LOOKED_AT of the items, from the first on."""
    return items[:: max(1, -(-len(items) // LOOKED_AT))]


def _by(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))
