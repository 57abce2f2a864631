"""A user's own images and masks, from two folders: paired by name, of any sizes and types, masks as they are."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minunet.data import masks as mask_values
from minunet.data.dataset import Dataset, resize_image, resize_labels
from minunet.data.download import pixels_sha256
from minunet.data.images import read_palette
from minunet.data.listing import list_images, unreadable
from minunet.data.maskfile import Survey, is_colour, sides_of, unlike
from minunet.data.mixed import gather
from minunet.data.pairing import Pairing, is_mask_name, pair
from minunet.data.picture import read_picture, turned
from minunet.data.separate import separate
from minunet.data.shelf import Shelf, in_order
from minunet.errors import UserError

Place = str | os.PathLike[str]
SHOWN = 40  # lines of the pairing table that are printed


class _Section(NamedTuple):
    """An image with its mask, and what must be known of both when all have been read."""

    name: str  # of the image, for people
    source: Path  # the mask's file, with the section's number
    image: np.ndarray  # (H, W) or (H, W, C); one channel is kept of pictures in colour that hold only grey
    channels: int  # of the image as it was; 0: (H, W)
    dtype: str
    digest: str  # of its pixels; "" where all are equal
    size: tuple[int, int]  # (H, W) as it was
    survey: Survey
    codes: np.ndarray  # (H, W): which of the survey's values; of instances the classes, uint8
    cells: np.ndarray | None  # int32 (H, W), of instances
    note: str = ""  # worth knowing of the image


def load_folder(
    images: Place,
    masks: Place,
    val_images: Place | None = None,
    val_masks: Place | None = None,
    val: float = 0.2,
    *,
    labels: str = "",
    instances: bool = False,
    size: tuple[int, int] | None = None,
    show: Callable[[str], object] | None = None,
) -> Dataset:
    """Images and masks of two folders (or two files) as a Dataset, paired by name (`minunet.data.pairing.pair`).

    images, masks         : folders, one folder for both (masks are told by words in their names), or one file each;
                            PNG, JPEG, BMP, TIFF, .npy; stacks (S, H, W) become S images; sizes may differ
    val_images, val_masks : those to validate on; without them the last `val` (a share, 0 < val < 1) of the images, at
                            least one: neighbours are alike, so the held-out ones lie together
    labels, instances     : what the masks' values mean, see `minunet.data.masks.make_table`
    size                  : (h, w) that all are brought to, see `minunet.data.dataset.resized`; None: they stay
    show                  : called with each line of what was paired, left out, and which value became which class

    Of images, or masks, that fill more than `minunet.data.shelf.KEEP` bytes the rest lies in a file while it is used.

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
    pictures_shelf, masks_shelf = Shelf(f"the images of {images}"), Shelf(f"the masks of {masks}")
    flat, n_train = [], 0
    for k, found in enumerate(_shown(in_order(lambda files: _read(*files, instances, size), pairs), len(pairs), show)):
        for section in found:
            share = (k + 1) / len(pairs)
            cells = None if section.cells is None else masks_shelf.put(section.cells, share)
            image, codes = pictures_shelf.put(section.image, share), masks_shelf.put(section.codes, share)
            flat.append(section._replace(image=image, codes=codes, cells=cells))
        n_train = len(flat) if k < len(train) else n_train
    if val_images is None:
        n_train = _first_held_out(len(flat), val, images)

    pictures = _same_channels(flat, pictures_shelf)
    surveys = {s.source: s.survey for s in flat}
    table = mask_values.make_table(surveys, labels, instances)
    classes = [_classes(s, table, masks_shelf) for s in flat]
    pixels = [0] * len(table["classes"])
    for c in classes:
        for k, n in mask_values.survey(c).counts.items():
            if k < len(pixels):
                pixels[k] += n
    tell(f"labels ({table['kind']}):")
    for line in mask_values.describe(table, pixels):
        tell(line)
    doubts = () if labels else mask_values.doubts(surveys, table)
    for line in (*doubts, *_remarks(flat, n_train)):
        tell(f"note: {line}")

    n = len(flat)
    files = "" if n == len(pairs) else f" ({len(pairs)} files)"
    source = f"{n} images{files} with masks in {images}: {n_train} to train on, {n - n_train} held out"
    changed = size is not None and any(s.size != size for s in flat)
    if changed:
        source += f"; resized to {size[0]} x {size[1]}"
    return Dataset(
        images=gather(pictures),
        labels=gather(classes),
        name="folder",
        synthetic=False,
        source=source,
        sha256=_sha256(pictures, classes, changed),
        classes=tuple(table["classes"]),
        colours=mask_values.colours(table, read_palette(pairs[0][1])),
        scored="instances" if instances else "classes",
        parts={"train": np.arange(n_train), "val": np.arange(n_train, n)},
        names=tuple(s.name for s in flat),
        table=table,
        instances=gather([s.cells for s in flat]) if instances else None,
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
            others = unreadable(place)
            remedy = f"; {others}" if others else "; name another folder"
            raise UserError(f"{option} {place}: holds no {what} (PNG, JPEG, TIFF, BMP, .npy){remedy}")
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
    for place in dict.fromkeys((images, masks)):
        if Path(place).is_dir() and (others := unreadable(place)):
            tell(f"note: {others}")
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


def _shown(found: Iterator[list[_Section]], n: int, show: Callable[[str], object] | None) -> Iterator[list[_Section]]:
    """With a progress bar, where somebody looks on."""
    from tqdm import tqdm

    return iter(tqdm(found, "reading", n, unit="file", leave=False, disable=True if show is None else None))


def _read(image_file: Path, mask_file: Path, instances: bool, size: tuple[int, int] | None) -> list[_Section]:
    """The image, or the sections of the stack, with their masks, at their size."""
    image, mask = read_picture(image_file), mask_values.read_mask(mask_file)
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError(f"{image_file}: holds NaN or infinite values; replace them, for example by the mean")
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * np.uint8(255)
    sizes = sides_of(mask.shape)
    if sizes == image.shape[:-1] and is_colour(image.shape):
        if image.shape[-1] == 4:
            image = image[..., :3]  # opacity
    elif sizes != image.shape:
        raise UserError(unlike(mask_file, mask.shape, image_file, image.shape))
    if len(sizes) == 2:
        section = _section(image_file.name, mask_file, image, mask, instances, size)
        return [section._replace(note=turned(image_file))]
    numbered = [f"section {s}" for s in range(len(image))]
    sources = [mask_file.with_name(f"{mask_file.name} {number}") for number in numbered]
    return [
        _section(f"{image_file.name} {numbered[s]}", sources[s], image[s], mask[s], instances, size)
        for s in range(len(image))
    ]


def _section(
    name: str, source: Path, image: np.ndarray, mask: np.ndarray, instances: bool, size: tuple[int, int] | None
) -> _Section:
    """What is kept of one image and its mask."""
    channels, dtype, sides = image.shape[2] if image.ndim == 3 else 0, str(image.dtype), image.shape[:2]
    if channels and (image[..., 1:] == image[..., :1]).all():
        image = image[..., 0]
    image = np.ascontiguousarray(image)
    digest = "" if image.min() == image.max() else pixels_sha256(image)
    found, numbers = mask_values.survey(mask), mask_values.packed(mask)
    cells = _small(numbers) if instances else None
    codes = _codes(numbers, list(found.counts)) if cells is None else separate(cells)
    if size is not None:
        image, codes = resize_image(image, size), resize_labels(codes, size)
        cells = None if cells is None else resize_labels(cells, size)
    return _Section(name, source, image, channels, dtype, digest, sides, found, codes, cells)


def _codes(numbers: np.ndarray, values: list[int]) -> np.ndarray:
    """Which of the `values`, in rising order, each number is: a mask that may have 64 bits a pixel, in 8."""
    dtype = np.uint8 if len(values) <= 256 else np.int32
    if numbers.dtype in (np.uint8, np.uint16):
        table = np.zeros(values[-1] + 1, dtype)
        table[values] = np.arange(len(values))
        return table[numbers]
    return np.searchsorted(np.array(values), numbers).astype(dtype)


def _classes(section: _Section, table: mask_values.Table, shelf: Shelf) -> np.ndarray:
    """The classes of a section, uint8 (H, W)."""
    if section.cells is not None:
        return section.codes
    classes = mask_values.apply(np.array(list(section.survey.counts)), table)
    return shelf.put(classes[section.codes])


def _same_channels(sections: list[_Section], shelf: Shelf) -> list[np.ndarray]:
    """The images, all grey or all in colour: colour pictures that hold only grey become grey, if all do."""
    coloured = next((s for s in sections if s.image.ndim == 3), None)
    if coloured is None:
        return [s.image for s in sections]
    plain = next((s for s in sections if s.channels == 0), None)
    if plain is not None:
        raise UserError(
            f"{plain.name}: is grey, and {coloured.name} in colour; convert all images to grey, or all to colour"
        )
    return [s.image if s.image.ndim == 3 else shelf.put(np.repeat(s.image[..., None], s.channels, 2)) for s in sections]


def _sha256(pictures: list[np.ndarray], classes: list[np.ndarray], as_stack: bool) -> str:
    """`pixels_sha256` of images and labels, one by one; `as_stack`: of the images' common type."""
    dtype = np.result_type(*{p.dtype for p in pictures}) if as_stack else None
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(np.ascontiguousarray(picture, dtype).data)
    for labels in classes:
        digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


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


def _remarks(sections: list[_Section], n_train: int) -> Iterator[str]:
    """What will not stop training, but should be known."""
    seen: dict[str, int] = {}
    for k, section in enumerate(sections):
        if section.note:
            yield f"{section.name}: {section.note}"
        if not section.digest:
            yield f"{section.name}: every pixel has one value; leave it out, or export it again"
            continue
        first = seen.setdefault(section.digest, k)
        if first != k:
            why = ", one held out and one not: the score is too good" if first < n_train <= k else ""
            yield f"{section.name}: has the same pixels as {sections[first].name}{why}; remove one"
    types = sorted({s.dtype for s in sections})
    if len(types) > 1:
        yield f"images of the types {', '.join(types)}; each is normalised by itself"
