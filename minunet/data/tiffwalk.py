"""The directories of a TIFF file, walked before any decoder sees them: no cycles, no counts beyond the file's bytes.

A TIFF is a chain of directories (IFD), each a list of entries (tag, type, count, value or where the values lie) and the
place of the next one. Readers that follow a chain which leads back to itself never end, and readers that believe a
count of 4 billion values take memory for them. (TIFF revision 6.0, Adobe 1992, section 2; BigTIFF.)
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

MAX_PAGES = 100_000
LEAST_ENTRIES = 3  # width, height, where the pixels lie
MAX_ENTRIES = 4096  # of one directory; real ones have about 20
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_COMPRESSION = 259
# How many bytes one byte can become: deflate 1032, LZW about 1400, PackBits 64; fax and lzma reach far more.
_EXPANSION = {1: 8, 5: 2000, 8: 1100, 32946: 1100, 32773: 512, 7: 2000, 6: 2000}  # 8: one bit a pixel
_OTHER = 100_000


def largest(path: str | os.PathLike[str]) -> int:
    """How many bytes of pixels the file can hold at most, by its length and the compressions that it uses.

    Follows all directories of the chain. Raises ValueError with the reason where the file is no sound TIFF.
    """
    length = os.stat(path).st_size
    with open(path, "rb") as file:
        order, big, at = _header(file)
        count_form, entry_form, next_form = (
            order + form for form in (("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I"))
        )
        seen: set[int] = set()
        expansion = 1
        while at:
            if at in seen:
                raise ValueError("its list of pages leads back to an earlier page")
            seen.add(at)
            if len(seen) > MAX_PAGES:
                raise ValueError(f"it has more than {MAX_PAGES} pages")
            if at >= length:
                raise ValueError("its list of pages points beyond its end")
            file.seek(at)
            (n,) = _unpack(file, count_form)
            if not LEAST_ENTRIES <= n <= MAX_ENTRIES:
                raise ValueError(f"a page has {n} entries")
            body = _exactly(file, n * struct.calcsize(entry_form))
            (at,) = _unpack(file, next_form)
            for tag, kind, count, value in struct.iter_unpack(entry_form, body):
                if _SIZES.get(kind, 1) * count > length:
                    raise ValueError(f"tag {tag} declares {count} values, more than the file has")
                if tag == _COMPRESSION:
                    (code,) = struct.unpack(order + "H", value[:2])
                    expansion = max(expansion, _EXPANSION.get(code, _OTHER))
    return length * max(expansion, _EXPANSION[1])


def _header(file: BinaryIO) -> tuple[str, bool, int]:
    """(byte order, whether it is a BigTIFF, where the first directory lies)."""
    order = "<" if _exactly(file, 2) == b"II" else ">"
    (version,) = _unpack(file, order + "H")
    if version != 43:
        return order, False, _unpack(file, order + "I")[0]
    if _unpack(file, order + "HH") != (8, 0):
        raise ValueError("its BigTIFF header has another word size than 8")
    return order, True, _unpack(file, order + "Q")[0]


def _unpack(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, _exactly(file, struct.calcsize(form)))


def _exactly(file: BinaryIO, n: int) -> bytes:
    data = file.read(n)
    if len(data) != n:
        raise ValueError("its list of pages points beyond its end")
    return data
