"""Reading and writing image files: every kind comes back bit for bit, every bad file is one plain line."""

from __future__ import annotations

import os
import random
import stat

import numpy as np
import pytest
import tifffile
from PIL import Image

from minunet.data import images
from minunet.data.images import list_images, read_image, write_png, write_tiff
from minunet.errors import UserError
from minunet.files import atomic_write


def pixels(*shape: int, seed: int = 0, dtype: type = np.uint8) -> np.ndarray:
    """Values over the whole range of `dtype`."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b) and a.dtype.isnative


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (1, 9), (5, 4, 3)])
def test_png_returns_the_bytes(tmp_path, shape):
    image = pixels(*shape)
    write_png(tmp_path / "a.png", image)
    assert same(read_image(tmp_path / "a.png"), image)


def test_png_of_16_bits_and_of_a_view(tmp_path):
    image = pixels(6, 14, dtype=np.uint16)
    write_png(tmp_path / "a.png", image[::-1, ::2])
    assert same(read_image(tmp_path / "a.png"), image[::-1, ::2])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (2, 7, 5), (3, 6, 4), (4, 3, 3)])
def test_tiff_returns_the_bytes(tmp_path, shape, dtype):
    stack = pixels(*shape, dtype=dtype)
    write_tiff(tmp_path / "s.tif", stack)
    assert same(read_image(tmp_path / "s.tif"), stack)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff_stack(tmp_path, compression):
    stack = pixels(3, 9, 11) // 16
    first, *rest = (Image.fromarray(page) for page in stack)
    first.save(tmp_path / "s.tif", compression=compression, save_all=True, append_images=rest)
    assert same(read_image(tmp_path / "s.tif"), stack)


def test_big_endian_tiff_and_colour_planes(tmp_path):
    stack = pixels(2, 5, 7, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "be.tif", stack, byteorder=">", photometric="minisblack")
    assert same(read_image(tmp_path / "be.tif"), stack)
    colour = pixels(6, 5, 3)
    planes = np.ascontiguousarray(np.moveaxis(colour, -1, 0))
    tifffile.imwrite(tmp_path / "rgb.tif", planes, planarconfig="separate", photometric="rgb")
    assert same(read_image(tmp_path / "rgb.tif"), colour)


def test_stack_in_colour_and_ome(tmp_path):
    stack = pixels(4, 6, 5, 3)
    tifffile.imwrite(tmp_path / "c.tif", stack, photometric="rgb")
    assert same(read_image(tmp_path / "c.tif"), stack)
    planes = pixels(2, 3, 6, 5, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, metadata={"axes": "TZYX"})
    assert same(read_image(tmp_path / "a.ome.tif"), planes.reshape(6, 6, 5))


def test_npy_jpeg_palette_and_one_bit(tmp_path):
    stack = pixels(2, 3, 4, dtype=np.float64)
    np.save(tmp_path / "a.npy", np.asfortranarray(stack).astype(">f8"))
    assert same(read_image(tmp_path / "a.npy"), stack)
    Image.fromarray(np.full((5, 6, 3), 77, np.uint8)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").shape == (5, 6, 3)
    palette = Image.fromarray(pixels(5, 6) % 3).convert("P")
    indices = np.array(palette)
    palette.save(tmp_path / "p.png")
    assert same(read_image(tmp_path / "p.png"), indices)
    bits = pixels(5, 9) > 127
    Image.fromarray(bits).save(tmp_path / "b.png")
    assert same(read_image(tmp_path / "b.png"), bits)


def test_the_name_does_not_decide(tmp_path):
    image = pixels(4, 4)
    write_png(tmp_path / "a.tif", image)
    assert same(read_image(tmp_path / "a.tif"), image)


def expect_line(path: os.PathLike, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_image(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ") and text.count(f"{path}: ") == 1
    for word in words:
        assert word in text


def test_files_that_cannot_be_read(tmp_path):
    expect_line(tmp_path / "none.png", "no such file")
    expect_line(tmp_path, "folder")
    (tmp_path / "empty.png").touch()
    expect_line(tmp_path / "empty.png", "empty")
    (tmp_path / "notes.png").write_text("dear diary")
    expect_line(tmp_path / "notes.png", "not an image")
    os.mkfifo(tmp_path / "pipe")
    expect_line(tmp_path / "pipe", "plain file")
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    expect_line(tmp_path / "words.npy", "not numbers")
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    expect_line(tmp_path / "objects.npy")
    np.save(tmp_path / "none.npy", np.zeros((0, 4)))
    expect_line(tmp_path / "none.npy")
    np.save(tmp_path / "line.npy", np.zeros(4))
    expect_line(tmp_path / "line.npy", "1 axes")
    np.save(tmp_path / "four.npy", np.zeros((2, 2, 3, 5)))
    expect_line(tmp_path / "four.npy", "4 axes")
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as tif:
        tif.write(pixels(4, 5), photometric="minisblack")
        tif.write(pixels(6, 5), photometric="minisblack")
    expect_line(tmp_path / "mixed.tif", "differ in size")


def test_a_huge_declared_size_takes_no_memory(tmp_path, monkeypatch):
    with open(tmp_path / "huge.npy", "wb") as file:
        shape = "{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 99999, 99), }"
        file.write(b"\x93NUMPY\x01\x00\x76\x00" + shape.ljust(117).encode() + b"\n")
    expect_line(tmp_path / "huge.npy")
    write_png(tmp_path / "a.png", pixels(64, 64))
    write_tiff(tmp_path / "s.tif", pixels(3, 64, 64))
    np.save(tmp_path / "a.npy", pixels(64, 64))
    monkeypatch.setattr(images, "MAX_BYTES", 4000)
    for name in ("a.png", "s.tif", "a.npy"):
        expect_line(tmp_path / name, "above the limit")
    monkeypatch.setattr(images, "MAX_BYTES", 4 << 30)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    expect_line(tmp_path / "a.png", "more pixels than is safe")


@pytest.mark.parametrize("name", ["s.tif", "lzw.tif", "a.png", "a.npy", "a.jpg", "a.bmp"])
def test_damaged_files_read_or_raise_one_line(tmp_path, name, capfd):
    """300 cut or altered copies: an array or a UserError, no other exception, no noise on the terminal."""
    stack = pixels(2, 9, 13) // 8
    write_tiff(tmp_path / "s.tif", stack)
    write_png(tmp_path / "a.png", stack[0])
    np.save(tmp_path / "a.npy", stack)
    first, second = (Image.fromarray(page) for page in stack)
    first.save(tmp_path / "lzw.tif", compression="tiff_lzw", save_all=True, append_images=[second])
    first.save(tmp_path / "a.jpg")
    first.save(tmp_path / "a.bmp")
    whole = (tmp_path / name).read_bytes()
    right = read_image(tmp_path / name)
    raised = 0
    for seed in range(300):
        rng = random.Random(seed)
        data = bytearray(whole)
        cut = seed % 3 == 0
        if cut:
            data = data[: rng.randrange(len(data))]
        else:
            for _ in range(1 + seed % 4):
                data[rng.randrange(min(len(data), 400))] = rng.randrange(256)
        path = tmp_path / "damaged"
        path.write_bytes(data)
        try:
            read = read_image(path)
        except UserError as error:
            raised += 1
            assert "\n" not in str(error)
            continue
        assert not cut or name.endswith("jpg") or np.array_equal(read, right), f"cut to {len(data)} bytes"
    assert raised >= 90
    noise = capfd.readouterr()
    assert noise.out == "" and noise.err == ""


def test_writers_refuse_what_the_format_cannot_hold(tmp_path):
    for image in (pixels(4, 4, dtype=np.float32), pixels(4, 4, 4), pixels(2, 4, 4), pixels(0, 4)):
        with pytest.raises(UserError, match="PNG"):
            write_png(tmp_path / "a.png", image)
    for stack in (pixels(4, 4, dtype=np.float64), pixels(4), pixels(0, 4)):
        with pytest.raises(UserError, match="TIFF"):
            write_tiff(tmp_path / "a.tif", stack)
    assert list(tmp_path.iterdir()) == []


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    write_png(tmp_path / "a.png", np.zeros((3, 3), np.uint8))
    before = (tmp_path / "a.png").read_bytes()

    def full(self, file, **options):
        with open(file, "wb") as out:
            out.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"a\.png: cannot be written \(No space left"):
        write_png(tmp_path / "a.png", np.ones((3, 3), np.uint8))
    assert (tmp_path / "a.png").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_atomic_write_cases(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a") as tmp:
        assert tmp.parent == tmp_path
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="folder does not exist"), atomic_write(tmp_path / "no" / "a"):
        pass
    with pytest.raises(UserError, match="is a folder"), atomic_write(tmp_path):
        pass
    with pytest.raises(UserError, match="not a plain file"), atomic_write("/dev/null"):
        pass
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_write(tmp_path / "link") as tmp:
        tmp.write_text("new")
        assert (tmp_path / "real").read_text() == "old"
    assert (tmp_path / "real").read_text() == "new"
    assert (tmp_path / "link").is_symlink()
    umask = os.umask(0)
    os.umask(umask)
    with atomic_write(tmp_path / "fresh") as tmp:
        tmp.write_text("x")
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o666 & ~umask


def test_another_files_error_is_passed_on(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        (tmp_path / "missing").read_text()


def test_list_images_orders_by_number(tmp_path):
    for name in ("10.png", "2.png", "a.TIF", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["2.png", "10.png", "a.TIF"]
    with pytest.raises(UserError, match="no such folder"):
        list_images(tmp_path / "none")
