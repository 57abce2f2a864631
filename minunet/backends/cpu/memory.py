"""A buffer pool: arrays whose memory goes back to the pool when the last view of them dies.

A fresh page costs a fault and 4 KiB of zeroing at its first touch, about as long as the arithmetic of a small layer
takes on the same bytes. A training step asks for the same sizes again and again, so memory is kept and handed out
again: arrays are cut from the stretches of `arena.py`, and small ones (up to SMALL bytes) are blocks of sizes rounded
up to 8 steps per power of two. Arrays from LARGE bytes have stretches of their own, where nothing small that lives
longer can settle in their gaps. Those up to TINY bytes, numbers for each channel, are not the pool's business: the C
library has them at hand in a tenth of the time, and a step asks for hundreds. What lies idle is bounded: where a new
array would take the pool beyond a quarter (or SLACK bytes) more than its largest use so far, idle pages are handed back
to the system.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from minunet.backends.cpu.arena import REGION, Region, round_up

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
TINY = 1 << 12  # bytes up to which an array comes from the C library
SMALL = 1 << 16  # bytes up to which an array is a block of its own
LARGE = 2 << 20  # bytes from which arrays keep to themselves
SLACK = 64 << 20  # bytes that may always lie idle


def size_class(nbytes: int) -> int:
    """Bytes of the block that serves a small request: the next of 8 steps per power of two; 1100 -> 1152."""
    step = 1 << (nbytes.bit_length() - 4)  # 1/8 of the power of two below nbytes
    return (nbytes + step - 1) // step * step


class _Owner:
    """The base of an array from the pool; NumPy's views keep it alive, its death returns the place.

    place : (region, offset, bytes) of a large array, (None, block, bytes) of a small one
    """

    __slots__ = ("__array_interface__", "__weakref__", "_place", "_returned")

    def __init__(self, start: int, place: tuple, shape: tuple[int, ...], dtype: np.dtype, returned: deque):
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": dtype.str, "data": (start, False), "strides": None
        }  # fmt: skip
        self._place = place
        self._returned = returned

    def __del__(self):
        # A deque is thread-safe without a lock, which the garbage collector could find held by this very thread.
        self._returned.append(self._place)


class Pool:
    """`empty` takes memory, the death of the array gives it back."""

    def __init__(self):
        self._lock = threading.Lock()
        self._returned: deque[tuple] = deque()
        self._stretches: tuple[list[Region], list[Region]] = ([], [])  # for arrays below LARGE bytes, and above
        self._blocks: dict[int, list[np.ndarray]] = {}  # idle small ones, by class
        self._small_bytes = 0  # of all small blocks, idle or not
        self._live_bytes = self._peak_bytes = 0
        self._hits = self._misses = 0

    def empty(self, shape: int | Sequence[int], dtype: np.dtype | type = np.float32) -> np.ndarray:
        """Uninitialised C-contiguous array from the pool, 64-byte aligned unless tiny. Raises MemoryError."""
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        dtype = np.dtype(dtype)
        nbytes = prod(shape) * dtype.itemsize
        if nbytes <= TINY:
            return np.empty(shape, dtype)
        with self._lock:
            self._collect()
            start, place = self._small(size_class(nbytes)) if nbytes <= SMALL else self._large(round_up(nbytes))
            self._live_bytes += place[2]
            self._peak_bytes = max(self._peak_bytes, self._live_bytes)
        return np.asarray(_Owner(start, place, shape, dtype, self._returned))

    def _small(self, size: int) -> tuple[int, tuple[Any, ...]]:
        idle = self._blocks.setdefault(size, [])
        if idle:
            self._hits += 1
            block = idle.pop()
        else:
            self._misses += 1
            self._small_bytes += size
            block = np.empty(size + ALIGNMENT, np.uint8)
        start = block.__array_interface__["data"][0]
        return start + -start % ALIGNMENT, (None, block, size)

    def _large(self, nbytes: int) -> tuple[int, tuple[Any, ...]]:
        regions = self._stretches[nbytes >= LARGE]
        for region in regions:
            touched = region.touched
            offset = region.take(nbytes)
            if offset is not None:
                break
        else:
            region, touched = self._grow(nbytes), 0
            regions.append(region)
            offset = region.take(nbytes)
        self._hits += region.touched == touched
        self._misses += region.touched > touched
        most = max(self._peak_bytes, self._live_bytes + nbytes)
        if region.touched > touched and self._held() > most + max(most // 4, SLACK):
            for each in self._regions():
                each.cool()
        return region.start + offset, (region, offset, nbytes)

    def _grow(self, nbytes: int) -> Region:
        """A new stretch; a small one where the system refuses a large one, and after that without what lies idle."""
        for size, release in ((max(nbytes, REGION), False), (nbytes, False), (nbytes, True)):
            if release:
                self._release()
            try:
                region = Region(size)
                break
            except (OSError, MemoryError):
                continue
        else:
            raise MemoryError(f"no room for an array of {nbytes} bytes; {self._live_bytes} are in use")
        return region

    def _regions(self) -> list[Region]:
        return [region for regions in self._stretches for region in regions]

    def _collect(self) -> None:
        """Take back what has died."""
        while self._returned:
            region, where, size = self._returned.popleft()
            self._live_bytes -= size
            if region is None:
                self._blocks[size].append(where)
            else:
                region.give(where, size)

    def _held(self) -> int:
        return self._small_bytes + sum(region.touched - region.cold for region in self._regions())

    def _release(self) -> None:
        self._small_bytes -= sum(size * len(blocks) for size, blocks in self._blocks.items())
        for blocks in self._blocks.values():
            blocks.clear()
        for regions in self._stretches:
            regions[:] = [region for region in regions if not region.empty()]
        for region in self._regions():
            region.cool()

    def clear(self) -> None:
        """Hand back all that lies idle, and forget the peak."""
        with self._lock:
            self._collect()
            self._release()
            self._peak_bytes = self._live_bytes

    def stats(self) -> dict[str, int]:
        """live, held (live and idle) and peak (of live) in bytes; hits and misses of `empty`: without and with
        memory that had not been used before.
        """
        with self._lock:
            self._collect()
            held = self._held()
            return {
                "live": self._live_bytes,
                "idle": held - self._live_bytes,
                "held": held,
                "peak": self._peak_bytes,
                "hits": self._hits,
                "misses": self._misses,
            }


_pool = Pool()
empty = _pool.empty
clear = _pool.clear
stats = _pool.stats


def scratch(nbytes: int) -> np.ndarray:
    """Work space of `nbytes` bytes (uint8), given back when the array dies."""
    return _pool.empty((nbytes,), np.uint8)
