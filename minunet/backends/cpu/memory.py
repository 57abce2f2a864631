"""A buffer pool: arrays whose memory goes back to the pool when the last view of them dies.

A fresh page costs a fault and 4 KiB of zeroing at its first touch, about as long as the arithmetic of a small layer
takes on the same bytes. A training step asks for the same sizes again and again, so blocks are kept and handed out
again. Sizes are rounded up to classes of 8 steps per power of two (at most 1/8 wasted). What the pool holds is bounded:
where a new block would take it beyond a quarter (or SLACK bytes) more than its largest use so far, a larger idle block
serves, and where there is none, the longest idle ones are freed. (U-Net of width 64 at 572 uses 809 MiB at most; so it
holds 1060 MiB and allocates nothing after the second step. Without reuse of larger blocks it would allocate 826 MiB
anew in every step, or have to hold 1334 MiB.)
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from math import prod

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
_SMALLEST = 1024
SLACK = 64 << 20  # bytes that may always lie idle
FIT = 4  # how many times too large a block may be


def size_class(nbytes: int) -> int:
    """Bytes of the block that serves a request: the next of 8 steps per power of two; 1100 -> 1152."""
    nbytes = max(nbytes, _SMALLEST)
    step = 1 << (nbytes.bit_length() - 4)  # 1/8 of the power of two below nbytes
    return (nbytes + step - 1) // step * step


class _Owner:
    """The base of an array from the pool; NumPy's views keep it alive, its death returns the block."""

    __slots__ = ("__array_interface__", "__weakref__", "_block", "_returned")

    def __init__(self, block: np.ndarray, start: int, shape: tuple[int, ...], dtype: np.dtype, returned: deque):
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": dtype.str, "data": (start, False), "strides": None
        }  # fmt: skip
        self._block = block
        self._returned = returned

    def __del__(self):
        # A deque is thread-safe without a lock, which the garbage collector could find held by this very thread.
        self._returned.append(self._block)


class Pool:
    """Blocks by size class; `empty` takes one, the death of the array gives it back."""

    def __init__(self):
        self._lock = threading.Lock()
        self._returned: deque[np.ndarray] = deque()
        self._idle: dict[int, list[tuple[int, np.ndarray]]] = {}  # class -> [(time of return, block)]
        self._clock = 0
        self._idle_bytes = self._live_bytes = self._peak_bytes = 0
        self._hits = self._misses = 0

    def empty(self, shape: int | Sequence[int], dtype: np.dtype | type = np.float32) -> np.ndarray:
        """Uninitialised C-contiguous array, 64-byte aligned, from the pool."""
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        dtype = np.dtype(dtype)
        size = size_class(prod(shape) * dtype.itemsize)
        block = self._take(size)
        start = block.__array_interface__["data"][0]
        start += -start % ALIGNMENT
        return np.asarray(_Owner(block, start, shape, dtype, self._returned))

    def _take(self, size: int) -> np.ndarray:
        with self._lock:
            self._collect()
            found = self._fitting(size)
            self._live_bytes += found or size
            self._peak_bytes = max(self._peak_bytes, self._live_bytes)
            if found:
                self._hits += 1
                self._idle_bytes -= found
                return self._idle[found].pop()[1]
            self._misses += 1
            self._evict(self._bound(self._peak_bytes) - self._live_bytes)
        try:
            return np.empty(size + ALIGNMENT, np.uint8)
        except MemoryError:
            self.clear()
        try:
            return np.empty(size + ALIGNMENT, np.uint8)
        except MemoryError:
            with self._lock:
                self._live_bytes -= size
            raise

    def _fitting(self, size: int) -> int | None:
        """The class of the idle block to use: its own, or where memory is short the next larger that there is."""
        if self._idle.get(size):
            return size
        held = self._live_bytes + self._idle_bytes + size
        if held <= self._bound(max(self._peak_bytes, self._live_bytes + size)):
            return None
        return min((s for s, blocks in self._idle.items() if blocks and size < s <= FIT * size), default=None)

    @staticmethod
    def _bound(peak: int) -> int:
        """Bytes that may be held where `peak` have been in use at once."""
        return peak + max(peak // 4, SLACK)

    def _collect(self) -> None:
        """Move returned blocks to the idle lists."""
        while self._returned:
            block = self._returned.popleft()
            size = block.nbytes - ALIGNMENT
            self._clock += 1
            self._idle.setdefault(size, []).append((self._clock, block))
            self._idle_bytes += size
            self._live_bytes -= size

    def _evict(self, allowed: int) -> None:
        """Free the longest idle blocks until at most `allowed` bytes lie idle."""
        while self._idle_bytes > allowed:
            size = min((s for s in self._idle if self._idle[s]), key=lambda s: self._idle[s][0][0])
            self._idle[size].pop(0)
            self._idle_bytes -= size

    def clear(self) -> None:
        """Free every idle block and forget the peak."""
        with self._lock:
            self._collect()
            self._idle.clear()
            self._idle_bytes = 0
            self._peak_bytes = self._live_bytes

    def stats(self) -> dict[str, int]:
        """live, idle, held = live + idle and peak (of live) in bytes; hits and misses of `empty`."""
        with self._lock:
            self._collect()
            return {
                "live": self._live_bytes,
                "idle": self._idle_bytes,
                "held": self._live_bytes + self._idle_bytes,
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
