"""A user's own folders: masks of every kind to classes and back, images of every type, nothing clipped."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from minunet.data import masks as m
from minunet.data.folder import load_folder
from minunet.data.images import write_png, write_tiff
from minunet.data.mapped import open_image
from minunet.data.mixed import Mixed
from minunet.data.picture import read_picture
from minunet.data.sections import as_sections
from minunet.errors import UserError


def grey(seed: int, *shape: int, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape or (12, 15), dtype=dtype)


def cells(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape or (12, 15)) < 0.6).astype(np.uint8)


@pytest.fixture
def two(tmp_path):
    """Empty folders images and masks."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    return tmp_path / "images", tmp_path / "masks"


def fill(two, mask_of, n=5, save=write_png, ending="png"):
    for k in range(n):
        write_png(two[0] / f"c{k}.png", grey(k))
        save(two[1] / f"c{k}_mask.{ending}", mask_of(k))


KINDS = {
    "0/1": (lambda k: cells(k), [[0, 0], [1, 1]]),
    "0/255": (lambda k: cells(k) * 255, [[0, 0], [255, 1]]),
    "levels": (lambda k: np.array([0, 128, 255], np.uint8)[grey(k) % 3], [[0, 0], [128, 1], [255, 2]]),
    "void": (lambda k: np.array([0, 1, 255], np.uint8)[grey(k) % 3], [[0, 0], [1, 1], [255, None]]),
    "16 bits": (lambda k: np.array([7, 40000], np.uint16)[cells(k)], [[7, 0], [40000, 1]]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_numbers_become_classes_and_come_back(two, kind):
    mask_of, rows = KINDS[kind]
    fill(two, mask_of)
    shown: list[str] = []
    data = load_folder(*two, show=shown.append)
    assert data.table["map"] == rows and json.loads(json.dumps(data.table)) == data.table
    classes = {value: 255 if k is None else k for value, k in rows}
    for k in range(5):
        expected = np.vectorize(classes.get)(mask_of(k))
        assert data.labels[k].dtype == np.uint8 and np.array_equal(data.labels[k], expected)
        back = m.undo(data.labels[k], json.loads(json.dumps(data.table)))
        assert back.dtype == mask_of(k).dtype and np.array_equal(back, mask_of(k))
    assert data.images.shape == (5, 12, 15) and np.array_equal(data.images[3], grey(3))
    assert data.parts["train"].tolist() == [0, 1, 2, 3] and data.parts["val"].tolist() == [4]
    assert data.n_classes == sum(k is not None for _, k in rows) == len(data.colours)
    assert any("c0.png  -  c0_mask.png" in line for line in shown)
    assert any(f"{rows[1][0]} -> class 1" in line for line in shown)
    assert any("left out: 0" in line for line in shown)


def test_masks_in_colours_and_with_a_palette(two):
    palette = [(0, 0, 0), (200, 0, 10), (0, 90, 255)]
    table = np.array(palette, np.uint8)
    fill(two, lambda k: table[grey(k) % 3])
    data = load_folder(*two)
    assert data.table["kind"] == "colours" and data.classes == ("#000000", "#005aff", "#c8000a")
    assert np.array_equal(m.undo(data.labels[2], data.table), table[grey(2) % 3])
    assert data.colours == ((0, 0, 0), (0, 90, 255), (200, 0, 10))

    def with_palette(path, indices):
        image = Image.fromarray(indices).convert("P")
        image.putdata(indices.ravel().tolist())
        image.putpalette([c for colour in palette for c in colour])
        image.save(path)

    fill(two, lambda k: grey(k) % 3, save=with_palette)
    data = load_folder(*two)
    assert data.table["map"] == [[0, 0], [1, 1], [2, 2]] and data.colours == tuple(palette)
    assert np.array_equal(data.labels[1], grey(1) % 3)


def test_masks_saved_in_two_ways_are_two_classes_and_it_is_said(two):
    fill(two, lambda k: cells(k) * (255 if k % 2 else 1), n=4)
    shown: list[str] = []
    data = load_folder(*two, show=shown.append)
    assert data.table["map"] == [[0, 0], [1, 1], [255, 1]]
    assert all(np.array_equal(data.labels[k], cells(k)) for k in range(4))
    (note,) = [line for line in shown if "both are taken for class 1" in line]
    assert "c1_mask.png: holds 255" in note and "c0_mask.png holds 1" in note and "--labels" in note
    shown.clear()
    data = load_folder(*two, labels="0=a,1=b,255=ignore", show=shown.append)
    assert np.array_equal(data.labels[1], cells(1) * 255) and not any("both are" in line for line in shown)
    write_png(two[1] / "c0_mask.png", np.array([0, 1, 255], np.uint8)[grey(0) % 3])
    assert load_folder(*two).table["map"][-1] == [255, None]  # one mask holds both: 255 is ignored


def test_masks_of_one_bit(two):
    for k in range(3):
        write_png(two[0] / f"c{k}.png", grey(k))
        Image.fromarray(cells(k) > 0).save(two[1] / f"c{k}.png")
    write_png(two[1] / "c1.png", cells(1) * 255)
    tifffile.imwrite(two[1] / "c2.tif", cells(2) > 0)
    (two[1] / "c2.png").unlink()
    data = load_folder(*two)
    assert data.table["map"] == [[0, 0], [255, 1]] and np.array_equal(data.labels, [cells(k) for k in range(3)])


def test_palettes_and_opacity_of_images_are_not_taken_for_values(two):
    """What programs that make PNGs small turn a photograph into."""
    colours = np.random.default_rng(3).integers(0, 256, (9, 3), dtype=np.uint8)
    levels = np.array([90, 3, 200, 17, 0, 255, 40, 41, 42], np.uint8)
    for k, table in enumerate((levels[:, None].repeat(3, 1), levels[::-1, None].repeat(3, 1))):
        image = Image.fromarray(grey(k) % 9).convert("P")
        image.putdata((grey(k) % 9).ravel().tolist())
        image.putpalette(table.tobytes())
        image.save(two[0] / f"c{k}.png")
        write_png(two[1] / f"c{k}.png", cells(k))
    Image.fromarray(np.dstack([grey(5), grey(6)]), "LA").save(two[0] / "c2.png")
    image.save(two[0] / "c3.bmp")
    for k in (2, 3):
        write_png(two[1] / f"c{k}.png", cells(k))
    data = load_folder(*two)
    expected = [levels[grey(0) % 9], levels[::-1][grey(1) % 9], grey(5), levels[::-1][grey(1) % 9]]
    assert data.images.dtype == np.uint8 and np.array_equal(data.images, expected)
    image.putpalette(colours.tobytes())
    image.save(two[0] / "c0.png")
    assert np.array_equal(read_picture(two[0] / "c0.png"), colours[grey(1) % 9])
    assert np.array_equal(open_image(two[0] / "c2.png"), grey(5))  # as prediction reads it


def test_labels_name_merge_and_ignore(two):
    fill(two, lambda k: grey(k) % 4)
    data = load_folder(*two, labels="3=cell, 0=background,1=cell,2=ignore")
    assert data.classes == ("cell", "background")
    assert np.array_equal(data.labels[0], np.array([1, 0, 255, 0])[grey(0) % 4])
    assert m.undo(np.array([[0, 1, 255]]), data.table).tolist() == [[3, 0, 2]]
    for text, words in (
        ("0=a,1=b,2=c", ("_mask.png", "holds 3", "3=NAME")),
        ("0=a,1", ('"1"',)),
        ("0=a,0=b", ("twice",)),
        ("0=a,#ff0000=b", ("#ff0000", "numbers")),
        ("0=a,1=a,2=a,3=a", ("1 class",)),
    ):
        with pytest.raises(UserError) as caught:
            load_folder(*two, labels=text)
        assert all(w in str(caught.value) for w in words) and "\n" not in str(caught.value)


def test_instances_become_cells_apart_and_come_back_as_numbers(two):
    numbers = np.zeros((12, 15), np.uint16)
    numbers[2:8, 1:6], numbers[2:8, 6:12] = 700, 3  # they touch
    fill(two, lambda k: numbers)
    with pytest.raises(UserError, match="--labels"):
        load_folder(*two, instances=True, labels="0=a,3=b")
    data = load_folder(*two, instances=True)
    assert data.scored == "instances" and data.classes == ("background", "cell")
    assert np.array_equal(data.instances[0], numbers)
    found = m.undo(data.labels[0], data.table)
    assert found.dtype == np.uint16 and set(np.unique(found)) == {0, 1, 2}
    assert found[4, 2] != found[4, 9] and not data.labels[0][2:8, 5:7].any()


def test_images_of_every_type_keep_their_values(two):
    arrays = {
        "a.tif": grey(1, 9, 11, dtype=np.uint16),
        "b.npy": np.random.default_rng(2).normal(size=(20, 7)).astype(np.float32),
        "c.png": grey(3, 13, 8),
        "d.tif": grey(4, 3, 10, 9, dtype=np.uint16),
    }
    for name, array in arrays.items():
        if name.endswith("npy"):
            np.save(two[0] / name, array)
        else:
            (write_png if name.endswith("png") else write_tiff)(two[0] / name, array)
        write_tiff(two[1] / f"{name[0]}.tif", cells(5, *array.shape) * 255)
    shown: list[str] = []
    data = load_folder(*two, val=0.4, show=shown.append)
    assert isinstance(data.images, Mixed) and len(data.images) == 6 and data.channels == 1
    expected = [arrays["a.tif"], arrays["b.npy"], arrays["c.png"], *arrays["d.tif"]]
    assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(data.images, expected))
    assert [label.shape for label in data.labels] == [image.shape for image in expected]
    assert data.names[-1] == "d.tif section 2" and data.parts["val"].tolist() == [4, 5]
    assert isinstance(data.labels[data.parts["val"]], np.ndarray)  # two of one size: a stack
    assert any("float32, uint16, uint8" in line for line in shown)


def test_colour_grey_in_colour_and_both(two):
    fill(two, cells, n=3)
    for k in range(3):
        write_png(two[0] / f"c{k}.png", np.repeat(grey(k)[..., None], 3, 2))
    assert load_folder(*two).images.shape == (3, 12, 15)
    for k in range(3):
        Image.fromarray(grey(k, 12, 15, 4), "RGBA").save(two[0] / f"c{k}.png")
    assert load_folder(*two).images.shape == (3, 12, 15, 3)
    write_png(two[0] / "c1.png", grey(1))
    with pytest.raises(UserError, match=r"c1\.png: is grey, and c0\.png in colour"):
        load_folder(*two)


def test_stacks_in_colour_and_two_channels(tmp_path):
    stack, truth = grey(0, 4, 9, 8, 3), np.array([[0, 0, 0], [255, 0, 9]], np.uint8)[cells(0, 4, 9, 8)]
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="rgb")
    tifffile.imwrite(tmp_path / "a_mask.tif", truth, photometric="rgb")
    data = load_folder(tmp_path / "a.tif", tmp_path / "a_mask.tif")
    assert np.array_equal(data.images, stack) and np.array_equal(data.labels, cells(0, 4, 9, 8))
    assert np.array_equal(m.undo(data.labels, data.table), truth)
    assert (
        as_sections("a", stack, 3).shape == stack.shape and as_sections("a", stack[..., :1].repeat(3, 3), 1).ndim == 4
    )
    np.save(tmp_path / "b.npy", grey(1, 9, 8, 2))
    np.save(tmp_path / "b_mask.npy", cells(1, 9, 8))
    np.save(tmp_path / "c.npy", grey(2, 9, 8, 2))
    np.save(tmp_path / "c_mask.npy", cells(2, 9, 8))
    for name in ("a.tif", "a_mask.tif"):
        (tmp_path / name).unlink()
    assert load_folder(tmp_path, tmp_path).channels == 2


def test_validation_from_folders_and_by_share(two, tmp_path):
    fill(two, cells)
    for name in ("vi", "vm"):
        (tmp_path / name).mkdir()
    write_png(tmp_path / "vi" / "z.png", grey(2))  # a copy of c2
    write_png(tmp_path / "vm" / "z.png", cells(9))
    shown: list[str] = []
    data = load_folder(*two, tmp_path / "vi", tmp_path / "vm", show=shown.append)
    assert data.parts["train"].tolist() == [0, 1, 2, 3, 4] and data.parts["val"].tolist() == [5]
    assert any("z.png: has the same pixels as c2.png, one held out" in line for line in shown)
    with pytest.raises(UserError, match="--val-masks"):
        load_folder(*two, tmp_path / "vi")
    for share in (0, 1, -1, float("nan")):
        with pytest.raises(UserError, match="--val"):
            load_folder(*two, val=share)
    with pytest.raises(UserError, match="single image"):
        load_folder(tmp_path / "vi", tmp_path / "vm")


def test_one_folder_for_both_and_single_files(tmp_path):
    for k in range(2):
        write_png(tmp_path / f"a{k}.png", grey(k))
        write_png(tmp_path / f"a{k}_gt.png", cells(k))
    assert load_folder(tmp_path, tmp_path).names == ("a0.png", "a1.png")
    write_tiff(tmp_path / "stack.tif", grey(0, 4, 9, 8))
    write_tiff(tmp_path / "truth.tif", cells(0, 4, 9, 8))
    assert load_folder(tmp_path / "stack.tif", tmp_path / "truth.tif").images.shape == (4, 9, 8)


def refused(call, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert all(word in text for word in words) and "\n" not in text, text


def test_refusals(two, tmp_path):
    images, masks = two
    refused(lambda: load_folder(images, masks), "--images", "holds no images")
    refused(lambda: load_folder(tmp_path / "no", masks), "no such folder")
    fill(two, cells, n=2)
    write_png(masks / "c1_mask.png", cells(0, 12, 14))
    refused(lambda: load_folder(*two), "c1_mask.png", "12 x 14", "c1.png", "12 x 15", "export")
    fill(two, lambda k: grey(k) // 2, n=2)
    refused(lambda: load_folder(*two), "different values", "--instances")
    fill(two, lambda k: 0 * cells(k), n=2)
    refused(lambda: load_folder(*two), "hold 0 only")
    fill(two, cells, n=2)
    np.save(images / "c0.npy", np.full((12, 15), np.nan))
    (images / "c0.png").unlink()
    refused(lambda: load_folder(*two), "c0.npy", "NaN")
    (images / "c0.npy").unlink()
    (images / "c1.png").rename(images / "other.png")
    refused(lambda: load_folder(*two), "other.png", "c0_mask.png", "no image has a mask")
    Image.fromarray(cells(0) * 255).save(masks / "other.jpg")
    refused(lambda: load_folder(*two), "other.jpg", "JPEG")


def test_unknown_values_and_broken_tables():
    table = {"kind": "values", "type": "uint8", "map": [[0, 0], [9, 1]], "classes": ["0", "9"]}
    refused(lambda: m.apply(np.array([[0, 4]], np.uint8), table), "holds 4")
    for broken in ({}, table | {"map": 3}, table | {"type": "no"}, table | {"map": [[2, 999]]}):
        refused(lambda broken=broken: m.undo(np.zeros((2, 2), np.uint8), broken), "label table")
