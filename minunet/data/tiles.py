"""Tiles of images larger (or smaller) than a network's input: mirrored context, overlap-tile plan, symmetries.

A network without padding sees more than it predicts: from an input window (h, w) it gives the window (oh, ow) in
its middle. Tiles are therefore placed so that their *outputs* cover the image; their inputs overlap, and what
the input lacks beyond the image is mirrored (Ronneberger 2015, figure 2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minunet.errors import UserError


def reflect_indices(start: int, stop: int, n: int) -> np.ndarray:
    """Indices into 0 .. n-1 of the positions start .. stop-1 of the line mirrored at both ends, int64.

    The edge is not repeated, and the mirror is repeated as often as needed.

    >>> reflect_indices(-3, 6, 3).tolist()
    [1, 2, 1, 0, 1, 2, 1, 0, 1]
    """
    if n < 1:
        raise UserError("image: a side of 0 pixels cannot be mirrored; pass an image with pixels")
    if n == 1:
        return np.zeros(stop - start, np.int64)
    i = np.arange(start, stop) % (2 * (n - 1))
    return np.minimum(i, 2 * (n - 1) - i)


def window(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A copy of image[top : top+height, left : left+width, ...], mirrored where that lies beyond the image."""
    H, W = image.shape[:2]
    if 0 <= top <= top + height <= H and 0 <= left <= left + width <= W:
        return image[top : top + height, left : left + width].copy()
    rows = reflect_indices(top, top + height, H)
    cols = reflect_indices(left, left + width, W)
    return image[rows[:, None], cols]


def mirror_pad(image: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Pad (H, W, ...) by mirroring without repeating the edge (numpy's "reflect"), for pads of any size.

    >>> mirror_pad(np.array([[1, 2, 3]]), 1, 0, 4, 1).tolist()
    [[1, 2, 3, 2, 1, 2, 3, 2], [1, 2, 3, 2, 1, 2, 3, 2]]
    """
    if min(top, bottom, left, right) < 0:
        raise UserError(f"padding: {(top, bottom, left, right)} must not be negative; crop instead")
    H, W = image.shape[:2]
    return window(image, -top, -left, top + H + bottom, left + W + right)


@dataclass(frozen=True)
class Tile:
    """One run of the network over part of an image; all windows are (top, left, height, width)."""

    source: tuple[int, int, int, int]  # what the network sees, in image pixels; may reach beyond the image
    target: tuple[int, int, int, int]  # what it is to fill in, in image pixels; inside the image
    crop: tuple[int, int]  # rows and columns of its output that belong to the target: the first so many

    def read(self, image: np.ndarray) -> np.ndarray:
        """The network's input (h, w, ...) from image (H, W, ...), with mirrored context."""
        return window(image, *self.source)

    def write(self, result: np.ndarray, output: np.ndarray) -> None:
        """Put the network's output (oh, ow, ...) into its place in result (H, W, ...)."""
        top, left, height, width = self.target
        result[top : top + height, left : left + width] = output[: self.crop[0], : self.crop[1]]


def plan(size: tuple[int, int], tile_in: tuple[int, int], tile_out: tuple[int, int], align: int = 1) -> list[Tile]:
    """Tiles whose targets cover an image of size (H, W) exactly once, row by row.

    tile_in (h, w) is what the network sees, tile_out (oh, ow) the window in its middle that it predicts. Tiles
    start at multiples of `align` (the product of the network's strides): pooling then falls on the same pixels
    in every tile, and the tiled prediction equals the untiled one to rounding error.

    H = 300, oh = 132, align = 16: starts 0, 128, 256 (each target 128 rows, the last 44).
    """
    H, W = size
    if min(*size, *tile_in, *tile_out, align) < 1 or tile_out[0] > tile_in[0] or tile_out[1] > tile_in[1]:
        raise UserError(f"tiles: image {size}, tile in {tile_in}, out {tile_out}, align {align} do not fit together")
    steps = tuple(o if o >= side else o // align * align for o, side in zip(tile_out, size))
    if 0 in steps:
        raise UserError(f"tiles: an output of {tile_out} px is less than the stride {align}; take a larger tile")
    margin = ((tile_in[0] - tile_out[0]) // 2, (tile_in[1] - tile_out[1]) // 2)
    tiles = []
    for top in range(0, H, steps[0]):
        for left in range(0, W, steps[1]):
            height, width = min(steps[0], H - top), min(steps[1], W - left)
            source = (top - margin[0], left - margin[1], *tile_in)
            tiles.append(Tile(source, (top, left, height, width), (height, width)))
    return tiles


def symmetries(k: int = 8) -> list[tuple[Callable, Callable]]:
    """The first k of the 8 symmetries of the square, as pairs (apply, undo) for arrays (H, W, ...).

    Order: the rotations by 0, 90, 180 and 270 degrees, then the same after a left-right flip. undo(apply(x)) is x.
    Averaging undone predictions is the test-time augmentation of Ronneberger 2015 (7 versions).
    """
    if not 1 <= k <= 8:
        raise UserError(f"symmetries: {k} asked for, but there are 8; use 1 to 8")

    def pair(turns: int, flip: bool) -> tuple[Callable, Callable]:
        def apply(x: np.ndarray) -> np.ndarray:
            return np.rot90(x[:, ::-1] if flip else x, turns)

        def undo(x: np.ndarray) -> np.ndarray:
            x = np.rot90(x, -turns)
            return x[:, ::-1] if flip else x

        return apply, undo

    return [pair(i % 4, i >= 4) for i in range(k)]
