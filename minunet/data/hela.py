"""Cells of the Cell Tracking Challenge that the U-Net paper segmented: DIC-C2DH-HeLa and PhC-C2DH-U373.

    01/t000.tif ...            frames of sequence 01        (.tif or .png)
    01_GT/SEG/man_seg000.tif   gold: instances drawn by experts, for some frames
    01_ST/SEG/man_seg000.tif   silver: fused from computed results, for all frames     (or 01_ST_SEG/, 01_GT_SEG/)
    01_GT/TRA/man_track000.tif gold: a marker in every cell

M. Maska et al., "The Cell Tracking Challenge: 10 years of objective benchmarking", Nature Methods 20, 2023;
V. Ulman et al., Nature Methods 14, 2017. The challenge offers the data for research and asks for these to be cited:
it is not part of this project.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minunet.data.dataset import IGNORE, Dataset
from minunet.data.download import pixels_sha256
from minunet.data.fetch import fetch, unpack
from minunet.data.images import list_images, read_image
from minunet.data.mixed import gather
from minunet.data.separate import separate
from minunet.errors import UserError
from minunet.files import cache_folder

NAMES = {"hela": "DIC-C2DH-HeLa", "u373": "PhC-C2DH-U373"}
ADDRESS = "https://data.celltrackingchallenge.net/training-datasets/{}.zip"
SHA256 = {
    "hela": "832fed2d05bb7488cf9c51a2994b75f8f3f53b3c3098856211f2d39023c34e1a",
    "u373": "b18185c18fce54e8eeb93e4bbb9b201d757add9409bbf2283b8114185a11bc9e",
}
MAX_ARCHIVE_BYTES, MAX_BYTES = 512 << 20, 2 << 30
HELD_OUT = 0.2  # share of each sequence, its last frames: neighbours in time are near copies


class _Frame(NamedTuple):
    name: str  # 01/t012
    image: Path
    segments: Path
    markers: Path | None


def load_hela(data_dir: str | os.PathLike[str] | None = None, name: str = "hela") -> Dataset:
    """All frames with a segmentation, of all sequences; gold segmentations where there are any, else silver ones.

    name     : "hela" (DIC-C2DH-HeLa) or "u373" (PhC-C2DH-U373)
    data_dir : the folder that holds 01, or a folder with the data set's (dic-c2dh-hela, DIC-C2DH-HeLa, ...) in it;
               None: looked for in the environment variable MINUNET_DATA, then in the user's cache

    Labels are 1 in cells and 0 elsewhere and along the border between touching cells (`separate`); a tracking marker
    outside all segments is a cell whose outline nobody knows, and IGNORE. `instances` are the challenge's cells as they
    are, for the SEG measure. parts: the last fifth of each sequence's frames is held out. Raises UserError.
    """
    folder = _folder(data_dir, name)
    sequences = sorted(p for p in folder.iterdir() if re.fullmatch(r"\d\d", p.name) and p.is_dir())
    frames = [_frames(s) for s in sequences]
    if not any(frames):
        raise UserError(
            f"{folder}: no frame has a segmentation (01_GT/SEG or 01_ST/SEG, man_segNNN.tif); copy them there"
        )
    flat = [f for sequence in frames for f in sequence]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = list(pool.map(_read, flat))
    images, instances, labels = zip(*read)
    train, held_out, first = [], [], 0
    for sequence in frames:
        n = len(sequence)
        kept = n - (max(1, round(n * HELD_OUT)) if n > 1 else 0)
        train += range(first, first + kept)
        held_out += range(first + kept, first + n)
        first += n
    if not held_out:
        raise UserError(f"{folder}: has one frame a sequence, too few to hold any out; bring whole sequences")
    gold = sum("_GT" in str(f.segments.relative_to(folder)) for f in flat)
    kinds = f"{gold} gold and {len(flat) - gold} silver segmentations"
    return Dataset(
        images=gather(images),
        labels=gather(labels),
        name=name,
        synthetic=False,
        source=f"{NAMES[name]}, {len(flat)} frames ({kinds}) in {folder}; the last fifth of the frames is held out",
        sha256=pixels_sha256(*images, *instances),
        classes=("background", "cell"),
        scored="instances",
        parts={"train": np.array(train), "val": np.array(held_out)},
        names=tuple(f.name for f in flat),
        table={"kind": "instances", "type": "uint16", "map": [[0, 0]], "classes": ["background", "cell"]},
        instances=gather(instances),
    )


def download_hela(name: str = "hela") -> tuple[Path, str]:
    """Fetch the data set into the user's cache; (its folder, the address it came from). Raises DownloadError."""
    folder, address = cache_folder() / NAMES[name], ADDRESS.format(NAMES[name])
    archive = folder.with_name(f"{folder.name}.zip")
    fetch(address, archive, SHA256[name], MAX_ARCHIVE_BYTES)
    unpack(archive, folder, MAX_BYTES)
    archive.unlink()
    return folder, address


def _folder(data_dir: str | os.PathLike[str] | None, name: str) -> Path:
    """The folder that holds 01/ (or 02/)."""
    title = NAMES[name]
    how = f"fetch it by `minunet data download {name}`, or unpack {ADDRESS.format(title)} and name its folder"
    if data_dir is not None:
        found = _find(Path(data_dir), title)
        if found is None:
            what = "has no" if Path(data_dir).is_dir() else "no such folder; it is to hold"
            raise UserError(f"{data_dir}: {what} 01 (looked there and in {title}); {how}")
        return found
    own = os.environ.get("MINUNET_DATA")
    if own and not Path(own).is_dir():
        raise UserError(f"MINUNET_DATA={own}: no such folder; correct the environment variable, or unset it")
    for place in ([Path(own)] if own else []) + [cache_folder()]:
        if (found := _find(place, title, named=True)) is not None:
            return found
    raise UserError(f"{title}: not found on this machine; {how}")


def _find(folder: Path, title: str, named: bool = False) -> Path | None:
    """The folder itself (unless it must be `named` after the data set), or the one in it, that holds 01 or 02."""
    places = [folder / title, folder / title.lower()] if named else [folder, folder / title, folder / title.lower()]
    return next((p for p in places if (p / "01").is_dir() or (p / "02").is_dir()), None)


def _frames(sequence: Path) -> list[_Frame]:
    """The frames of a sequence that have a segmentation, in the order of their numbers."""
    found = []
    kinds = (("GT", "SEG"), ("ST", "SEG"), ("GT", "TRA"))
    gold, silver, markers = ({_number(p): p for p in _images(sequence, *kind)} for kind in kinds)
    for image in list_images(sequence):
        k = _number(image)
        segments = gold.get(k) or silver.get(k)
        if k is not None and segments is not None:
            found.append(_Frame(f"{sequence.name}/{image.stem}", image, segments, markers.get(k)))
    return found


def _images(sequence: Path, truth: str, kind: str) -> list[Path]:
    """The files of 01_GT/SEG, or of 01_GT_SEG."""
    places = (
        sequence.with_name(f"{sequence.name}_{truth}") / kind,
        sequence.with_name(f"{sequence.name}_{truth}_{kind}"),
    )
    return next((list_images(p) for p in places if p.is_dir()), [])


def _number(path: Path) -> int | None:
    """The frame's number: the last digits of its name."""
    digits = re.search(r"(\d{1,9})$", path.stem)
    return int(digits[1]) if digits else None


def _read(frame: _Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (H, W), instances int32 (H, W), labels uint8 (H, W)."""
    image, segments = read_image(frame.image), read_image(frame.segments)
    markers = None if frame.markers is None else read_image(frame.markers)
    if image.ndim != 2:
        raise UserError(f"{frame.image}: has the shape {image.shape}; a frame is one grey image (H, W)")
    for path, array in ((frame.segments, segments), (frame.markers, markers)):
        if array is not None and (array.shape != image.shape or array.dtype.kind not in "bu"):
            raise UserError(
                f"{path}: {array.dtype} {array.shape} does not fit the frame {frame.image} of {image.shape}; it must "
                "hold one cell number a pixel"
            )
    if segments.dtype.itemsize > 2:
        raise UserError(f"{frame.segments}: holds {segments.dtype}, and the challenge's cell numbers have 16 bits")
    instances = segments.astype(np.int32)
    labels = separate(instances)
    if markers is not None:
        unknown = (markers > 0) & ~np.isin(markers, np.unique(markers[instances > 0])) & (instances == 0)
        labels[unknown] = IGNORE
    return image, instances, labels
