"""Images as people see them: palettes looked up, opacity of grey pictures dropped, photographs upright. Masks stay as
they are stored.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

import numpy as np

from minunet.data.images import kind_of, read_image, read_palette

# By EXIF's number (Exif 3.0, tag 274): where the first row and column of the stored pixels are shown.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda x: x,  # top, left
    2: lambda x: x[:, ::-1],  # top, right
    3: lambda x: x[::-1, ::-1],  # bottom, right
    4: lambda x: x[::-1],  # bottom, left
    5: lambda x: x.swapaxes(0, 1),  # left, top
    6: lambda x: np.rot90(x, -1),  # right, top
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda x: np.rot90(x),  # left, bottom
}
_ORIENTATION = 274


def orientation(path: str | os.PathLike[str]) -> int:
    """How a JPEG's pixels lie, by its EXIF data: 1 (upright) to 8; 1 for other files, and where it says nothing."""
    if kind_of(path) != "jpeg":
        return 1
    exif = _exif(path)
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (n,) = struct.unpack_from(order + "H", exif, at)
        entries = (struct.unpack_from(order + "HHIH", exif, at + 2 + 12 * k) for k in range(n))
        return next((value for tag, _, _, value in entries if tag == _ORIENTATION and value in _UPRIGHT), 1)
    except struct.error:  # cut short: it says nothing, and viewers show such a picture as it is stored
        return 1


def turned(path: str | os.PathLike[str]) -> str:
    """What to know of a picture that does not lie in its file as viewers show it; "" of others."""
    k = orientation(path)
    shown = "is taken as viewers show it, and its mask has to lie as that"
    return "" if k == 1 else f"lies turned or mirrored in its file (EXIF orientation {k}); it {shown}"


def _exif(path: str | os.PathLike[str]) -> bytes:
    """The EXIF data, a TIFF directory of its own, among the segments (FF, marker, length, bytes) before the pixels."""
    with open(path, "rb") as file:
        file.seek(2)
        while len(head := file.read(4)) == 4 and head[0] == 0xFF and head[1] not in (0xD9, 0xDA):
            segment = file.read(max(int.from_bytes(head[2:]) - 2, 0))
            if head[1] == 0xE1 and segment.startswith(b"Exif\0\0"):
                return segment[6:]
    return b""


def read_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """As `read_image`, of a file that shows something: where pixels are numbers of a palette's colours (PNG, BMP) the
    colours uint8 (H, W, 3), or (H, W) where these are greys; of a grey PNG with opacity the grey (H, W).

    A JPEG that the camera stored lying or mirrored (`orientation`) is turned to how viewers show it, and masks are
    drawn. A TIFF's palette stays unread: microscopes' programs colour measured values by it. Raises UserError.
    """
    pixels = read_image(path)
    kind = kind_of(path)
    if kind == "jpeg":
        return np.ascontiguousarray(_UPRIGHT[orientation(path)](pixels))
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
