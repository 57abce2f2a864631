"""What every data set becomes: images with one label a pixel, what the labels mean, and where it all came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minunet.data.download import pixels_sha256
from minunet.data.mixed import Mixed

IGNORE = 255  # the label of pixels that no loss and no score counts
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Dataset:
    """Images with labels, and where they came from.

    scored : how predictions are judged: "cells" by the ISBI challenge's scores (class 1 is the cell's interior),
        "classes" by the confusion matrix, "instances" by that and by the cell tracking challenge's SEG measure
    parts  : the fixed split, {"train": indices, "val": indices}; None where sections are held out by their numbers
    """

    images: np.ndarray | Mixed  # (S, H, W), or (S, H, W, C) in colour: uint8, or any type for a user's own
    labels: np.ndarray | Mixed  # uint8 (S, H, W), class indices, IGNORE where a pixel does not count
    name: str
    synthetic: bool
    source: str  # in plain words, for people; starts with SYNTHETIC where it is drawn
    sha256: str  # of the pixels: images, then labels
    classes: tuple[str, ...] = ("membrane", "cell interior")
    colours: tuple[Colour, ...] = ((0, 0, 0), (255, 255, 255))
    scored: str = "cells"
    parts: Mapping[str, np.ndarray] | None = None
    names: tuple[str, ...] | None = None  # of the images; None: they are numbered
    table: Mapping[str, Any] | None = None  # which value of the masks is which class: see `minunet.data.masks`
    instances: np.ndarray | Mixed | None = None  # integers (S, H, W), 0 background: the cells one by one, where known

    @property
    def n_classes(self) -> int:
        """How many classes there are, the ignored label left out."""
        return len(self.classes)

    @property
    def channels(self) -> int:
        """1 for grey images, C for images (H, W, C)."""
        return 1 if self.images.ndim == 3 else self.images.shape[3]

    def called(self, s: int) -> str:
        """What to call image s in texts and pictures."""
        return f"section {s}" if self.names is None else self.names[s]


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image (H, W) or (H, W, C) at another size (h, w): the mean over each new pixel's area where a side shrinks,
    bilinear where none does. uint8 stays uint8, other types become float32; of that size already: as it is.
    """
    if image.shape[:2] == size:
        return image
    shrinks = size[0] < image.shape[0] or size[1] < image.shape[1]
    out = _by_plane(np.atleast_3d(image), size, "BOX" if shrinks else "BILINEAR")
    out = np.clip(np.rint(out), 0, 255).astype(np.uint8) if image.dtype == np.uint8 else out
    return out if image.ndim == 3 else out[..., 0]


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (H, W) at another size (h, w), by the pixel at each new pixel's centre: row floor((i + 1/2) H / h).

    >>> resize_labels(np.arange(6).reshape(1, 6), (1, 3)).tolist()
    [[1, 3, 5]]
    """
    rows, columns = ((2 * np.arange(n) + 1) * side // (2 * n) for n, side in zip(size, labels.shape))
    return labels[rows[:, None], columns]


def resized(data: Dataset, size: tuple[int, int] | None) -> Dataset:
    """The data set with all images and labels at another size (h, w), which `source` then says; None: as it is."""
    if size is None or all(label.shape == size for label in data.labels):
        return data
    images = np.stack([resize_image(image, size) for image in data.images])
    labels = np.stack([resize_labels(label, size) for label in data.labels])
    source = f"{data.source}; resized to {size[0]} x {size[1]}"
    changed = {"images": images, "labels": labels, "source": source, "sha256": pixels_sha256(images, labels)}
    if data.instances is not None:
        changed["instances"] = np.stack([resize_labels(cells, size) for cells in data.instances])
    return replace(data, **changed)


def resize_map(p: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Probabilities (H, W, K) at another size (h, w), bilinear, float32; each pixel's sum stays what it was."""
    return p if p.shape[:2] == size else _by_plane(p, size, "BILINEAR")


def _by_plane(planes: np.ndarray, size: tuple[int, int], how: str) -> np.ndarray:
    """(H, W, C) at another size, float32 (h, w, C): any number of channels, and no opacity read into the fourth."""
    from PIL import Image

    out = np.empty((*size, planes.shape[2]), np.float32)
    for c in range(planes.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(planes[..., c], np.float32))
        out[..., c] = np.asarray(plane.resize(size[::-1], Image.Resampling[how]))
    return out


def paint(labels: np.ndarray, colours: tuple[Colour, ...]) -> np.ndarray:
    """Class indices (..., H, W) as colours uint8 (..., H, W, 3); black where no class is meant."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    return table[labels]
