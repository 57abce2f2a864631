"""Masks as other programs and pipelines save them: each becomes the classes that were meant, or is refused in words."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from minunet.data.check import check_folder
from minunet.data.folder import load_folder
from minunet.data.images import write_png
from minunet.data.masks import read_mask
from minunet.errors import UserError


def grey(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (12, 15), dtype=np.uint8)


def classes(seed: int, n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, n, shape or (12, 15)).astype(np.uint8)


@pytest.fixture
def two(tmp_path):
    """Folders images, with three, and masks."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for k in range(3):
        write_png(tmp_path / "images" / f"c{k}.png", grey(k))
    return tmp_path / "images", tmp_path / "masks"


@pytest.mark.parametrize("n", [2, 3, 4, 5, 11])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32])
def test_a_plane_a_class_is_the_planes_number(two, n, dtype):
    truth = [classes(k, n) for k in range(3)]
    for k, c in enumerate(truth):
        np.save(two[1] / f"c{k}.npy", np.eye(n, dtype=dtype)[c])
    data = load_folder(*two)
    assert np.array_equal(data.labels, truth) and data.table["map"] == [[k, k] for k in range(n)]
    assert not any(f.problem for f in check_folder(two[0].parent).findings)


def test_stacks_with_a_plane_a_class(tmp_path):
    truth = classes(0, 3, 4, 9, 8)
    np.save(tmp_path / "a_mask.npy", np.eye(3, dtype=np.uint8)[truth])
    assert np.array_equal(read_mask(tmp_path / "a_mask.npy"), truth)
    tifffile.imwrite(tmp_path / "b.tif", np.eye(3, dtype=np.uint8)[truth], photometric="rgb")
    assert np.array_equal(read_mask(tmp_path / "b.tif"), truth)


def test_what_looks_like_planes_but_is_not(tmp_path):
    c = classes(1, 3)
    write_png(tmp_path / "a.png", np.eye(3, dtype=np.uint8)[c] * 255)  # pure red, green and blue
    assert read_mask(tmp_path / "a.png").shape == (12, 15, 3)
    grey_and_opacity = np.dstack([c > 0, c == 0]).astype(np.uint8)
    Image.fromarray(grey_and_opacity, "LA").save(tmp_path / "b.png")
    assert np.array_equal(read_mask(tmp_path / "b.png"), c > 0)
    np.save(tmp_path / "c.npy", np.dstack([c, c[::-1]]))
    with pytest.raises(UserError, match=r"c\.npy: has two channels \(12, 15, 2\)"):
        read_mask(tmp_path / "c.npy")
    np.save(tmp_path / "d.npy", classes(2, 2, 4, 12, 15))
    assert read_mask(tmp_path / "d.npy").shape == (4, 12, 15)


@pytest.mark.parametrize("last", [False, True])
def test_planes_that_are_no_stack_are_told_from_one(two, last):
    for k in range(3):
        planes = classes(k, 2, 5, 12, 15)  # several classes a pixel
        np.save(two[1] / f"c{k}.npy", np.moveaxis(planes, 0, -1) if last else planes)
    with pytest.raises(UserError, match=r"c0\.npy: is .* but its image .*c0\.png is 12 x 15; .*numpy\.argmax"):
        load_folder(*two)
    texts = [f.text for f in check_folder(two[0].parent).findings if f.problem]
    assert len(texts) == 3 and all("numpy.argmax" in text for text in texts)


def test_axes_of_one(two):
    for k, shape in enumerate([(12, 15, 1), (1, 12, 15), (1, 12, 15, 1)]):
        np.save(two[1] / f"c{k}.npy", classes(k, 2).reshape(shape))
    assert np.array_equal(load_folder(*two).labels, [classes(k, 2) for k in range(3)])


def test_a_mask_in_the_opacity_alone_is_refused(tmp_path):
    white, opacity = np.full((12, 15), 255, np.uint8), classes(0, 2) * 255
    Image.fromarray(np.dstack([white, white, white, opacity]), "RGBA").save(tmp_path / "a.png")
    Image.fromarray(np.dstack([white, opacity]), "LA").save(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        with pytest.raises(UserError, match=f"{name}: has one colour, and only its opacity differs"):
            read_mask(tmp_path / name)
    Image.fromarray(np.dstack([opacity, white]), "LA").save(tmp_path / "c.png")
    assert np.array_equal(read_mask(tmp_path / "c.png"), opacity)


def test_floats_of_16_bits_without_a_word(tmp_path):
    np.save(tmp_path / "a.npy", classes(0, 2).astype(np.float16))
    np.save(tmp_path / "b.npy", np.full((3, 4), 0.5, np.float16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_mask(tmp_path / "a.npy"), classes(0, 2))
        with pytest.raises(UserError, match=r"values such as 0\.5"):
            read_mask(tmp_path / "b.npy")


def test_classes_that_may_be_cells_and_cells_that_may_be_classes(two):
    def notes(**options) -> list[str]:
        shown: list[str] = []
        load_folder(*two, show=shown.append, **options)
        found = check_folder(two[0].parent, **options).findings
        assert [f.text for f in found if "--instances" in f.text and f.problem] == []
        said = [line for line in shown if "--instances" in line]
        assert len(said) == sum("--instances" in f.text for f in found) <= 1
        return said

    for k in range(3):
        tifffile.imwrite(two[1] / f"c{k}.tif", classes(k, 5 + k).astype(np.uint16))
    (note,) = notes()
    assert "c2.tif: holds 7 values of uint16" in note and "add --instances" in note
    assert notes(instances=True) == [] and notes(labels=",".join(f"{v}={v % 2}" for v in range(7))) == []
    for k in range(3):
        tifffile.imwrite(two[1] / f"c{k}.tif", classes(k, 2) * 255)
    assert notes() == []
    (note,) = notes(instances=True)
    assert "c0.tif: holds one number beside 0" in note and "leave out --instances" in note


def test_turned_photographs_are_mentioned(two):
    exif = Image.Exif()
    exif[274] = 6
    for k in range(3):
        (two[0] / f"c{k}.png").unlink()
        Image.fromarray(grey(k, 16, 24)).save(two[0] / f"c{k}.jpg", **({"exif": exif.tobytes()} if k == 1 else {}))
        write_png(two[1] / f"c{k}.png", classes(k, 2, *((24, 16) if k == 1 else (16, 24))))
    shown: list[str] = []
    data = load_folder(*two, show=shown.append)
    assert [image.shape for image in data.images] == [(16, 24), (24, 16), (16, 24)]
    assert [line for line in shown if "EXIF" in line] == [line for line in shown if "c1.jpg: lies turned" in line] != []
    (found,) = [f for f in check_folder(two[0].parent).findings if "EXIF" in f.text]
    assert not found.problem and "c1.jpg: lies turned" in found.text and "orientation 6" in found.text
