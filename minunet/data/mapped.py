"""Image files larger than memory: mapped where they lie uncompressed, unpacked to the disk where they do not."""

from __future__ import annotations

import math
import mmap
import os
import shutil
from pathlib import Path

import numpy as np

from minunet.data import images
from minunet.data.decoders import quiet_tifffile
from minunet.data.picture import read_picture
from minunet.data.tiffwalk import largest
from minunet.errors import UserError

UNPACK = 256 << 20  # bytes of a compressed image that are decoded in memory; above that, into a file


def open_image(path: str | os.PathLike[str], scratch: str | os.PathLike[str] | None = None) -> np.ndarray:
    """As `read_picture`, but of an uncompressed TIFF or .npy only what is looked at is read: a read-only np.memmap
    of any size, of the file's byte order.

    A compressed TIFF above UNPACK bytes is unpacked, a strip or tile at a time, into a file without a name in the
    folder `scratch` (None: the system's), which is gone when the array is. Raises UserError as `read_picture` does, and
    where that file has no room.
    """
    kind = images.kind_of(path)
    if kind not in ("npy", "tiff"):
        return read_picture(path)
    try:
        pixels = _npy(path) if kind == "npy" else _tiff(path, scratch)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # as in read_image
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read as {kind.upper()}, it is cut short or damaged ({reason}); copy or export it again"
        ) from error
    if pixels is None:
        return images.read_image(path)
    images._check_shape(path, pixels.shape)
    return pixels


def is_mapped(pixels: np.ndarray) -> bool:
    """Whether an array shows a file, and is not in memory."""
    return _map(pixels) is not None


def forget(pixels: np.ndarray) -> None:
    """Let the system take back the memory that reading a mapped image has filled; it reads again what is needed."""
    held = _map(pixels)
    if held is not None and hasattr(mmap, "MADV_DONTNEED"):
        held.madvise(mmap.MADV_DONTNEED)


def _map(pixels: np.ndarray) -> mmap.mmap | None:
    """The map that an array, or what it is a view of, shows."""
    while isinstance(pixels, np.ndarray):
        if isinstance(pixels, np.memmap) and pixels._mmap is not None:
            return pixels._mmap
        pixels = pixels.base
    return None


def _npy(path: str | os.PathLike[str]) -> np.ndarray | None:
    with np.errstate(over="raise"):  # of declared sizes
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    kept = _numbers(path, pixels.dtype) and pixels.flags.c_contiguous
    return images.without_single_axes(pixels) if kept else None


def _tiff(path: str | os.PathLike[str], scratch: str | os.PathLike[str] | None) -> np.ndarray | None:
    """The pixels; None where reading all of them at once is as good."""
    import tifffile

    most = largest(path)
    with quiet_tifffile() as complaints, tifffile.TiffFile(os.fspath(path), is_ome=False) as tif:
        if len(tif.series) != 1 or complaints:
            return None  # read_image says what is wrong
        series = tif.series[0]
        shape, dtype, start = series.shape, np.dtype(series.dtype), series.dataoffset
        if not _numbers(path, dtype) or 0 in shape:
            return None
        if series.keyframe.photometric == tifffile.PHOTOMETRIC.SEPARATED:
            return None  # as above
        nbytes = math.prod(shape) * dtype.itemsize
        if start is not None:
            if start + nbytes > os.path.getsize(path):
                raise ValueError(f"{os.path.getsize(path)} of {start + nbytes} bytes")
            pixels = np.memmap(path, dtype.newbyteorder(tif.byteorder), "r", start, shape)
        elif nbytes <= UNPACK or nbytes > most:
            return None
        else:
            pixels = _unpacked(path, series, nbytes, scratch)
        if complaints:
            raise ValueError(complaints[0])
        axes = series.axes
    return images.colours_last(pixels, axes)


def _unpacked(path: str | os.PathLike[str], series, nbytes: int, scratch) -> np.ndarray:
    where = Path(scratch) if scratch is not None else None
    free = shutil.disk_usage(where or os.curdir).free
    if nbytes > free:
        raise UserError(
            f"{path}: unpacks to {nbytes / 2**30:.1f} GiB, and {where or 'the disk'} has {free / 2**30:.1f} GiB free; "
            "make room, or save it uncompressed"
        )
    try:
        return series.asarray(out="memmap" if where is None else f"memmap:{where}", maxworkers=1)
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise UserError(
            f"{path}: is packed in a way that needs the package imagecodecs where it is larger than "
            f"{UNPACK >> 20} MiB; install it, or save the image uncompressed"
        ) from error


def _numbers(path: str | os.PathLike[str], dtype: np.dtype) -> bool:
    if dtype.kind not in "buif":
        raise UserError(f"{path}: its values are {dtype}, not numbers; save it as uint8, uint16 or float32")
    return True
