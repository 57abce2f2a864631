"""A user's own images and masks, from two folders: paired by name, of any sizes and types, masks as they are."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minunet.data import masks as mask_values
from minunet.data.dataset import Dataset
from minunet.data.download import pixels_sha256
from minunet.data.images import list_images, read_palette
from minunet.data.masks import is_colour
from minunet.data.mixed import gather
from minunet.data.pairing import Pairing, is_mask_name, pair
from minunet.data.picture import read_picture
from minunet.data.separate import separate
from minunet.errors import UserError

Place = str | os.PathLike[str]
SHOWN = 40  # lines of the pairing table that are printed


class _Section(NamedTuple):
    name: str  # of the image, for people
    source: Path  # the mask's file, with the section's number
    image: np.ndarray  # (H, W) or (H, W, C)
    mask: np.ndarray  # integers (H, W)


def load_folder(
    images: Place,
    masks: Place,
    val_images: Place | None = None,
    val_masks: Place | None = None,
    val: float = 0.2,
    *,
    labels: str = "",
    instances: bool = False,
    show: Callable[[str], object] | None = None,
) -> Dataset:
    """Images and masks of two folders (or two files) as a Dataset, paired by name (`minunet.data.pairing.pair`).

    images, masks         : folders, one folder for both (masks are told by words in their names), or one file each;
                            PNG, JPEG, BMP, TIFF, .npy; stacks (S, H, W) become S images; sizes may differ
    val_images, val_masks : those to validate on; without them the last `val` (a share, 0 < val < 1) of the images, at
                            least one: neighbours are alike, so the held-out ones lie together
    labels, instances     : what the masks' values mean, see `minunet.data.masks.make_table`
    show                  : called with each line of what was paired, left out, and which value became which class

    Values are kept as they are stored, 16 bits and floats too: training normalises them. The result's `table` belongs
    into the checkpoint, so that `minunet.data.masks.undo` can give predictions the masks' values. Raises UserError for
    what does not fit: no pairs, two candidates for one name, other sizes (both are named), NaN, unusable masks.
    """
    if not 0 < val < 1:
        raise UserError(f"--val {val}: must be a share of the images, above 0 and below 1, such as 0.2")
    if (val_images is None) != (val_masks is None):
        missing = "--val-masks" if val_masks is None else "--val-images"
        raise UserError(f"{missing}: is missing; give both --val-images and --val-masks, or neither")
    tell = show or (lambda line: None)
    train = _paired(images, masks, tell)
    held_out = [] if val_images is None else _paired(val_images, val_masks, tell)
    pairs = train + held_out
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding leaves Python's lock free
        read = list(pool.map(lambda files: list(_sections(*files)), pairs))
    flat = [section for sections in read for section in sections]
    n_train = sum(map(len, read[: len(train)]))
    if val_images is None:
        n_train = _first_held_out(len(flat), val, images)

    pictures = _same_channels(flat)
    surveys = {s.source: mask_values.survey(s.mask) for s in flat}
    table = mask_values.make_table(surveys, labels, instances)
    cells = [_small(mask_values.packed(s.mask)) for s in flat] if instances else None
    classes = [mask_values.apply(s.mask, table) for s in flat] if cells is None else [separate(c) for c in cells]
    pixels = sum(np.bincount(c.ravel(), minlength=256)[: len(table["classes"])] for c in classes)
    tell(f"labels ({table['kind']}):")
    for line in mask_values.describe(table, pixels.tolist()):
        tell(line)
    doubts = () if labels else mask_values.doubts(surveys, table)
    for line in (*doubts, *_remarks(pictures, flat, n_train)):
        tell(f"note: {line}")

    n = len(flat)
    source = f"{len(pairs)} images with masks in {images}: {n_train} to train on, {n - n_train} held out"
    return Dataset(
        images=gather(pictures),
        labels=gather(classes),
        name="folder",
        synthetic=False,
        source=source,
        sha256=pixels_sha256(*pictures, *classes),
        classes=tuple(table["classes"]),
        colours=mask_values.colours(table, read_palette(pairs[0][1])),
        scored="instances" if instances else "classes",
        parts={"train": np.arange(n_train), "val": np.arange(n_train, n)},
        names=tuple(s.name for s in flat),
        table=table,
        instances=None if cells is None else gather(cells),
    )


def find_pairs(images: Place, masks: Place) -> Pairing:
    """The pairs of two folders or files. Raises UserError where there is none."""
    ours, theirs = _files(images), _files(masks)
    if os.path.realpath(images) == os.path.realpath(masks):
        ours, theirs = [p for p in ours if not is_mask_name(p)], [p for p in ours if is_mask_name(p)]
    if Path(images).is_file() and Path(masks).is_file():
        return Pairing([(ours[0], theirs[0])], [], [])
    for place, files, option in ((images, ours, "--images"), (masks, theirs, "--masks")):
        if not files:
            what = "masks" if option == "--masks" else "images"
            raise UserError(f"{option} {place}: holds no {what} (PNG, JPEG, TIFF, BMP, .npy); name another folder")
    found = pair(ours, theirs)
    if not found.pairs:
        raise UserError(
            f"{images}: no image has a mask of its name in {masks} (the first are {ours[0].name} and "
            f"{theirs[0].name}); name masks like their images, such as {ours[0].stem}_mask.png"
        )
    return found


def _paired(images: Place, masks: Place, tell: Callable[[str], object]) -> list[tuple[Path, Path]]:
    """The pairs of two folders, shown."""
    found = find_pairs(images, masks)
    left = len(found.images_left) + len(found.masks_left)
    tell(f"paired by name: {len(found.pairs)} images of {images} with masks of {masks}; left out: {left}")
    lines = found.lines()
    paired, rest = lines[: len(found.pairs)], lines[len(found.pairs) :]
    for rows in (paired, rest):
        for line in rows[:SHOWN]:
            tell(line)
        if len(rows) > SHOWN:
            tell(f"  ... and {len(rows) - SHOWN} more")
    return found.pairs


def _files(place: Place) -> list[Path]:
    return [Path(place)] if Path(place).is_file() else list_images(place)


def _sections(image_file: Path, mask_file: Path) -> Iterator[_Section]:
    """The image, or the sections of the stack, with their masks."""
    image, mask = read_picture(image_file), mask_values.read_mask(mask_file)
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError(f"{image_file}: holds NaN or infinite values; replace them, for example by the mean")
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * np.uint8(255)
    in_colour = is_colour(mask.shape)
    sizes = mask.shape[:-1] if in_colour else mask.shape
    if sizes == image.shape[:-1] and is_colour(image.shape):
        if image.shape[-1] == 4:
            image = image[..., :3]  # opacity
    elif sizes != image.shape:
        ours, theirs = _words(sizes), _words(image.shape)
        raise UserError(f"{mask_file}: is {ours}, but its image {image_file} is {theirs}; export both alike")
    if len(sizes) == 2:
        yield _Section(image_file.name, mask_file, np.ascontiguousarray(image), mask)
        return
    for s in range(len(image)):
        source = mask_file.with_name(f"{mask_file.name} section {s}")
        yield _Section(f"{image_file.name} section {s}", source, np.ascontiguousarray(image[s]), mask[s])


def _same_channels(sections: list[_Section]) -> list[np.ndarray]:
    """The images, all grey or all in colour: colour pictures that hold only grey become grey, if all do."""
    grey = [s for s in sections if s.image.ndim == 2 or (s.image[..., 1:] == s.image[..., :1]).all()]
    if len(grey) == len(sections):
        return [s.image if s.image.ndim == 2 else np.ascontiguousarray(s.image[..., 0]) for s in sections]
    plain = next((s for s in sections if s.image.ndim == 2), None)
    if plain is not None:
        coloured = next(s for s in sections if s.image.ndim == 3)
        raise UserError(
            f"{plain.name}: is grey, and {coloured.name} in colour; convert all images to grey, or all to colour"
        )
    return [s.image for s in sections]


def _first_held_out(n: int, val: float, images: Place) -> int:
    """The number of images to train on, when the last share is held out."""
    if n < 2:
        raise UserError(f"{images}: a single image cannot be parted into training and held out; add --val-images")
    return n - min(n - 1, max(1, math.floor(n * val + 0.5)))


def _small(cells: np.ndarray) -> np.ndarray:
    """Cell numbers as int32: renumbered where they are larger."""
    if cells.dtype.itemsize > 4 or cells.dtype == np.uint32:
        cells = np.unique(cells, return_inverse=True)[1].reshape(cells.shape) + (cells.min() != 0)
    return np.ascontiguousarray(cells, np.int32)


def _remarks(pictures: list[np.ndarray], sections: list[_Section], n_train: int) -> Iterator[str]:
    """What will not stop training, but should be known."""
    seen: dict[str, int] = {}
    for k, picture in enumerate(pictures):
        name = sections[k].name
        if picture.min() == picture.max():
            yield f"{name}: every pixel has one value; leave it out, or export it again"
            continue
        first = seen.setdefault(pixels_sha256(picture), k)
        if first != k:
            why = ", one held out and one not: the score is too good" if first < n_train <= k else ""
            yield f"{name}: has the same pixels as {sections[first].name}{why}; remove one"
    types = sorted({str(p.dtype) for p in pictures})
    if len(types) > 1:
        yield f"images of the types {', '.join(types)}; each is normalised by itself"


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
