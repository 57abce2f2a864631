"""Training tiles: a random window of a section, deformed, turned and re-lit, with the labels it is scored by.

All randomness comes from the numpy.random.Generator passed in: the same generator state gives the same tile. What
chance decides is drawn in draw.py; the work is done by the rows of minunet/contract/augment.py, here always on the
backend `cpu`, whatever computes the network, as a thread makes tiles beside it. minunet/training/resident.py makes the
same tiles in a GPU's memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from minunet import backends
from minunet.data.dataset import IGNORE
from minunet.data.draw import Window, draw_light, draw_window, relit
from minunet.data.weights import HOST, border_term, class_weight_table, instances_from_labels, numbered, rim_of
from minunet.errors import UserError


@dataclass(frozen=True)
class Augment:
    """How training tiles are varied; 0 or False switches a variation off. Grey values are in units of sd.

    Images are expected normalised (mean 0, sd 1, see `normalise`), so that brightness 0.1 shifts by up to a tenth
    of the section's standard deviation.
    """

    flips: bool = True  # left-right, with probability 1/2; with rotations this makes all 8 symmetries
    rotations: bool = True  # by 0, 90, 180 or 270 degrees
    elastic: float = 10.0  # sd in px of the displacements at the 3 x 3 nodes (Ronneberger 2015, section 3.1)
    sampling: str = "cubic"  # how a deformed image is sampled: "cubic" or "linear"; labels always take the nearest
    brightness: float = 0.1  # adds a number from -b .. b
    contrast: float = 0.1  # multiplies by a number from 1-c .. 1+c
    gamma: float = 0.1  # raises the tile's range, scaled to 0 .. 1, to a power from exp(-g) .. exp(g)
    noise: float = 0.0  # adds Gaussian noise, its sd from 0 .. noise
    zoom: float = 0.0  # makes things larger or smaller by a factor from 1 / (1 + z) .. 1 + z
    colour: float = 0.0  # stretches and shifts each channel of a colour image by itself, as contrast and brightness do

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "float" and not (0 <= value < math.inf):
                raise UserError(f"augmentation: {field.name} = {value} must be a number, 0 or above")
        for name in ("contrast", "colour"):
            if getattr(self, name) >= 1:
                value = getattr(self, name)
                raise UserError(f"augmentation: {name} = {value} would turn images to negatives; stay below 1")
        if self.sampling not in ("cubic", "linear"):
            raise UserError(f'augmentation: sampling = "{self.sampling}" is not known; use "cubic" or "linear"')

    @classmethod
    def none(cls) -> Augment:
        """No variation: tiles differ only in their place."""
        return cls(
            flips=False, rotations=False, elastic=0, brightness=0, contrast=0, gamma=0, noise=0, zoom=0, colour=0
        )


def normalise(image: np.ndarray) -> np.ndarray:
    """(x - mean) / sd of each section, float32; (H, W), or (S, H, W) section by section. Constant sections give 0.

    Raises UserError if a section holds NaN or infinite values.
    """
    image = np.asarray(image)
    if image.ndim < 2 or image.size == 0:
        raise UserError(f"image: shape {image.shape} is no image (H, W) or stack (S, H, W); pass one with pixels")
    out = np.empty(image.shape, np.float32)
    for s in np.ndindex(image.shape[:-2]):
        x = image[s].astype(np.float64)  # (H, W)
        if not np.isfinite(x).all():
            where = f"section {s[0]}" if s else "image"
            raise UserError(f"{where}: holds NaN or infinite values; replace them before training")
        sd = x.std() if x.min() < x.max() else 0.0
        out[s] = (x - x.mean()) / sd if sd > 0 else 0
    return out


def standardise(image: np.ndarray, mean: ArrayLike, sd: ArrayLike) -> np.ndarray:
    """(image - mean) / sd, float32; mean and sd: (C,) for images (..., H, W, C), or numbers for grey ones."""
    return (image.astype(np.float32) - np.asarray(mean, np.float32)) / np.asarray(sd, np.float32)


def sample_tile(
    rng: np.random.Generator,
    image: np.ndarray,
    labels: np.ndarray,
    in_size: tuple[int, int],
    out_size: tuple[int, int],
    augment: Augment,
    weights: str | np.ndarray | None = None,
    instances: np.ndarray | None = None,
    w0: float = 10.0,
    sigma: float = 5.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """One training tile: x float32 (h, w, C), y uint8 (oh, ow), and w float32 (oh, ow) or None.

    image : float32 (H, W) or (H, W, C), normalised; labels : class indices (H, W), 255 = ignored
    in_size, out_size : (h, w) that the network sees, (oh, ow) in its middle that it predicts
    weights : None; a map (H, W) made beforehand, which is cut and turned along (not with elastic deformation or zoom,
        after which it would be wrong); or the class weights "balanced", "none" or "max1" of `weight_map`, which
        is then computed for the deformed tile, with the class shares of the whole section
    instances : cell numbers (H, W) for that, deformed with the labels; by default the tile's own components

    The section is deformed first; the output window lies anywhere inside it with equal chance, the input window
    around it, mirrored where that lies beyond the section. Labels known only from the mirror (when the section is
    smaller than the output, or where the deformation reaches beyond the border) are 255 and have weight 0.
    """
    _check(image, labels, in_size, out_size, augment, weights, instances)
    window = draw_window(rng, augment, image.shape[:2], out_size)
    planes = np.ascontiguousarray(image, np.float32).reshape(1, *image.shape[:2], -1)  # (1, H, W, C)
    x = _cut(planes, window, in_size, out_size, augment.sampling == "cubic")  # (1, h, w, C)
    y = _cut_labels(labels, window, out_size, out_size, IGNORE)
    pixel_weights = None
    if isinstance(weights, str):
        pixel_weights = class_weight_table(labels, weights)[y]
        if w0 > 0:
            pixel_weights += _borders(labels, instances, window, out_size, w0, sigma)
        pixel_weights[y == IGNORE] = 0
    elif weights is not None:
        plane = np.ascontiguousarray(weights, np.float32)[None, :, :, None]
        pixel_weights = _cut(plane, window, out_size, out_size)[0, :, :, 0]
        pixel_weights[y == IGNORE] = 0
    return relight(rng, x[0] if image.ndim == 3 else x[0, :, :, 0], augment).reshape(x.shape[1:]), y, pixel_weights


def relight(rng: np.random.Generator, x: np.ndarray, augment: Augment) -> np.ndarray:
    """Gamma, contrast, brightness, noise and colour of `augment`, drawn from `rng` and applied to float32 x (h, w) or
    (h, w, C); all channels alike, but for the noise and colour.
    """
    light = draw_light(rng, augment, x.shape)
    tiles = np.ascontiguousarray(x).reshape(1, *x.shape[:2], -1)  # (1, h, w, C)
    with backends.use_backend(HOST):
        lit = relit(tiles, [light], augment, lambda y: y + light.sd * light.noise.reshape(y.shape))
    return lit.reshape(x.shape)


def _cut(planes, window, size, out_size, cubic=True):
    """The window of the (deformed) section (1, H, W, C), mirrored beyond its border: float32 (1, h, w, C)."""
    with backends.use_backend(HOST):
        return backends.call("deform", planes, *_described(window, size, out_size), size=size, cubic=cubic)


def _cut_labels(labels, window, size, out_size, outside):
    """The window of the (deformed) labels by nearest pixel, `outside` where it would come from the mirror."""
    stack, described = np.ascontiguousarray(labels, np.int32)[None], _described(window, size, out_size)
    with backends.use_backend(HOST):
        found = backends.call("deform_nearest", stack, *described, size=size, outside=outside)
    return found[0].astype(labels.dtype, copy=False)


def _described(window: Window, size: tuple[int, int], out_size: tuple[int, int]) -> tuple:
    """places (1, 5) and nodes (1, 2, 3, 3) or None of the contract, for one tile of this size around the window."""
    nodes = None if window.nodes is None else window.nodes[None]
    return np.array([window.place(0, size, out_size)], np.int32), nodes


def _borders(labels, instances, window, out_size, w0, sigma):
    """Border term of the weight map for one window, seeing cells as far outside it as they matter."""
    rim = rim_of(sigma)
    wide = (out_size[0] + 2 * rim, out_size[1] + 2 * rim)
    if instances is not None:  # a mirrored cell is no second cell
        known = instances if instances.dtype == np.int32 else numbered(instances)
        return border_term(_cut_labels(known, window, wide, out_size, 0), w0, sigma, rim=rim)
    cells = _cut_labels(labels, window, wide, out_size, 0)
    cells[cells == IGNORE] = 0
    return border_term(instances_from_labels(cells), w0, sigma, rim=rim)


def _check(image, labels, in_size, out_size, augment, weights, instances):
    for name, array in (("labels", labels), ("weights", weights), ("instances", instances)):
        if isinstance(array, np.ndarray) and array.shape != image.shape[:2]:
            raise UserError(f"{name}: shape {array.shape} differs from the image's {image.shape}; use the same section")
    if min(*in_size, *out_size) < 1 or out_size[0] > in_size[0] or out_size[1] > in_size[1]:
        raise UserError(f"tile: in {in_size} and out {out_size} do not fit; out must be 1 px or more and inside in")
    if isinstance(weights, np.ndarray) and augment.elastic + augment.zoom > 0:
        raise UserError(
            "weights: a map made beforehand does not fit a deformed tile; "
            'pass weights="balanced" or set elastic and zoom to 0'
        )
