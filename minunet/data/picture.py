"""Images as people see them: palettes looked up, opacity of grey pictures dropped. Masks stay as they are stored."""

from __future__ import annotations

import os

import numpy as np

from minunet.data.images import kind_of, read_image, read_palette


def read_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """As `read_image`, of a file that shows something: where pixels are numbers of a palette's colours (PNG, BMP) the
    colours uint8 (H, W, 3), or (H, W) where these are greys; of a grey PNG with opacity the grey (H, W).

    A TIFF's palette stays unread: microscopes' programs colour measured values by it. Raises UserError.
    """
    pixels = read_image(path)
    kind = kind_of(path)
    if kind == "png" and pixels.ndim == 3 and pixels.shape[2] == 2:
        return np.ascontiguousarray(pixels[..., 0])
    palette = read_palette(path) if kind in ("png", "bmp") and pixels.ndim == 2 else None
    if palette is None:
        return pixels
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette[:256]
    if (table[:, 1:] == table[:, :1]).all():
        return table[:, 0][pixels]
    return table[pixels]
