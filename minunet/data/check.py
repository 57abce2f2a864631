"""Looking a folder of images and masks over before training: what is there, what is wrong, how to mend it."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minunet.data import masks as mask_values
from minunet.data.align import displacement
from minunet.data.download import pixels_sha256
from minunet.data.images import list_images
from minunet.data.maskfile import Survey, is_colour, is_stack, sides_of, unlike
from minunet.data.masks import MAX_CLASSES, written
from minunet.data.pairing import IMAGE_WORDS, MASK_WORDS, Pairing, is_mask_name, pair
from minunet.data.picture import read_picture, turned
from minunet.errors import UserError

LOOKED_AT = 8  # pairs, and sections of each, that tell whether masks lie beside what they outline
BESIDE = 0.3  # px: nearer, it is not worth a word


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


@dataclass(frozen=True)
class Report:
    entries: list[Entry]
    pairing: Pairing | None  # None where names leave it open
    labels: list[str]  # which value of the masks is which class, and the classes' shares
    findings: list[Finding]

    @property
    def problems(self) -> int:
        return sum(f.problem for f in self.findings)

    @property
    def pairs(self) -> int:
        return len(self.pairing.pairs) if self.pairing else 0


def check_folder(
    folder: str | os.PathLike[str], progress: bool = False, *, labels: str = "", instances: bool = False
) -> Report:
    """Read every image file of a folder once and say what would trouble `minunet train folder`.

    Masks are told from images by their subfolder (masks, labels, gt, ...) or a word in their names (cell1_mask.png,
    train-labels.tif), and belong to the image of the same name (`minunet.data.pairing.pair`). labels, instances: what
    the masks' values mean, see `minunet.data.masks.make_table`.
    Looked for: unreadable and constant files, NaN, copies, masks without image, other sizes, grey and colour mixed,
    masks with in-between values or with a single class. Raises UserError if there is no image file at all.
    """
    from tqdm import tqdm

    root = Path(folder)
    entries = _entries(root)
    if not entries:
        raise UserError(
            f"{folder}: holds no image files; put images into {root / 'images'} and masks of the same names into "
            f"{root / 'masks'}"
        )
    findings: list[Finding] = []
    for entry in tqdm(entries, desc="reading", unit="file", leave=False, disable=None if progress else True):
        try:
            findings += _look_at_mask(entry, instances) if entry.mask else _look_at_image(entry)
        except UserError as error:
            findings.append(Finding(True, str(error)))
    findings += _copies(entries)
    images, masks = [e for e in entries if not e.mask], [e for e in entries if e.mask]
    findings += _alike(images)
    lines, found = _labels([e for e in masks if e.survey], labels, instances)
    findings += found
    pairing, found = _pair(images, masks)
    findings += found
    if pairing and not any(f.problem for f in findings):
        findings += _beside(pairing)
    return Report(entries, pairing, lines, findings)


def _entries(root: Path) -> list[Entry]:
    """The image files of the folder and of its subfolders with a telling name (or isbi, isbi2012)."""
    files = list_images(root)
    known = (*IMAGE_WORDS, *MASK_WORDS, "isbi", "isbi2012")
    for sub in sorted(p for p in root.iterdir() if p.is_dir() and p.name.lower() in known):
        files += list_images(sub)
    return [Entry(p, p.parent.name.lower() in MASK_WORDS or is_mask_name(p)) for p in files]


def _sections(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The sections of a stack, or the one grey or colour image."""
    if is_stack(pixels.shape):
        yield from pixels
    else:
        yield pixels


def _look_at_image(entry: Entry) -> Iterator[Finding]:
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
    for s, section in enumerate(_sections(pixels)):
        if section.min() == section.max():
            blank.append(s)
        else:
            entry.sections[s] = pixels_sha256(section)
    if blank:
        which = f"section {_some(blank)}" if is_stack(pixels.shape) else "every pixel"
        yield Finding(True, f"{path}: {which} has one and the same value; leave it out, or export it again")
    elif ((pixels == pixels.min()) | (pixels == pixels.max())).all():
        yield Finding(False, f"{path}: has two grey values only; if it is a mask, put it into the folder masks")


def _look_at_mask(entry: Entry, instances: bool) -> Iterator[Finding]:
    """As `_look_at_image`, for a mask."""
    path, pixels = entry.path, mask_values.read_mask(entry.path)
    entry.shape = pixels.shape
    found = mask_values.survey(pixels)
    total, values = sum(found.counts.values()), sorted(found.counts)
    kind = "colours" if found.colour else "values"
    shown = _some([f"{written(v, kind)}: {found.counts[v] / total:.1%}" for v in values], 8, "  ")
    entry.facts = f"{' x '.join(map(str, pixels.shape))}  {pixels.dtype}  {shown}"
    if len(values) > MAX_CLASSES and not instances:
        mask_values.make_table({path: found})  # raises, with the remedy
    entry.survey = found
    if len(values) == 1:
        one = written(values[0], kind)
        yield Finding(False, f"{path}: has the single class {one}; nothing is learned from it alone")
    elif values[0] != 0 and not found.colour:
        yield Finding(False, f"{path}: has no class 0; check that classes are counted from 0")


def _copies(entries: list[Entry]) -> Iterator[Finding]:
    """Images, or sections of stacks, with exactly the same pixels."""
    places: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        for s, digest in entry.sections.items():
            places[digest].append(f"{entry.path} section {s}" if is_stack(entry.shape) else str(entry.path))
    for same in places.values():
        for copy in same[1:]:
            yield Finding(
                True,
                f"{copy}: same pixels as {same[0]}; remove one, since a copy among the held-out sections makes "
                "scores worthless",
            )


def _alike(images: list[Entry]) -> Iterator[Finding]:
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


def _labels(masks: list[Entry], labels: str, instances: bool) -> tuple[list[str], list[Finding]]:
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
            f"{_some(dark, 1)}: {mean:.0%} is 0 (black); for membranes, 0 is the membrane and 255 the cell interior: "
            "exchange them if it is the other way round"
        )
        findings.append(Finding(False, text))
    return mask_values.describe(table, pixels), findings


def _share_of_0(found: Survey) -> float:
    return found.counts.get(0, 0) / sum(found.counts.values())


def _pair(images: list[Entry], masks: list[Entry]) -> tuple[Pairing | None, list[Finding]]:
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
        names = _some([p.name for p in bare])
        findings.append(Finding(False, f"{names}: no mask, so of no use for training; draw one, or leave it out"))
    return pairing, findings


def _beside(pairing: Pairing) -> Iterator[Finding]:
    """Masks of two values that lie a fraction of a pixel beside what they outline, by a few of the sections."""
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    for image, mask in _spread(pairing.pairs):
        labels = mask_values.read_mask(mask)
        if not is_colour(labels.shape) and len(np.unique(labels)) == 2:
            planes = zip(_sections(read_picture(image)), _sections((labels == labels.max()).astype(np.uint8)))
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


def _some(items, most: int = 4, between: str = ", ") -> str:
    """The first few, for a message."""
    shown = between.join(str(i) for i in items[:most])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")
