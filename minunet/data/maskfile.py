"""Mask files as the numbers or colours that they hold, and which these are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minunet.data.images import kind_of, read_image
from minunet.errors import UserError

MAX_PLANES = 32  # of a mask with a plane a class
CHUNK = 1 << 20  # pixels that are counted at a time


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """A mask file as integers (H, W) or (S, H, W), or as colours uint8 (H, W, 3) or (S, H, W, 3). Raises UserError.

    Whole numbers saved as floats become integers; a colour picture without colour becomes grey; opacity goes; of a
    plane a class (..., H, W, K), of which each pixel has a 1 in one, the planes' numbers 0 .. K - 1 are left.
    """
    pixels, kind = read_image(path), kind_of(path)
    if kind == "jpeg" and len(n := np.unique(pixels)) > 2:
        raise UserError(
            f"{path}: has {len(n)} different values, as JPEG alters them along every edge; save the mask as PNG or TIFF"
        )
    if is_one_hot(pixels, two=kind == "npy"):
        pixels = pixels.argmax(axis=-1).astype(np.uint8)
    elif is_colour(pixels.shape):
        opacity = pixels[..., -1] if pixels.shape[-1] in (2, 4) else None
        if pixels.shape[-1] == 2:
            if kind == "npy":
                raise UserError(f"{path}: has two channels {pixels.shape}; save one number a pixel, the class's")
            pixels = pixels[..., 0]
        else:
            pixels = pixels[..., :3]
            if (pixels[..., 1:] == pixels[..., :1]).all():
                pixels = pixels[..., 0]
            elif pixels.dtype != np.uint8:
                raise UserError(f"{path}: is a mask in colours of {pixels.dtype}; save it with 8 bits a channel")
        if opacity is not None and opacity.min() < opacity.max() and pixels.min() == pixels.max():
            raise UserError(f"{path}: has one colour, and only its opacity differs; save the mask in colours or greys")
    if pixels.dtype == np.bool_:
        white = 1 if kind == "npy" else 255  # as programs show images of one bit
        pixels = pixels.astype(np.uint8) * np.uint8(white)
    if pixels.dtype.kind == "f":
        whole = np.isfinite(pixels).all() and (pixels % 1 == 0).all() and float(np.abs(pixels).max()) < 2**31
        if not whole:
            raise UserError(
                f"{path}: holds values such as {_fraction(pixels):g}, and a mask holds one whole number a class; "
                "save class numbers, not probabilities"
            )
        pixels = pixels.astype(np.int32)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 8 and pixels.max() >= 2**63:
        raise UserError(f"{path}: holds the value {pixels.max()}; number classes from 0")
    return np.ascontiguousarray(pixels)


def is_one_hot(pixels: np.ndarray, two: bool = False) -> bool:
    """Whether (..., H, W, K) has a plane for each of K classes: everywhere a 1 in one of them and 0 in the others.

    Planes of 0 and 255 are colours: red, green, blue.       two : K may be 2, since the second is no opacity
    """
    K = pixels.shape[-1]
    if pixels.ndim < 3 or not 3 - two <= K <= MAX_PLANES or (pixels.ndim == 3 and min(pixels.shape[:2]) <= K):
        return False
    if pixels.max() != 1 or ((pixels != 0) & (pixels != 1)).any():
        return False
    return bool((np.count_nonzero(pixels, axis=-1) == 1).all())


def is_colour(shape: tuple[int, ...]) -> bool:
    """Whether the last axis is channels: of a colour image (H, W, C), no stack (S, H, W), or of a stack of them."""
    return len(shape) == 4 or (len(shape) == 3 and shape[2] in (2, 3, 4) and shape[2] < min(shape[:2]))


def is_stack(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape is a stack of sections, (S, H, W) or (S, H, W, C)."""
    return len(shape) == 4 or (len(shape) == 3 and not is_colour(shape))


def sides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(H, W) or (S, H, W), without the channels."""
    return shape[:-1] if is_colour(shape) else shape


def unlike(mask: Path, shape: tuple[int, ...], image: Path, image_shape: tuple[int, ...]) -> str:
    """What to say of a mask that has not the sides of its image."""
    ours, theirs = sides_of(shape), sides_of(image_shape)
    a, b = (" x ".join(map(str, sides)) for sides in (ours, theirs))
    remedy = "export both alike"
    if len(ours) == 3 and theirs in (ours[1:], ours[:2]):
        remedy = "if it has a plane a class, save their numbers instead (numpy.argmax)"
    return f"{mask}: is {a}, but its image {image} is {b}; {remedy}"


def packed(mask: np.ndarray) -> np.ndarray:
    """Colours uint8 (..., H, W, 3) as int32 0xRRGGBB (..., H, W); a mask of numbers as it is."""
    if not is_colour(mask.shape):
        return mask
    r, g, b = (mask[..., k].astype(np.int32) for k in range(3))
    return r << 16 | g << 8 | b


class Survey(NamedTuple):
    """What one mask holds."""

    counts: dict[int, int]  # value (0xRRGGBB for colours): pixels
    colour: bool
    dtype: str


def survey(mask: np.ndarray) -> Survey:
    """What a mask from `read_mask` holds."""
    colour, numbers = is_colour(mask.shape), packed(mask)
    if numbers.dtype in (np.uint8, np.uint16):
        n = np.zeros(1 << 8 * numbers.itemsize, np.int64)
        flat = numbers.ravel()
        for k in range(0, flat.size, CHUNK):  # bincount makes 64-bit numbers of them first
            n += np.bincount(flat[k : k + CHUNK], minlength=n.size)
        values = np.flatnonzero(n)
        n = n[values]
    else:
        values, n = np.unique(numbers, return_counts=True)
    return Survey(dict(zip(values.tolist(), n.tolist())), colour, str(mask.dtype))


def _fraction(pixels: np.ndarray) -> float:
    odd = pixels[~((pixels % 1 == 0) & (np.abs(pixels.astype(np.float64)) < 2**31))]
    return float(odd[0])
