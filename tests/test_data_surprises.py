"""What other programs write into image files: axes of one, planes of colour, inverted greys, colours for printing."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from minunet.data.images import read_image
from minunet.data.mapped import is_mapped, open_image
from minunet.data.picture import orientation, read_picture
from minunet.data.sections import as_sections
from minunet.errors import UserError


def grey(seed: int, *shape: int, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape or (12, 15), dtype=dtype)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)


@pytest.mark.parametrize(
    ("shape", "plain"),
    [
        ((12, 15, 1), (12, 15)),  # Keras
        ((1, 12, 15), (12, 15)),  # PyTorch
        ((1, 12, 15, 1), (12, 15)),
        ((1, 1, 4, 12, 15), (4, 12, 15)),
        ((4, 12, 15, 1), (4, 12, 15)),
        ((1, 12, 15, 3), (12, 15, 3)),
        ((1, 9), (1, 9)),
        ((9, 1), (9, 1)),
        ((1, 1, 1), (1, 1)),
        ((1, 9, 3), (1, 9, 3)),  # a line of colours
        ((1, 1, 9, 3), (1, 9, 3)),
        ((2, 1, 5), (2, 1, 5)),
    ],
)
def test_axes_of_one_are_no_axes(tmp_path, shape, plain):
    array = grey(0, *shape)
    np.save(tmp_path / "a.npy", array)
    assert same(read_image(tmp_path / "a.npy"), array.reshape(plain))
    opened = open_image(tmp_path / "a.npy")
    assert same(opened, array.reshape(plain)) and is_mapped(opened)
    if plain == (12, 15):
        assert as_sections("a", opened, 1).shape == (1, 12, 15, 1)  # and not 12 sections of 15 x 1


def test_planes_of_colour_in_every_page(tmp_path):
    stack = grey(0, 4, 9, 8, 3)
    planes = np.ascontiguousarray(np.moveaxis(stack, -1, 1))
    for name, how in (("plain.tif", {}), ("packed.tif", {"compression": "zlib"})):
        tifffile.imwrite(tmp_path / name, planes, photometric="rgb", planarconfig="separate", **how)
        assert same(read_image(tmp_path / name), stack) and same(np.array(open_image(tmp_path / name)), stack)


def inverted(path, array: np.ndarray, **how) -> None:
    """A TIFF whose numbers are `array`, and which says that 0 is white."""
    Image.fromarray(array).save(path, **how)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages[0].tags["PhotometricInterpretation"].overwrite(0)


@pytest.mark.parametrize(
    ("dtype", "packing"),
    [(t, p) for t in (bool, np.uint8, np.uint16) for p in (None, "tiff_lzw", "packbits", "tiff_deflate")]
    + [(bool, "group4")],
)
def test_numbers_stay_what_they_are_where_zero_is_white(tmp_path, dtype, packing):
    """So ImageJ writes masks of 8 bits, and tifffile those of one: 255 and True are the cell."""
    array = grey(1, 9, 16) > 99 if dtype is bool else grey(1, 9, 11, dtype=dtype)
    inverted(tmp_path / "a.tif", array, compression=packing)
    assert same(read_image(tmp_path / "a.tif"), array) and same(np.array(open_image(tmp_path / "a.tif")), array)


def test_colours_for_printing_are_refused(tmp_path):
    """Their four channels are no red, green, blue and opacity."""
    ink = grey(3, 9, 11, 4)
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.jpg")
    tifffile.imwrite(tmp_path / "a.tif", ink, photometric="separated")
    tifffile.imwrite(tmp_path / "b.tif", ink, photometric="separated", compression="zlib")
    for name in ("a.jpg", "a.tif", "b.tif"):
        for read in (read_image, open_image, read_picture):
            with pytest.raises(UserError, match=rf"{name}: has colours for printing \(CMYK\); convert"):
                read(tmp_path / name)


def exif_data(order: str, k: int) -> bytes:
    """EXIF data of two entries: an artist, and how the pixels lie."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(order + "HHI4s", 315, 2, 2, b"A") + struct.pack(order + "HHIHH", 274, 3, 1, k, 0)
    return b"Exif\0\0" + head + struct.pack(order + "IH", 8, 2) + entries + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("k", range(1, 9))
def test_photographs_are_turned_as_viewers_turn_them(tmp_path, order, k):
    path = tmp_path / "a.jpg"
    picture = Image.fromarray(np.kron(grey(4, 3, 5, 3), np.ones((8, 8, 1), np.uint8)))
    picture.save(path, exif=exif_data(order, k), quality=95)
    with Image.open(path) as stored:
        expected = np.array(ImageOps.exif_transpose(stored))
    assert orientation(path) == k and expected.shape[:2] == ((24, 40) if k < 5 else (40, 24))
    assert same(read_picture(path), expected) and same(open_image(path), expected)  # the latter for prediction
    assert read_image(path).shape == (24, 40, 3)


def test_damaged_exif_data_turn_nothing(tmp_path, capfd):
    Image.fromarray(grey(5, 8, 9)).save(tmp_path / "a.jpg", exif=exif_data("<", 6))
    whole = (tmp_path / "a.jpg").read_bytes()
    start = whole.index(b"Exif\0\0")
    for seed in range(200):
        rng = np.random.default_rng(seed)
        data = bytearray(whole)
        for at in rng.integers(start + 6, start + 32, 1 + seed % 3):
            data[at] = rng.integers(256)
        (tmp_path / "b.jpg").write_bytes(data)
        assert 1 <= orientation(tmp_path / "b.jpg") <= 8
    for length in range(3, start + 40):
        (tmp_path / "b.jpg").write_bytes(whole[:length])
        assert 1 <= orientation(tmp_path / "b.jpg") <= 8
    noise = capfd.readouterr()
    assert noise.out == "" and noise.err == ""


def test_channels_are_not_taken_for_narrow_sections(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", grey(6, 40, 50, 5), photometric="minisblack", planarconfig="contig")
    opened = open_image(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"has the shape \(40, 50, 5\), but the network takes a grey image"):
        as_sections("a.tif", opened, 1)
    assert as_sections("a.tif", opened, 5).shape == (1, 40, 50, 5)
    assert as_sections("a", np.zeros((40, 50, 17)), 1).shape == (40, 50, 17, 1)
    assert as_sections("a", np.zeros((3, 11, 14)), 1).shape == (3, 11, 14, 1)
    with pytest.raises(UserError, match=r"the network takes an image of 3 channels; .* channels last"):
        as_sections("a", np.zeros((3, 11, 14)), 3)
