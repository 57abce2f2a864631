"""Colour PNGs of 16 bits: every filter, interlaced or not, and every kind of damage."""

from __future__ import annotations

import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from minunet.data import images
from minunet.data.images import read_image
from minunet.errors import UserError

ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def paeth(a: int, b: int, c: int) -> int:
    return min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]


def filtered(rows: list[bytes], pixel: int, kinds: list[int]) -> bytes:
    """The rows as PNG keeps them, each by the filter of its number."""
    out, before = b"", bytes(len(rows[0]))
    for row, kind in zip(rows, kinds):
        out += bytes([kind])
        for k, x in enumerate(row):
            a, c = (row[k - pixel], before[k - pixel]) if k >= pixel else (0, 0)
            b = before[k]
            out += bytes([(x - (0, a, b, (a + b) // 2, paeth(a, b, c))[kind]) % 256])
        before = row
    return out


def png16(image: np.ndarray, interlaced: bool = False, parts: int = 3, extra: bytes = b"") -> bytes:
    """uint16 (H, W, C) as a PNG file, written by the specification; filters in turn."""
    H, W, C = image.shape
    packed = b""
    for i, j, di, dj in ADAM7 if interlaced else ((0, 0, 1, 1),):
        rows = [row.astype(">u2").tobytes() for row in image[i::di, j::dj]]
        if rows and rows[0]:
            packed += filtered(rows, 2 * C, [(4 + k) % 5 for k in range(len(rows))])
    head = struct.pack(">IIBBBBB", W, H, 16, {2: 4, 3: 2, 4: 6}[C], 0, 0, interlaced)
    data = zlib.compress(packed)
    step = len(data) // parts + 1
    body = b"".join(chunk(b"IDAT", data[k : k + step]) for k in range(0, len(data), step))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + body + chunk(b"IEND", b"")


def values(*shape: int) -> np.ndarray:
    """Smooth in part, so that filters see small and large differences."""
    x = np.random.default_rng(1).integers(0, 65536, shape, dtype=np.uint16)
    x[: shape[0] // 2] //= 300
    return x


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("shape", [(11, 14, 3), (1, 1, 3), (7, 1, 4), (3, 9, 2), (16, 5, 4)])
def test_every_value_comes_back(tmp_path, shape, interlaced):
    image = values(*shape)
    path = tmp_path / "a b é.png"
    path.write_bytes(png16(image, interlaced, extra=chunk(b"tEXt", b"k\0v")))
    read = read_image(path)
    assert read.dtype == np.uint16 and read.dtype.isnative and np.array_equal(read, image)
    if shape[2] > 2:  # Pillow, which keeps the high bytes
        assert np.array_equal(np.array(Image.open(path)), image >> 8)


def test_damage_is_one_line(tmp_path):
    whole, path = png16(values(9, 12, 3)), tmp_path / "a.png"
    for seed in range(300):
        rng, data = random.Random(seed), bytearray(whole)
        if seed % 3 == 0:
            data = data[: rng.randrange(len(data) - 12)]  # what IEND says is not needed
        else:
            data[rng.randrange(33, len(data) - 12)] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            read = read_image(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        else:  # a flipped bit of a chunk's name or length may lead beyond all pixels
            assert np.array_equal(read, values(9, 12, 3))


def refused(path, data: bytes, *words: str) -> None:
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_image(path)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


def test_what_headers_promise_is_not_believed(tmp_path, monkeypatch):
    path, small = tmp_path / "a.png", png16(values(3, 4, 3))
    for size in ((60000, 60000), (0x7FFFFFFF, 0x7FFFFFFF), (0xFFFFFFFF, 1)):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 16, 2, 0, 0, 0))
        refused(path, small[:8] + head + small[33:], "declares")
    for fields in ((4, 3, 16, 3, 0, 0, 0), (4, 3, 16, 2, 0, 0, 2), (0, 3, 16, 2, 0, 0, 0), (4, 3, 16, 2, 1, 0, 0)):
        refused(path, small[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", *fields)) + small[33:], "damaged")
    refused(path, small[:33] + chunk(b"IDAT", zlib.compress(bytes([9] * 75))) + small[-12:], "filter 9")
    refused(path, small[:33] + chunk(b"IDAT", zlib.compress(bytes(74))) + small[-12:], "74 of 75")
    refused(path, small[:33] + small[-12:], "0 of 75")
    bomb = zlib.compress(bytes(10**7), 9)
    path.write_bytes(small[:33] + chunk(b"IDAT", bomb) + small[-12:])
    assert not read_image(path).any()  # and what is beyond the last row is never unpacked
    monkeypatch.setattr(images, "MAX_BYTES", 60)
    refused(path, small, "above the limit")
