"""Looking a folder of images and masks over before training: what is there, what is wrong, how to mend it."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minunet.data.download import pixels_sha256
from minunet.data.images import list_images, read_image
from minunet.errors import UserError

IMAGE_WORDS = ("image", "images", "img", "imgs", "raw", "volume")
MASK_WORDS = ("mask", "masks", "label", "labels", "gt", "seg", "truth", "annotations")
MAX_CLASSES = 32  # class numbers end below this, but for 255


@dataclass(frozen=True)
class Finding:
    """One line about one file (or the folder): a problem stops training, a note is worth knowing."""

    problem: bool
    text: str


@dataclass
class Entry:
    """One file: its role, its key (what is left of its name, equal for an image and its mask), its pixels' facts."""

    path: Path
    mask: bool
    key: str
    shape: tuple[int, ...] | None = None  # None: could not be read
    facts: str = ""
    sections: dict[int, str] = field(default_factory=dict)  # sha256 of each section that is not constant


@dataclass(frozen=True)
class Report:
    entries: list[Entry]
    pairs: int
    findings: list[Finding]

    @property
    def problems(self) -> int:
        return sum(f.problem for f in self.findings)


def check_folder(folder: str | os.PathLike[str], progress: bool = False) -> Report:
    """Read every image file of a folder once and say what would trouble training.

    Masks are told from images by their subfolder (masks, labels, gt, ...) or the end of their name (cell1_mask.png,
    train-labels.tif), and belong to the image with the rest of the name (images/cell1.png, train-volume.tif).
    Looked for: unreadable and constant files, NaN, copies, masks without image, other sizes, masks in colour,
    with in-between values or with a single class. Raises UserError if there is no image file at all.
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
            pixels = read_image(entry.path)
        except UserError as error:
            findings.append(Finding(True, str(error)))
            continue
        findings += _look_at(entry, pixels)
    findings += _copies(entries)
    pairs, unpaired = _pair(entries)
    return Report(entries, pairs, findings + unpaired)


def _entries(root: Path) -> list[Entry]:
    """The image files of the folder and of its subfolders with a telling name (or isbi, isbi2012)."""
    files = list_images(root)
    known = (*IMAGE_WORDS, *MASK_WORDS, "isbi", "isbi2012")
    for sub in sorted(p for p in root.iterdir() if p.is_dir() and p.name.lower() in known):
        files += list_images(sub)
    ending = re.compile(rf"^(.*?)(?:[-_ .](?:({'|'.join(IMAGE_WORDS)})|({'|'.join(MASK_WORDS)})))?$", re.I)
    entries = []
    for path in files:
        key, image_word, mask_word = ending.match(path.stem).groups()
        mask = mask_word is not None or (image_word is None and path.parent.name.lower() in MASK_WORDS)
        entries.append(Entry(path, mask, key.lower()))
    return entries


def _sections(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The sections of a stack (S, H, W), or the one grey or colour image."""
    if pixels.ndim == 3 and not _colour(pixels.shape):
        yield from pixels
    else:
        yield pixels


def _colour(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[-1] in (2, 3, 4)


def _look_at(entry: Entry, pixels: np.ndarray) -> Iterator[Finding]:
    """Fill in what the entry's file holds, and yield what is wrong with it on its own."""
    path = entry.path
    entry.shape = pixels.shape
    size = " x ".join(map(str, pixels.shape))
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        entry.facts = f"{size}  {pixels.dtype}"
        yield Finding(True, f"{path}: holds NaN or infinite values; replace them, for example by the mean")
        return
    entry.facts = f"{size}  {pixels.dtype}  {pixels.min():g}..{pixels.max():g}  mean {pixels.mean():.4g}"
    if entry.mask:
        yield from _look_at_mask(entry, pixels)
        return
    blank = []
    for s, section in enumerate(_sections(pixels)):
        if section.min() == section.max():
            blank.append(s)
        else:
            entry.sections[s] = pixels_sha256(section)
    if blank:
        which = "every pixel" if pixels.ndim == 2 or _colour(pixels.shape) else f"section {_some(blank)}"
        yield Finding(True, f"{path}: {which} has one and the same value; leave it out, or export it again")
    elif ((pixels == pixels.min()) | (pixels == pixels.max())).all():
        yield Finding(False, f"{path}: has two grey values only; if it is a mask, put it into the folder masks")


def _look_at_mask(entry: Entry, pixels: np.ndarray) -> Iterator[Finding]:
    path = entry.path
    if _colour(pixels.shape):
        yield Finding(True, f"{path}: is a colour mask; save one grey value a class, 0 and 255 for two classes")
        return
    values, counts = np.unique(pixels, return_counts=True)
    no_class = (values < 0) | ((values >= MAX_CLASSES) & (values != 255)) | (values % 1 != 0)
    if no_class.any() and len(values) > 4:
        why = ", since JPEG alters them" if path.suffix.lower() in (".jpg", ".jpeg") else ""
        yield Finding(
            True,
            f"{path}: has {len(values)} different values, too many for classes{why}; save the mask as PNG or TIFF, "
            "and resize masks by nearest neighbour only",
        )
        return
    shares = "  ".join(f"{v:g}: {100 * c / pixels.size:.1f} %" for v, c in zip(values, counts))
    entry.facts = f"{' x '.join(map(str, pixels.shape))}  {pixels.dtype}  {shares}"
    if no_class.any():
        yield Finding(
            True,
            f"{path}: has the values {_some(values)}; number the classes 0, 1, 2, ..., or 0 and 255 for two classes",
        )
    elif len(values) == 1:
        yield Finding(False, f"{path}: has the single class {values[0]:g}; nothing is learned from it alone")
    elif values[0] != 0:
        yield Finding(False, f"{path}: has no class 0; check that classes are counted from 0")
    if len(values) == 2 and values[0] == 0 and counts[0] > counts[1]:
        yield Finding(
            False,
            f"{path}: {100 * counts[0] / pixels.size:.0f} % is 0 (black); for membranes, 0 is the membrane and 255 the "
            "cell interior: exchange them if it is the other way round",
        )


def _copies(entries: list[Entry]) -> Iterator[Finding]:
    """Images, or sections of stacks, with exactly the same pixels."""
    places: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        for s, digest in entry.sections.items():
            stack = len(entry.shape) == 3 and not _colour(entry.shape)
            places[digest].append(f"{entry.path} section {s}" if stack else str(entry.path))
    for same in places.values():
        for copy in same[1:]:
            yield Finding(
                True,
                f"{copy}: same pixels as {same[0]}; remove one, since a copy among the held-out sections makes "
                "scores worthless",
            )


def _pair(entries: list[Entry]) -> tuple[int, list[Finding]]:
    """How many images have their mask, and what does not fit."""
    images: dict[str, list[Entry]] = defaultdict(list)
    masks: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        (masks if entry.mask else images)[entry.key].append(entry)
    findings = []
    for group in (images, masks):
        for same in group.values():
            if len(same) > 1:
                text = f"{same[1].path}: cannot be told from {same[0].path} by its name; rename one of them"
                findings.append(Finding(True, text))
    pairs = 0
    for key, (image, *_) in images.items():
        if key not in masks:
            continue
        mask = masks[key][0]
        pairs += 1
        if image.shape is None or mask.shape is None:
            continue
        wanted = image.shape[:2] if _colour(image.shape) else image.shape
        if not _colour(mask.shape) and mask.shape != wanted:
            ours, theirs = " x ".join(map(str, mask.shape)), " x ".join(map(str, wanted))
            findings.append(
                Finding(True, f"{mask.path}: is {ours}, but its image {image.path} is {theirs}; export both alike")
            )
    findings += [
        Finding(True, f"{m.path}: no image of that name; add it as {key}, or remove the mask")
        for key, (m, *_) in masks.items()
        if key not in images
    ]
    bare = [image for key, (image, *_) in images.items() if key not in masks]
    if bare and not masks:
        text = "no masks: this can be predicted, not trained on; put masks of the same names into the folder masks"
        findings.append(Finding(False, f"{bare[0].path.parent}: {text}"))
    elif bare:
        names = _some([image.path.name for image in bare])
        findings.append(Finding(False, f"{names}: no mask, so of no use for training; draw one, or leave it out"))
    return pairs, findings


def _some(items) -> str:
    """The first few, for a message."""
    shown = ", ".join(str(i) for i in items[:4])
    return shown + (f" and {len(items) - 4} more" if len(items) > 4 else "")
