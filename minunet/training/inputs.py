"""What the network sees of a data set: images with mean 0 and sd 1, and the windows that are cut from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from minunet.data import Dataset, normalise, standardise
from minunet.data.align import Displacement, displaced, displacement
from minunet.data.mixed import Mixed, gather
from minunet.data.shelf import KEEP
from minunet.errors import UserError
from minunet.models import Network
from minunet.tiled import keeps_size
from minunet.training.config import Config


def by_section(images: np.ndarray | Mixed) -> np.ndarray | Mixed:
    """`normalise` of each channel of each image, float32 (S, H, W) or (S, H, W, C)."""
    if isinstance(images, Mixed):
        return gather([by_section(image[None])[0] for image in images])
    if images.ndim == 3:
        return normalise(images)
    return np.ascontiguousarray(np.moveaxis(normalise(np.moveaxis(images, -1, 1)), 1, -1))


class Standardised:
    """Images (S, H, W[, C]) that become float32 by one mean and sd a channel when asked for, one by one: a data
    set in colour is four times as large in float32.
    """

    def __init__(self, images: np.ndarray | Mixed, mean: Any, sd: Any):
        self.images, self.mean, self.sd = images, mean, sd

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, s: int) -> np.ndarray:
        return standardise(self.images[s], self.mean, self.sd)


class BySection:
    """`by_section`, of each image when it is asked for: for images that in float32 would fill more than KEEP bytes."""

    def __init__(self, images: np.ndarray | Mixed):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, s: int) -> np.ndarray:
        return by_section(self.images[s][None])[0]


class Displaced:
    """Images as `displaced` by so much, each when it is asked for."""

    def __init__(self, images: Any, by: Displacement):
        self.images, self.by = images, by

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, s: int) -> np.ndarray:
        return displaced(self.images[s], self.by)


def align(images: Any, labels: np.ndarray | Mixed, others: Any) -> tuple[Any, Any, Displacement | None]:
    """(images, others, by how much both were moved), so that `images` fit their masks; None: nothing clear was found.

    Those that lie in memory are moved at once, others when they are asked for.
    """
    by = displacement(images, labels)
    if by is None:
        return images, others, None
    moved = (Displaced(x, by) for x in (images, others))
    if isinstance(images, np.ndarray | Mixed):
        moved = (gather(list(x)) if len(x) else x.images for x in moved)
    return *moved, by


def channel_statistics(images: np.ndarray | Mixed) -> dict[str, list[float] | float]:
    """{"mean", "sd"} over all pixels, by channel of images (S, H, W, C), numbers for grey ones (S, H, W)."""
    if isinstance(images, Mixed) or images.dtype != np.uint8:
        return _statistics(images)
    planes = images[..., None] if images.ndim == 3 else images
    counts = [np.bincount(planes[..., c].ravel(), minlength=256) for c in range(planes.shape[-1])]
    values = np.arange(256)
    mean = [float((n * values).sum() / n.sum()) for n in counts]
    sd = [float(np.sqrt((n * (values - m) ** 2).sum() / n.sum())) or 1.0 for n, m in zip(counts, mean)]
    return {"mean": mean[0], "sd": sd[0]} if images.ndim == 3 else {"mean": mean, "sd": sd}


def _statistics(images: np.ndarray | Mixed) -> dict[str, list[float] | float]:
    """As `channel_statistics`, of images of any type and size, in two passes."""
    grey = images.ndim == 3

    def rows() -> Iterator[np.ndarray]:  # (HW, C) of one image at a time
        for image in images:
            yield np.asarray(image, np.float64).reshape(-1, 1 if grey else image.shape[-1])

    n = sum(len(r) for r in rows())
    mean = sum(r.sum(axis=0) for r in rows()) / n
    sd = np.sqrt(sum(np.square(r - mean).sum(axis=0) for r in rows()) / n)
    sd[sd == 0] = 1.0
    return {"mean": float(mean[0]), "sd": float(sd[0])} if grey else {"mean": mean.tolist(), "sd": sd.tolist()}


def prepare(data: Dataset, how: str, train: np.ndarray, others: np.ndarray) -> tuple[Any, Any, Any]:
    """(images of `train`, images of `others`, record for the checkpoint): float32 (H, W) or (H, W, C) by index.

    how : "section", each image by itself, or "dataset", by the mean and sd of the training images
    """
    if how == "section" and 4 * data.images.size > KEEP:
        return BySection(data.images[train]), BySection(data.images[others]), how
    if how == "section":
        images = by_section(data.images)
        return images[train], images[others], how
    found = channel_statistics(data.images[train])
    mean, sd = found["mean"], found["sd"]
    return Standardised(data.images[train], mean, sd), Standardised(data.images[others], mean, sd), found


class Plan(NamedTuple):
    """Sizes of a training step: the window that the network sees, and the one in it that it is trained on."""

    seen: tuple[int, int]
    trained: tuple[int, int]
    note: str  # for the user, "" where there is nothing to say


def plan_window(config: Config, size: tuple[int, int], model: Network) -> Plan:
    """The windows for images of this size. Raises UserError where the network does not take the tile.

    A whole image (--tile 0) that the network does not take is mirrored to the next size that it takes; what the mirror
    shows has no label. A tile becomes larger where the network predicts all it sees; where it predicts less
    (U-Net without padding), the sizes follow from each other, so that the user has to choose.
    """
    if config.tile == 0:
        seen = model.input_size(*size)
        trained = model.output_size(*seen)
        if trained == size:
            return Plan(seen, trained, "")
        words = " x ".join(map(str, seen))
        return Plan(
            seen, trained, f"images of {size[0]} x {size[1]} are mirrored to {words}, which {config.model} takes"
        )
    tile = (config.tile, config.tile)
    if model.trace(config.tile) is None and keeps_size(model):
        side = model.input_size(*tile)[0]
        note = f"tiles of {config.tile} x {config.tile} become {side} x {side}, which {config.model} takes"
        return Plan((side, side), (side, side), note)
    return Plan(tile, model.output_size(*tile), "")  # which raises, naming the next legal size


def check_channels(data_channels: int, model: Network, name: str) -> None:
    """Raise UserError unless the network takes images of so many channels."""
    if data_channels not in model.channels:
        takes = " or ".join(map(str, model.channels))
        has = f"{data_channels} channel{'s' * (data_channels > 1)}"
        network = model.config["model"]
        raise UserError(f"{name}: its images have {has}, and {network} takes {takes}; choose another of the two")
