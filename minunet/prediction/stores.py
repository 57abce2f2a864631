"""Result files that are written tile by tile: TIFF, .npy, Zarr, and PNG at the end. Unfinished, they are called
NAME.partial.tif and so on, which other programs open too; finished, they take their names in one step.

Tiles are written as bytes at their places, not through a memory map: a full disk is then an error with a line, where
a map would end the process. The room for a whole file is taken before the first tile is computed.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from minunet.data.images import write_png
from minunet.errors import UserError, reason, remedy

ENDINGS = {"png": ".png", "tiff": ".tif", "npy": ".npy", "zarr": ".zarr"}
CHUNK = 512  # rows and columns of a Zarr chunk


class RowStore:
    """Sections (S, H, W) or (S, H, W, 3) of one dtype in a file whose numbers lie row after row behind a header: TIFF,
    .npy, and a PNG until it is finished.

    single : the file is an image (H, W), not a stack of one
    resume : go on with the unfinished file, if it is there
    """

    def __init__(self, path: Path, kind: str, shape: tuple[int, ...], dtype: Any, single: bool, resume: bool):
        self.path, self.kind, self.shape, self.dtype = path, kind, tuple(map(int, shape)), np.dtype(dtype)
        self.partial = unfinished(path, kind)
        self._pixel = self.dtype.itemsize * math.prod(self.shape[3:])
        if not (resume and self.partial.exists()):
            self._create(self.shape[1:] if single else self.shape)
        self._start = self._first_byte()
        self._file = self.partial.open("rb+", buffering=0)

    def _create(self, shape: tuple[int, ...]) -> None:
        nbytes = math.prod(self.shape) * self.dtype.itemsize
        free = shutil.disk_usage(self.path.parent).free
        if nbytes > free:
            words = f"{os.strerror(errno.ENOSPC)}: {nbytes >> 10} KiB are needed, {free >> 10} are free"
            raise OSError(errno.ENOSPC, words)
        if self.kind == "npy":
            with self.partial.open("wb") as file:
                header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                file.truncate(file.tell() + nbytes)
        else:
            import tifffile

            photometric = "rgb" if len(self.shape) == 4 else "minisblack"
            tifffile.imwrite(self.partial, shape=shape, dtype=self.dtype, photometric=photometric, metadata=None)
        if hasattr(os, "posix_fallocate"):
            with self.partial.open("rb+") as file:
                _reserve(file.fileno(), os.path.getsize(self.partial))

    def _first_byte(self) -> int:
        if self.kind == "npy":
            return os.path.getsize(self.partial) - math.prod(self.shape) * self.dtype.itemsize
        import tifffile

        with tifffile.TiffFile(self.partial) as tif:
            return tif.series[0].dataoffset

    def write(self, s: int, top: int, left: int, block: np.ndarray) -> None:
        """Put a block (h, w) or (h, w, 3) of section s into its place. Raises OSError where the disk refuses."""
        block = np.ascontiguousarray(block, self.dtype)
        if block.shape[1] == self.shape[2]:  # whole rows: one piece
            block = block.reshape(1, -1, *block.shape[2:])
        for i, row in enumerate(block):
            self._file.seek(self._at(s, top + i, left))
            _write(self._file, row)

    def rows(self, s: int, top: int, bottom: int) -> np.ndarray:
        """Rows top .. bottom - 1 of section s."""
        shape = (bottom - top, *self.shape[2:])
        self._file.seek(self._at(s, top, 0))
        data = self._file.read(math.prod(shape) * self.dtype.itemsize)
        return np.frombuffer(data, self.dtype).reshape(shape)

    def _at(self, s: int, i: int, j: int) -> int:
        return self._start + ((s * self.shape[1] + i) * self.shape[2] + j) * self._pixel

    def sync(self) -> None:
        """Bring what was written to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Leave the unfinished file as it is."""
        self._file.close()

    def finish(self) -> None:
        """Give the file its name; a PNG is made now."""
        if self.kind == "png":
            write_png(self.path, self.rows(0, 0, self.shape[1]))
            self.discard()
            return
        self.sync()
        self.close()
        self.partial.replace(self.path)

    def discard(self) -> None:
        """Remove the unfinished file."""
        self.close()
        self.partial.unlink(missing_ok=True)


class ZarrStore:
    """The same as a Zarr array, version 2: a folder of chunks (1, CHUNK, CHUNK), packed by zlib, and a description."""

    def __init__(self, path: Path, kind: str, shape: tuple[int, ...], dtype: Any, single: bool, resume: bool):
        self.path, self.shape, self.dtype, self.single = path, tuple(map(int, shape)), np.dtype(dtype), single
        self.partial = unfinished(path, kind)
        self._fresh: set[Path] = set()  # chunks that may not have reached the disk
        self._chunk = (min(CHUNK, self.shape[1]), min(CHUNK, self.shape[2]), *self.shape[3:])
        if resume and self.partial.exists():
            return
        if self.partial.exists():
            shutil.rmtree(self.partial)
        self.partial.mkdir()
        about = {
            "zarr_format": 2,
            "shape": self.shape[single:],
            "chunks": self._chunk if single else (1, *self._chunk),
            "dtype": self.dtype.str,
            "compressor": {"id": "zlib", "level": 1},
            "fill_value": 0,
            "order": "C",
            "filters": None,
        }
        (self.partial / ".zarray").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    def write(self, s: int, top: int, left: int, block: np.ndarray) -> None:
        """Put a block (h, w) or (h, w, 3) of section s into its place. Raises OSError where the disk refuses."""
        block, (ch, cw) = np.asarray(block, self.dtype), self._chunk[:2]
        bottom, right = top + block.shape[0], left + block.shape[1]
        for i in range(top // ch, -(-bottom // ch)):
            for j in range(left // cw, -(-right // cw)):
                i0, i1 = max(top, i * ch), min(bottom, (i + 1) * ch)
                j0, j1 = max(left, j * cw), min(right, (j + 1) * cw)
                chunk = self._read(s, i, j)
                chunk[i0 - i * ch : i1 - i * ch, j0 - j * cw : j1 - j * cw] = block[
                    i0 - top : i1 - top, j0 - left : j1 - left
                ]
                name = self._name(s, i, j)
                tmp = name.with_name(f".{name.name}.tmp")  # a chunk is whole, whenever the process ends
                tmp.write_bytes(zlib.compress(chunk.tobytes(), 1))
                tmp.replace(name)
                self._fresh.add(name)

    def rows(self, s: int, top: int, bottom: int) -> np.ndarray:
        """Rows top .. bottom - 1 of section s."""
        ch, cw = self._chunk[:2]
        out = np.empty((bottom - top, *self.shape[2:]), self.dtype)
        for i in range(top // ch, -(-bottom // ch)):
            i0, i1 = max(top, i * ch), min(bottom, (i + 1) * ch)
            for j in range(-(-self.shape[2] // cw)):
                width = min(cw, self.shape[2] - j * cw)
                out[i0 - top : i1 - top, j * cw : j * cw + width] = self._read(s, i, j)[
                    i0 - i * ch : i1 - i * ch, :width
                ]
        return out

    def _name(self, s: int, i: int, j: int) -> Path:
        at = [i, j] + [0] * (len(self.shape) - 3)
        return self.partial / ".".join(map(str, at if self.single else [s, *at]))

    def _read(self, s: int, i: int, j: int) -> np.ndarray:
        name = self._name(s, i, j)
        if not name.exists():
            return np.zeros(self._chunk, self.dtype)
        return np.frombuffer(zlib.decompress(name.read_bytes()), self.dtype).reshape(self._chunk).copy()

    def sync(self) -> None:
        """Bring what was written to the disk."""
        for name in self._fresh:
            with name.open("rb") as file:
                os.fsync(file.fileno())
        self._fresh.clear()

    def close(self) -> None:
        """Leave the unfinished folder as it is."""

    def finish(self) -> None:
        """Give the folder its name; one of that name goes."""
        for left_over in self.partial.glob(".*.tmp"):
            left_over.unlink()
        if self.path.is_dir() and (self.path / ".zarray").exists():
            shutil.rmtree(self.path)
        self.partial.replace(self.path)

    def discard(self) -> None:
        """Remove the unfinished folder."""
        shutil.rmtree(self.partial, ignore_errors=True)


Store = RowStore | ZarrStore


def open_store(stem: Path, kind: str, shape: tuple[int, ...], dtype: Any, single: bool, resume: bool = False) -> Store:
    """A store for the result `stem` (a path without ending) as a file of that kind: "png", "tiff", "npy", "zarr".

    Raises UserError where the folder or the disk refuses.
    """
    path = finished(stem, kind)
    if path.exists() and path.is_dir() != (kind == "zarr"):
        raise UserError(f"{path}: cannot be written, since it is {'a folder' if path.is_dir() else 'a file'}; move it")
    try:
        return (ZarrStore if kind == "zarr" else RowStore)(path, kind, shape, dtype, single, resume)
    except OSError as error:
        if not resume and kind != "zarr":
            unfinished(path, kind).unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({reason(error)}){remedy(error)}") from error


def finished(stem: Path, kind: str) -> Path:
    """The file that the result `stem` (a path without ending) becomes."""
    return Path(f"{stem}{ENDINGS[kind]}")


def unfinished(path: Path, kind: str) -> Path:
    """What a result is called until it is whole: a_mask.partial.tif for a_mask.tif and a_mask.png"""
    return path.with_name(f"{path.stem}.partial{ENDINGS['tiff' if kind == 'png' else kind]}")


def _reserve(handle: int, nbytes: int) -> None:
    """Take the room on the disk now. Raises OSError where there is none; not every file system can promise."""
    try:
        os.posix_fallocate(handle, 0, nbytes)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _write(file: Any, data: np.ndarray) -> None:
    """All bytes of a contiguous array; the system may take them in parts."""
    view = memoryview(data).cast("B")
    while view:
        view = view[file.write(view) :]
