"""Colour PNGs of 16 bits a channel, which Pillow would cut to 8: the format's own steps, of bounded size.

A file is a list of chunks (length, type, bytes, CRC). Those called IDAT are one zlib stream of rows, each a filter's
number and the bytes that are left of the row when what the filter foretells from its neighbours is taken away.
(Portable Network Graphics, third edition, W3C 2025: sections 5 chunks, 7.3 filters, 8 interlacing.)
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from minunet.jit import njit

CHANNELS = {2: 3, 4: 2, 6: 4}  # by colour type: red green blue, grey and opacity, red green blue opacity
BLOCK = 1 << 20  # bytes of a chunk that are looked at in one go
_SIGNATURE = 8
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def read_colour16(path: str | os.PathLike[str], shape: tuple[int, int, int], interlaced: bool) -> np.ndarray:
    """The pixels of a PNG of 16 bits whose header declares `shape` (H, W, C): uint16 (H, W, C).

    The caller has checked that so many pixels may be taken memory for. Raises ValueError with the reason for a
    damaged file.
    """
    H, W, C = shape
    steps = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    passes = [
        (i, j, di, dj, -(-(H - i) // di), -(-(W - j) // dj)) for i, j, di, dj in steps
    ]  # top, left, steps, (h, w)
    passes = [p for p in passes if p[4] > 0 and p[5] > 0]
    pixel = 2 * C
    packed = _inflated(path, sum(h * (1 + w * pixel) for *_, h, w in passes))
    out = np.empty(shape, np.uint16)
    start = 0
    for i, j, di, dj, h, w in passes:
        rows = packed[start : start + h * (1 + w * pixel)].reshape(h, 1 + w * pixel)
        start += rows.size
        wrong = _unfilter(rows, pixel)
        if wrong >= 0:
            raise ValueError(f"a row has the filter {wrong}, and PNG has 0 to 4")
        out[i::di, j::dj] = np.ascontiguousarray(rows[:, 1:]).view(">u2").reshape(h, w, C)
    return out


def _inflated(path: str | os.PathLike[str], size: int) -> np.ndarray:
    """The first `size` bytes of the IDAT chunks' stream, uint8."""
    out, have = np.empty(size, np.uint8), 0
    stream = zlib.decompressobj()
    for block in _idat(path):
        if have < size:  # what follows the last row is not unpacked, but the chunk's checksum stands after it
            part = stream.decompress(block, size - have)
            out[have : have + len(part)] = np.frombuffer(part, np.uint8)
            have += len(part)
    if have < size:
        raise ValueError(f"its rows end after {have} of {size} bytes")
    return out


def _idat(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The IDAT chunks' bytes, in blocks. Raises ValueError for a wrong checksum."""
    with open(path, "rb") as file:
        file.seek(_SIGNATURE)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"IEND":
                return
            if kind != b"IDAT":
                file.seek(length + 4, os.SEEK_CUR)
                continue
            crc = zlib.crc32(kind)
            while length and (block := file.read(min(length, BLOCK))):
                length, crc = length - len(block), zlib.crc32(block, crc)
                yield block
            if file.read(4) != struct.pack(">I", crc):
                raise ValueError("a part of its pixels has a wrong checksum")


@njit(nogil=True)
def _unfilter(rows, pixel):
    """Undo the filters of uint8 (h, 1 + bytes) in place; the number of the first filter that PNG does not have, or -1.

    pixel : bytes from a value to its left neighbour. Sums are modulo 256, as uint8 has them.
    """
    h, n = rows.shape
    for i in range(h):
        kind = rows[i, 0]
        if kind > 4:
            return int(kind)
        for k in range(1, n):
            left = int(rows[i, k - pixel]) if k > pixel else 0
            above = int(rows[i - 1, k]) if i > 0 else 0
            corner = int(rows[i - 1, k - pixel]) if i > 0 and k > pixel else 0
            foretold = 0
            if kind == 1:
                foretold = left
            elif kind == 2:
                foretold = above
            elif kind == 3:
                foretold = (left + above) // 2
            elif kind == 4:  # Paeth: the neighbour that left + above - corner comes nearest to
                p = left + above - corner
                to_left, to_above, to_corner = abs(p - left), abs(p - above), abs(p - corner)
                if to_left <= to_above and to_left <= to_corner:
                    foretold = left
                elif to_above <= to_corner:
                    foretold = above
                else:
                    foretold = corner
            rows[i, k] = (int(rows[i, k]) + foretold) & 255
    return -1
