"""The image files of a folder, told by their names."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from minunet.errors import UserError

ENDINGS = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".npy"))
OTHERS = frozenset((
    ".avif", ".czi", ".dcm", ".dm3", ".dm4", ".exr", ".gif", ".h5", ".hdf5", ".heic", ".ims", ".jp2", ".jxl",
    ".lif", ".lsm", ".mrc", ".nd2", ".nii", ".npz", ".nrrd", ".oib", ".oif", ".pbm", ".pgm", ".ppm", ".svs", ".tga",
    ".vsi", ".webp", ".zarr"
))  # fmt: skip


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The image files of `folder`, told by their endings, hidden ones left out; 2.png comes before 10.png."""
    root = Path(folder)
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        raise UserError(f"{folder}: {what}; name the folder that holds the images")
    found = [p for p in root.iterdir() if p.suffix.lower() in ENDINGS and not p.name.startswith(".")]
    return sorted((p for p in found if not p.is_dir()), key=lambda p: _natural(p.name))


def unreadable(folder: str | os.PathLike[str]) -> str:
    """What to say of a folder's files whose endings are those of images that cannot be read here; "" without any."""
    endings = Counter(p.suffix.lower() for p in Path(folder).iterdir() if not p.name.startswith("."))
    kinds = ", ".join(f"{endings[e]} {e}" for e in sorted(endings) if e in OTHERS)
    return f"{folder}: left out, as it cannot be read here: {kinds}; export it as PNG or TIFF" if kinds else ""


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key in which 2.png comes before 10.png."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p), "") if i % 2 else (1, 0, p) for i, p in enumerate(parts)]
