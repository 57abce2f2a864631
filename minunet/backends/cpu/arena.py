"""Memory for large arrays: stretches of address space, cut where a request fits tightest.

A training step allocates its activations one after the other, frees them in the reverse order, and takes work space in
between. Blocks of fixed sizes fit each other badly; neighbours that are joined when they are given back fit anything.
Of U-Net's width-64 step 663 MiB at most are in use at once; 706 are held where a request takes the tightest part that
has been used before, 785 where it takes the lowest. A page is the system's until it is first written, so that a large
stretch costs nothing but addresses.
"""

from __future__ import annotations

import mmap
import sys
from bisect import bisect_left

import numpy as np

PAGE = mmap.PAGESIZE
REGION = 1 << (30 if sys.maxsize > 1 << 32 else 26)  # bytes of a stretch


class Region:
    """One stretch. `free` lists its free parts [offset, length], ascending, no two of them in touch.

    touched : bytes from the beginning that have been handed out at some time: all that can be resident
    cold : of these, how many were handed back to the system, and not taken since
    """

    def __init__(self, nbytes: int):
        nbytes = round_up(nbytes)
        if hasattr(mmap, "MAP_ANONYMOUS"):
            self._map = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_HUGEPAGE"):  # fewer faults and fewer misses of the address cache, where allowed
                self._advise(mmap.MADV_HUGEPAGE, 0, nbytes)
            buffer = np.frombuffer(self._map, np.uint8)
        else:
            self._map, buffer = None, np.empty(nbytes, np.uint8)
        self.start = buffer.ctypes.data
        self._buffer = buffer
        self.nbytes = nbytes
        self.free = [[0, nbytes]]
        self.touched = self.cold = 0

    def take(self, nbytes: int) -> int | None:
        """The offset of `nbytes` bytes (a multiple of PAGE); None where there is no such place.

        Of the parts that have been used before the smallest that is large enough, the lower of two; else fresh pages.
        """
        fitting = [(length, offset) for offset, length in self.free if length >= nbytes]
        if not fitting:
            return None
        used = [part for part in fitting if sum(part) <= self.touched]
        length, offset = min(used) if used else min(fitting, key=lambda part: part[1])
        k = bisect_left(self.free, [offset])
        if length == nbytes:
            del self.free[k]
        else:
            self.free[k] = [offset + nbytes, length - nbytes]
        self.touched = max(self.touched, offset + nbytes)
        self.cold = max(self.cold - nbytes, 0)  # at least: where the cold parts lie is not kept
        return offset

    def give(self, offset: int, nbytes: int) -> None:
        """Return a part, joined to its free neighbours."""
        k = bisect_left(self.free, [offset])
        if k < len(self.free) and self.free[k][0] == offset + nbytes:
            nbytes += self.free.pop(k)[1]
        if k > 0 and sum(self.free[k - 1]) == offset:
            self.free[k - 1][1] += nbytes
        else:
            self.free.insert(k, [offset, nbytes])

    def cool(self) -> None:
        """Hand the pages of the free parts back to the system; they come back, zeroed, when they are written."""
        if self._map is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        for offset, length in self.free:
            if offset < self.touched:
                self._advise(mmap.MADV_DONTNEED, offset, length)
        if self.free and sum(self.free[-1]) == self.nbytes:
            self.touched = min(self.touched, self.free[-1][0])
        self.cold = sum(length for offset, length in self.free if offset < self.touched)

    def empty(self) -> bool:
        """Whether nothing is in use."""
        return self.free == [[0, self.nbytes]]

    def _advise(self, advice: int, offset: int, length: int) -> None:
        try:
            self._map.madvise(advice, offset, length)
        except OSError:  # a kernel without it; advice is no order
            return


def round_up(nbytes: int) -> int:
    """The next multiple of PAGE."""
    return -(-nbytes // PAGE) * PAGE
