"""Files made to break readers: small valid ones of each format, and what is done to them. Everything from a seed."""

from __future__ import annotations

import functools
import io
import random
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image

EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def grey(seed: int, *shape: int, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape or (11, 14), dtype=dtype)


def _pillow(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _tiff(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def valid_images() -> dict[str, bytes]:
    """{file name: bytes} of one small file of each kind that is read."""
    plain, stack = {"photometric": "minisblack"}, grey(1, 3, 11, 14)
    lzw = [Image.fromarray(page) for page in stack // 8]
    palette = Image.fromarray(grey(2) % 5).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    return {
        "grey.png": _pillow(Image.fromarray(grey(0)), "PNG"),
        "deep.png": _pillow(Image.fromarray(grey(0, dtype=np.uint16)), "PNG"),
        "colour.png": _pillow(Image.fromarray(grey(0, 11, 14, 3)), "PNG"),
        "palette.png": _pillow(palette, "PNG"),
        "bits.png": _pillow(Image.fromarray(grey(0) > 99), "PNG"),
        "grey.jpg": _pillow(Image.fromarray(grey(0)), "JPEG"),
        "progressive.jpg": _pillow(Image.fromarray(grey(0, 11, 14, 3)), "JPEG", progressive=True),
        "grey.bmp": _pillow(Image.fromarray(grey(0)), "BMP"),
        "stack.tif": _tiff(stack, **plain),
        "big.tif": _tiff(stack, bigtiff=True, **plain),
        "tiles.tif": _tiff(grey(0, 40, 35, dtype=np.uint16), tile=(16, 16), compression="zlib", **plain),
        "float.tif": _tiff(stack.astype(np.float32), byteorder=">", rowsperstrip=2, **plain),
        "colour.tif": _tiff(grey(0, 11, 14, 3), photometric="rgb", compression="zlib"),
        "imagej.tif": _tiff(stack, imagej=True),
        "lzw.tif": _pillow(lzw[0], "TIFF", compression="tiff_lzw", save_all=True, append_images=lzw[1:]),
        "fax.tif": _pillow(Image.fromarray(grey(0) > 99), "TIFF", compression="group4"),
        "grey.npy": _npy(grey(0)),
        "float.npy": _npy(np.asfortranarray(stack.astype(">f8"))),
    }


@functools.cache
def hostile_images() -> dict[str, bytes]:
    """{file name: bytes} of files that promise more than they hold, or lead in circles, by hand."""
    page = {"photometric": "minisblack", "metadata": None}
    laughs = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10 if k else "ha"}">' for k in range(10))
    pixels = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="I:0"><Pixels ID="P:0" Type='
    pixels += '"uint8" DimensionOrder="XYZCT" SizeX="14" SizeY="11" SizeC="1" SizeZ="{}" SizeT="{}"><TiffData/>'
    ome = pixels + "</Pixels></Image></OME>"
    descriptions = {
        "imagej": "ImageJ=1.54f\nimages=99999999\nslices=99999999\n",
        "imagej_negative": "ImageJ=1.54f\nimages=-3\nchannels=0\nslices=x\n",
        "shaped": '{"shape": [99999999, 99999, 11, 14]}',
        "shaped_text": '{"shape": ["a", -1]}',
        "shaped_deep": '{"shape": ' + "[" * 4000,
        "ome": ome.format(99999999, 99999999),
        "ome_negative": ome.format(-1, 0),
        "ome_laughs": f"<?xml version='1.0'?><!DOCTYPE OME [{laughs}]>" + ome.format("&l9;", 1),
        "ome_deep": "<OME>" * 5000,
        "ome_open": ome.format(2, 2)[:-9],
    }
    files = {f"{name}.tif": _tiff(grey(0), description=text, **page) for name, text in descriptions.items()}
    one = _tiff(grey(0), **page)
    _, entries, links = _tiff_entries(one)
    first = struct.unpack_from("<I", one, 4)[0]
    for target, name in ((first, "itself"), (4, "header"), (len(one) - 3, "end")):
        out = bytearray(one)
        struct.pack_into("<I", out, links[-1], target)
        files[f"next_is_{name}.tif"] = bytes(out)
        out = bytearray(one)  # a directory of directories that holds itself
        struct.pack_into("<HHII", out, entries[-1], 330, 4, 1, target)
        files[f"sub_is_{name}.tif"] = bytes(out)
    zeros = zlib.compress(bytes(10**6), 9)
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 2900, 8, 0, 0, 0, 0))
    files["bomb.png"] = b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zeros) + _chunk(b"IEND", b"")
    text = _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**8), 9))
    small = _pillow(Image.fromarray(grey(0)), "PNG")
    files["text_bomb.png"] = small[:33] + text + small[33:]
    files["many.tif"] = _many_pages(30000)
    files["sparse.tif"] = _sparse(20000)
    return files


def _many_pages(n: int) -> bytes:
    """Directories without a single entry, one after the other."""
    pages = (struct.pack("<HI", 0, 8 + 6 * (k + 1) if k < n - 1 else 0) for k in range(n))
    return b"II*\0" + struct.pack("<I", 8) + b"".join(pages)


def _sparse(side: int) -> bytes:
    """A page of side x side pixels, deflated, whose one strip has no bytes."""
    entries = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 0), (277, 3, 1)]
    entries += [(278, 4, side), (279, 4, 0)]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0)


def mutate(name: str, data: bytes, rng: random.Random) -> bytes:
    """One malformed copy."""
    ways = [_cut, _flip, _flip, _extreme, _splice, _grow]
    ending = name.rpartition(".")[2]
    ways += {"png": [_png_header] * 3, "tif": [_tiff_entry, _tiff_entry, _tiff_cycle], "npy": [_npy_header] * 3}.get(
        ending, []
    )
    ways += {"safetensors": [_length, _extreme, _json]}.get(ending, [])
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(ways)(data, rng)
    return data


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    reach = len(out) if rng.random() < 0.5 else min(len(out), 300)  # headers are more fun
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        if reach:
            out[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(out)


def _extreme(data: bytes, rng: random.Random) -> bytes:
    """Two, four or eight bytes become a number at the end of its range."""
    form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(form)
    if len(data) < size:
        return data
    at = rng.randrange(min(len(data) - size + 1, rng.choice((30, 300, 10**6))))
    value = rng.choice(EXTREMES) & ((1 << 8 * size) - 1)
    if size == 8 and rng.random() < 0.3:
        value = rng.choice((1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1))
    return data[:at] + struct.pack(form, value) + data[at + size :]


def _splice(data: bytes, rng: random.Random) -> bytes:
    """A part is left out, said twice, or moved."""
    if len(data) < 4:
        return data
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    at = rng.randrange(len(data))
    return rng.choice((data[:a] + data[b:], data[:b] + data[a:], data[:at] + data[a:b] + data[at:]))


def _grow(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.choice((1, 50, 3000)))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_header(data: bytes, rng: random.Random) -> bytes:
    """Another IHDR, with the right checksum."""
    if len(data) < 33:
        return data
    w, h, *rest = struct.unpack(">IIBBBBB", data[16:29])
    w, h = (rng.choice((v, v, 0, 7, 4000, 65535, 2**31 - 1)) for v in (w, h))
    rest = [rng.choice((v, v, v, rng.randrange(256), rng.randrange(9))) for v in rest]
    return data[:8] + _chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, *rest)) + data[33:]


def _tiff_entries(data: bytes) -> tuple[str, list[int], list[int]]:
    """(byte order, where each directory's entries lie, where each directory's pointer to the next one lies)."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    count_form, entry, pointer = ("Q", 20, "Q") if big else ("H", 12, "I")
    size, entries, links = struct.calcsize(order + count_form), [], []
    link = 8 if big else 4
    for _ in range(8):
        links.append(link)
        if link + struct.calcsize(order + pointer) > len(data):
            break
        at = struct.unpack_from(order + pointer, data, link)[0]
        if at == 0 or at + size > len(data):
            break
        n = min(struct.unpack_from(order + count_form, data, at)[0], 99)
        entries += [at + size + entry * k for k in range(n) if at + size + entry * (k + 1) <= len(data)]
        link = at + size + entry * n
    return order, entries, links


def _tiff_entry(data: bytes, rng: random.Random) -> bytes:
    """A tag, type, count or value becomes another."""
    if len(data) < 16:
        return data
    order, entries, _ = _tiff_entries(data)
    if not entries:
        return data
    out = bytearray(data)
    at = rng.choice(entries)
    shift, form = rng.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "I"), (8, "H")))
    if at + shift + struct.calcsize(form) <= len(out):
        value = rng.choice((*EXTREMES, rng.randrange(65536), 8, len(data), 30000))
        struct.pack_into(order + form, out, at + shift, value & ((1 << 8 * struct.calcsize(form)) - 1))
    return bytes(out)


def _tiff_cycle(data: bytes, rng: random.Random) -> bytes:
    """A directory that leads back to one before it, or to itself."""
    if len(data) < 16:
        return data
    order, _, links = _tiff_entries(data)
    form = order + ("Q" if data[2:4] in (b"+\0", b"\0+") else "I")
    size = struct.calcsize(form)
    links = [link for link in links if link + size <= len(data)]
    if len(links) < 2:
        return data
    k = rng.randrange(1, len(links))
    target = struct.unpack_from(form, data, rng.choice(links[:k]))[0]
    out = bytearray(data)
    struct.pack_into(form, out, links[k], target)
    return bytes(out)


def _npy_header(data: bytes, rng: random.Random) -> bytes:
    """Another dictionary in front of the numbers."""
    if len(data) < 20:
        return data
    header = rng.choice(
        (
            "{{'descr': '{d}', 'fortran_order': False, 'shape': {s}, }}",
            "{{'descr': '{d}', 'fortran_order': 7, 'shape': {s}}}",
            "{{'descr': [('a', '{d}')], 'fortran_order': True, 'shape': {s}}}",
            "{{'shape': {s}}}",
            "__import__('os').abort()",
            "(" * 3000,
            "-" * 5000 + "1",
            "[" * 90 + "]" * 90,
            "{{'descr': '{d}', 'fortran_order': False, 'shape': {s}, 'x': 1}}",
            "9" * 6000,
            "\0\x7f\x80é{{",
        )
    ).format(
        d=rng.choice(("|u1", "<u2", "|O", "<U9", "<M8[s]", "<c16", "<f2", "|V7", "|b1", "<f16", "zz", "3<f4", ">i8")),
        s=rng.choice(
            ("(11, 14)", "(-1, 14)", "(0, 3)", "(2**70,)", "()", "(99999, 99999, 99)", "(9223372036854775807, 2)", "7")
            + ("(1, 1, 1, 1, 1)", "('a', 3)", "(11.0, 14)", "(True, 154)", "(4294967296, 4294967296)", "[11, 14]")
        ),
    )
    body = header.encode("latin-1") + b"\n"
    version = rng.choice((1, 1, 2, 3, 9))
    size = struct.pack("<H", min(len(body), 65535)) if version == 1 else struct.pack("<I", len(body))
    return b"\x93NUMPY" + bytes((version, 0)) + size + body + data[128:]


def _length(data: bytes, rng: random.Random) -> bytes:
    """Another length of a safetensors header."""
    value = rng.choice((0, 1, 8, len(data) - 8, len(data), 2**31, 2**63, 2**64 - 1, rng.randrange(5000)))
    return struct.pack("<Q", value % 2**64) + data[8:]


def _json(data: bytes, rng: random.Random) -> bytes:
    """Another safetensors header of the right length."""
    end = 8 + int.from_bytes(data[:8], "little") if len(data) > 8 else 8
    old = data[8 : min(end, len(data))]
    text = rng.choice(
        (
            b"{" + b'"a":{' * 2000,
            b'{"a":' + b"[" * 100000,
            b'{"__metadata__":{"minunet":"{}"}}',
            b'{"__metadata__":{"minunet":"[' + b"[" * 5000 + b'"}}',
            b'{"__metadata__":7}',
            b'{"a":{"dtype":"F32","shape":[9999999999,9999999999],"data_offsets":[0,4]}}',
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,99999999999999999999]}}',
            b'{"a":' + b"9" * 6000 + b"}",
            b"{\xff\xfe",
            old.replace(b"F32", b"F64"),
            old.replace(b'"shape":[', b'"shape":[7,', 1),
            old.replace(b"unet", b"fcn"),
            old.replace(b'\\"width\\":2', b'\\"width\\":2000000'),
            old.replace(b"sha256", b"sha255"),
            old.replace(b'format\\":1', b'format\\":99'),
        )
    )
    return struct.pack("<Q", len(text)) + text + data[end:]
