"""A file's pixels as what a trained network expects: its number of channels, its size, its scale of values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minunet import __version__
from minunet.data.augment import normalise, standardise
from minunet.data.dataset import resize_image
from minunet.errors import UserError

ROWS = 256  # of a picture that are looked at in one go
CHANNELS = 16  # of a picture at most: nobody cuts sections so narrow


def as_sections(file: str, pixels: np.ndarray, channels: int) -> np.ndarray:
    """A file's pixels as (S, H, W, C) for a network of C input channels. Raises UserError where they do not fit."""
    if pixels.ndim == 2 and channels == 1:
        return pixels[None, :, :, None]
    last = pixels.shape[-1]
    if pixels.ndim == 3:
        # three axes are a picture, not a stack, when the last is too short to be a side
        shortest = min(pixels.shape[:2])
        colour = last in (2, 3, 4) and last < shortest
        if channels == 1 and colour and last > 2 and _without_colour(pixels):
            return pixels[None, :, :, :1]
        if channels == 1 and not colour and (last > CHANNELS or 4 * last > shortest):
            return pixels[..., None]
        if channels > 1 and last == channels:
            return pixels[None]
        if channels == 3 and colour and last == 4:  # red, green, blue, opacity
            return pixels[None, :, :, :3]
    if pixels.ndim == 4 and channels == 1 and _without_colour(pixels):
        return pixels[..., :1]
    if pixels.ndim == 4 and channels in (3, last):  # the fourth is opacity
        return pixels[..., :channels]
    wanted = "a grey image or a stack of them" if channels == 1 else f"an image of {channels} channels"
    remedy = "save it as that"
    if channels == 1 and last in (3, 4):
        remedy = "convert colours to grey; sections need a page each (tifffile: photometric='minisblack')"
    elif channels > 1 and pixels.ndim == 3 and pixels.shape[0] == channels:
        remedy = "save it with the channels last (numpy.moveaxis(x, 0, -1))"
    raise UserError(f"{file}: has the shape {pixels.shape}, but the network takes {wanted}; {remedy}")


def _without_colour(pixels: np.ndarray) -> bool:
    """Whether a picture in colour, or a stack of them, holds grey only; in parts, since it may be a mapped file."""
    rows = range(0, len(pixels), ROWS)
    return all(bool((pixels[i : i + ROWS, ..., 1:3] == pixels[i : i + ROWS, ..., :1]).all()) for i in rows)


def network_input(section: np.ndarray, trained: Mapping[str, Any], file: str) -> np.ndarray:
    """A section (H, W, C) as the network saw sections in training, float32 (h, w, C).

    trained : a checkpoint's `extra`, of which are read
        "size"      : [h, w] that images were brought to; None or missing: they stayed as they were
        "normalise" : "section" (each channel to mean 0 and sd 1; the default), {"mean": ..., "sd": ...} of the training
                      images, or "none"

    Raises UserError for values that the network cannot know.
    """
    how, size = trained.get("normalise", "section"), trained.get("size")
    if section.dtype.kind == "f" and not np.isfinite(section).all():
        raise UserError(f"{file}: holds NaN or infinite values; replace them and save it again")
    if isinstance(how, Mapping) and section.dtype != np.uint8 and section.dtype.kind != "f":
        raise UserError(
            f"{file}: holds {section.dtype}, and the network knows values of 0 to 255; convert it to 8 bits"
        )
    if size is not None:
        section = resize_image(section, tuple(size))
    if isinstance(how, Mapping):
        return standardise(section, how["mean"], how["sd"])
    if how == "none":
        return section.astype(np.float32)
    if how != "section":
        raise UserError(f"{file}: the checkpoint normalises by {how!r}, which minunet {__version__} cannot; update it")
    return np.moveaxis(normalise(np.moveaxis(section, -1, 0)), 0, -1)
