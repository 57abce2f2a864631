"""Names as cameras, microscopes and operating systems write them: each image finds its own mask, and no other."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from minunet.data.pairing import is_mask_name, pair
from minunet.errors import UserError

COMPOSED = [unicodedata.normalize("NFC", name) for name in ("größe 1", "größe 2", "Zürich 3")]
APART = [unicodedata.normalize("NFD", name) for name in COMPOSED]


def found(images: list[str], masks: list[str]) -> list[tuple[str, str]]:
    return [(a.name, b.name) for a, b in pair([Path(n) for n in images], [Path(n) for n in masks]).pairs]


@pytest.mark.parametrize("word", ["", "_mask", " Labels"])
@pytest.mark.parametrize("turned", [False, True])
def test_umlauts_of_macos_and_of_others_are_the_same(word, turned):
    assert COMPOSED != APART
    ours, theirs = (APART, COMPOSED) if turned else (COMPOSED, APART)
    images, masks = [f"{name}.png" for name in ours], [f"{name}{word}.tif" for name in theirs]
    assert found(images, masks) == list(zip(images, masks))
    with pytest.raises(UserError, match="could be its mask"):  # one folder cannot hold both on macOS
        found(images[:1], [f"{ours[0]}.tif", f"{theirs[0]}.tif"])


def test_ome_tif_is_an_ending():
    images = ["img_7.ome.tif", "img_8.ome.tiff", "img_9.png"]
    masks = ["img_07_mask.ome.tif", "img_8.png", "img_9_GT.OME.TIF"]
    assert found(images, masks) == list(zip(images, masks))
    assert is_mask_name(Path("img_07_mask.ome.tif")) and not is_mask_name(Path("img_07.ome.tif"))
    assert found(["a.ome.png", "home.tif"], ["a.png", "h_mask.png"]) == [("a.ome.png", "a.png")]


@pytest.mark.parametrize("mask", ["{}_cp_masks.png", "{}_Simple Segmentation.tif", "{}-labels.tif", "Mask of {}.png"])
def test_names_that_other_programs_give(mask):
    stems = ["Plate 1.v2", "Plate 10.v2", "Plate 2.v2"]
    images, masks = [f"{s}.tif" for s in stems], [mask.format(s) for s in stems]
    assert found(images, masks) == list(zip(images, masks))
