"""Pixels of a data set that is larger than memory: the first in memory, what comes later in a file without a name."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from minunet.errors import UserError
from minunet.files import cache_folder

KEEP = 1 << 30  # bytes of a data set's unpacked pixels that stay in memory
SEGMENT = 1 << 30  # bytes of the file that are mapped at once: each map holds a file open, and of these there are few
PAGE = 64  # arrays begin at multiples of this

In, Out = TypeVar("In"), TypeVar("Out")


class Shelf:
    """Takes arrays in, and gives each back to keep: itself as long as KEEP bytes are not full, then read-only from a
    file, of which the system holds in memory what has been looked at lately.

    what : the arrays are, for the message about a disk without room

    The file lies in the cache folder and is gone when the last array is, or with the process, however that ends.
    """

    def __init__(self, what: str):
        self.what = what
        self.bytes = 0  # so far
        self._share = 1.0  # of all that will come
        self._file = None
        self._map: np.memmap | None = None
        self._at = 0  # where the next array goes, in the mapped segment
        self._start = 0  # where the segment lies in the file

    def put(self, array: np.ndarray, share: float = 1.0) -> np.ndarray:
        """The array, or the same in the file. Raises UserError where the disk is full.

        share : how much of all arrays is here with this one, 0 < share <= 1: a disk without room for the rest is
            noticed at the first that goes there
        """
        self._share = share
        self.bytes += array.nbytes
        if self.bytes <= KEEP:
            return array
        try:
            return self._on_disk(np.ascontiguousarray(array))
        except OSError as error:
            raise self._no_room(error.strerror or str(error)) from error

    def _on_disk(self, array: np.ndarray) -> np.ndarray:
        if self._file is None:
            self._open()
        if self._map is None or self._at + array.nbytes > self._map.size:
            self._start += 0 if self._map is None else self._map.size
            size = max(SEGMENT, -(-array.nbytes // SEGMENT) * SEGMENT)
            self._file.truncate(self._start + size)  # takes no room before it is written
            self._map, self._at = np.memmap(self._file, np.uint8, "r", self._start, size), 0
        # Written as bytes: a full disk is an error then, where a map would end the process.
        self._file.seek(self._start + self._at)
        view = memoryview(array.reshape(-1)).cast("B")
        while view:
            view = view[self._file.write(view) :]
        kept = self._map[self._at : self._at + array.nbytes].view(np.ndarray).view(array.dtype).reshape(array.shape)
        self._at += -(-array.nbytes // PAGE) * PAGE
        return kept

    def _open(self) -> None:
        folder = self._folder()
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if self.bytes / self._share - KEEP > free:
            raise self._no_room(f"{free / 2**30:.1f} GiB are free")
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 the maps live on

    def _folder(self) -> Path:
        return cache_folder() / "unpacked"

    def _no_room(self, reason: str) -> UserError:
        total = self.bytes / self._share / 2**30
        return UserError(
            f"{self._folder()}: {self.what} take about {total:.1f} GiB unpacked, and {reason}; make room, set "
            "MINUNET_CACHE to a folder on another disk, or bring them to a smaller size with --size"
        )


def in_order(work: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """`map` by several threads (decoders leave Python's lock free) that keep just ahead of who takes the results."""
    threads = min(os.cpu_count() or 1, 8)  # of large photographs not more should be in memory at a time
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
