"""Training tiles: a random window of a section, deformed, turned and re-lit, with the labels it is scored by.

All randomness comes from the numpy.random.Generator passed in: the same generator state gives the same tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from minunet.data.dataset import IGNORE
from minunet.data.tiles import reflect_indices
from minunet.data.weights import REACH, border_term, class_weight_table, instances_from_labels
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
    H, W = image.shape[:2]
    _check(image, labels, in_size, out_size, augment, weights, instances)
    turns = int(rng.integers(4)) if augment.rotations else 0
    flip = bool(augment.flips and rng.random() < 0.5)
    h, w = in_size if turns % 2 == 0 else in_size[::-1]
    oh, ow = out_size if turns % 2 == 0 else out_size[::-1]
    top = int(rng.integers(min(0, H - oh), max(0, H - oh) + 1))
    left = int(rng.integers(min(0, W - ow), max(0, W - ow) + 1))
    nodes = rng.normal(0.0, augment.elastic, (2, 3, 3)) if augment.elastic > 0 else None
    if augment.zoom > 0:
        factor = math.exp(math.log1p(augment.zoom) * rng.uniform(-1, 1))
        nodes = zoomed(nodes, factor, (top + (oh - 1) / 2, left + (ow - 1) / 2), (H, W))

    x = _cut(image, nodes, top - (h - oh) // 2, left - (w - ow) // 2, h, w, augment.sampling == "cubic")
    y, known = _cut_labels(labels, nodes, top, left, oh, ow)
    y[~known] = IGNORE
    pixel_weights = None
    if isinstance(weights, str):
        table = class_weight_table(labels, weights)
        pixel_weights = table[y]
        if w0 > 0:
            pixel_weights += _borders(labels, instances, nodes, (top, left, oh, ow), w0, sigma)
        pixel_weights[y == IGNORE] = 0
    elif weights is not None:
        pixel_weights, _ = _cut_labels(weights, None, top, left, oh, ow)
        pixel_weights[y == IGNORE] = 0

    x = relight(rng, np.ascontiguousarray(_turn(x, turns, flip)), augment)
    y = np.ascontiguousarray(_turn(y, turns, flip))
    if pixel_weights is not None:
        pixel_weights = np.ascontiguousarray(_turn(pixel_weights, turns, flip), np.float32)
    return x if x.ndim == 3 else x[:, :, None], y, pixel_weights


def relight(rng: np.random.Generator, x: np.ndarray, augment: Augment) -> np.ndarray:
    """Gamma, contrast, brightness, noise and colour of `augment`, drawn from `rng` and applied to float32 x (h, w) or
    (h, w, C) in place; all channels alike, but for the noise and colour.
    """
    if augment.gamma > 0:
        power = np.float32(math.exp(rng.uniform(-augment.gamma, augment.gamma)))
        low, high = x.min(), x.max()
        if high > low:
            x -= low
            x *= 1 / (high - low)
            np.clip(x, 0, 1, out=x)  # the two roundings above may leave 1 by one unit
            np.power(x, power, out=x)
            x *= high - low
            x += low
    if augment.contrast > 0:
        x *= np.float32(rng.uniform(1 - augment.contrast, 1 + augment.contrast))
    if augment.brightness > 0:
        x += np.float32(rng.uniform(-augment.brightness, augment.brightness))
    if augment.noise > 0:
        sd = np.float32(rng.uniform(0, augment.noise))
        x += sd * rng.standard_normal(x.shape, np.float32)
    if augment.colour > 0 and x.ndim == 3:
        x *= rng.uniform(1 - augment.colour, 1 + augment.colour, x.shape[2]).astype(np.float32)
        x += rng.uniform(-augment.colour, augment.colour, x.shape[2]).astype(np.float32)
    return x


def spline_weights(positions: np.ndarray, n: int) -> np.ndarray:
    """Weights (len(positions), 3) of the natural cubic spline through nodes at 0, (n-1)/2 and n-1.

    With t = 2 i / (n-1) and M = 3/2 (a - 2 b + c) the curvature at the middle node, the spline through a, b, c is
    a (1 - t) + b t + M (t^3 - t) / 6 for t <= 1, and the mirror image of that (a and c exchanged) beyond.
    """
    t = 2.0 * positions / (n - 1) if n > 1 else np.zeros(len(positions))
    s = np.where(t <= 1, t, 2 - t)
    bend = (s**3 - s) / 4  # M (s^3 - s) / 6 per unit of a - 2 b + c
    near, far = 1 - s + bend, bend
    return np.stack([np.where(t <= 1, near, far), s - 2 * bend, np.where(t <= 1, far, near)], axis=1)


def zoomed(nodes: np.ndarray | None, factor: float, centre: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Displacements (2, 3, 3) that, added to those of `nodes`, enlarge what lies around `centre` by `factor`.

    The pixel at y shows what was at c + (y - c) / factor: a displacement linear in y, which the spline through the
    nodes at 0, (n - 1) / 2 and n - 1 follows exactly.
    """
    nodes = np.zeros((2, 3, 3)) if nodes is None else nodes.copy()
    places = [np.array([0, (n - 1) / 2, n - 1]) for n in size]
    nodes[0] += ((1 / factor - 1) * (places[0] - centre[0]))[:, None]
    nodes[1] += ((1 / factor - 1) * (places[1] - centre[1]))[None, :]
    return nodes


def _cut(image, nodes, top, left, h, w, cubic):
    """The window of the (deformed) section, mirrored beyond its border: float32 (h, w) or (h, w, C)."""
    rows = reflect_indices(top, top + h, image.shape[0])
    cols = reflect_indices(left, left + w, image.shape[1])
    if nodes is None:
        return image[rows[:, None], cols]
    from minunet.data.loops import deform

    planes = np.atleast_3d(image)  # (H, W, C)
    x = np.empty((h, w, planes.shape[2]), np.float32)
    down, across = spline_weights(rows, image.shape[0]), spline_weights(cols, image.shape[1])
    deform(planes, rows, cols, down, across, nodes, cubic, x)
    return x if image.ndim == 3 else x[:, :, 0]


def _cut_labels(labels, nodes, top, left, h, w):
    """The window of the (deformed) labels by nearest pixel, and where it does not come from the mirror."""
    H, W = labels.shape
    rows = reflect_indices(top, top + h, H)
    cols = reflect_indices(left, left + w, W)
    i, j = np.arange(top, top + h), np.arange(left, left + w)
    known = ((i >= 0) & (i < H))[:, None] & ((j >= 0) & (j < W))
    if nodes is None:
        return labels[rows[:, None], cols], known
    from minunet.data.loops import deform_nearest

    out = np.empty((h, w), labels.dtype)
    inside = np.empty((h, w), np.bool_)
    deform_nearest(labels, rows, cols, spline_weights(rows, H), spline_weights(cols, W), nodes, out, inside)
    return out, known & inside


def _borders(labels, instances, nodes, place, w0, sigma):
    """Border term of the weight map for one window, seeing cells as far outside it as they matter."""
    top, left, h, w = place
    rim = math.ceil(REACH * sigma)
    wide = (top - rim, left - rim, h + 2 * rim, w + 2 * rim)
    cells, known = _cut_labels(labels if instances is None else instances, nodes, *wide)
    cells[~known] = 0  # a mirrored cell is no second cell
    if instances is None:
        cells[cells == IGNORE] = 0
        cells = instances_from_labels(cells)
    return border_term(cells, w0, sigma)[rim : rim + h, rim : rim + w]


def _turn(tile, turns, flip):
    return np.rot90(tile[:, ::-1] if flip else tile, turns)


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
