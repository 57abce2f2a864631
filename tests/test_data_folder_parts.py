"""The parts by which a user's folders are read: pairs by name, tables of masks, sizes mixed, cells apart."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minunet.data import masks as m
from minunet.data.mixed import gather
from minunet.data.pairing import is_mask_name, pair
from minunet.data.separate import separate
from minunet.errors import UserError


def names(images: list[str], masks: list[str]):
    found = pair([Path(n) for n in images], [Path(n) for n in masks])
    left = [p.name for p in (*found.images_left, *found.masks_left)]
    return [(a.name, b.name) for a, b in found.pairs], left


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.png", "a.tif"),
        ("a.png", "A_mask.png"),
        ("a.png", "mask-a.png"),
        ("train-volume.tif", "train-labels.tif"),
        ("A b é.jpg", "A b é-gt.png"),
        ("t012.png", "man_seg012.tif"),
        ("img_7.png", "label_007.png"),
    ],
)
def test_one_name_fits(image, mask):
    others = (["t9.png", "t8.png"], []) if image == "t012.png" else ([], [])
    pairs, left = names([image, *others[0]], [mask])
    assert pairs == [(image, mask)] and left == others[0]


def test_names_common_to_all_are_taken_away_and_numbers_never():
    assert names(["x_1_rgb.png", "x_2_rgb.png"], ["y_2_L.png", "y_1_L.png"]) == (
        [("x_1_rgb.png", "y_1_L.png"), ("x_2_rgb.png", "y_2_L.png")],
        [],
    )
    assert names(["s1_t1.png", "s1_t2.png"], ["s2_m1.png", "s2_m2.png"])[0] == []
    assert names(["cat.png", "car.png"], ["mask_t.png", "mask_r.png"])[0] == []
    assert names(["a.png"], ["b.png"])[0] == []
    assert names(["mask.png"], ["gt.png"])[0] == []
    assert names(["1.png", "01.png"], ["mask_1.png"]) == ([("1.png", "mask_1.png")], ["01.png"])


@pytest.mark.parametrize(
    ("images", "masks", "both"),
    [
        (["a.png"], ["a_mask.png", "a_label.png"], ("a_mask.png", "a_label.png")),
        (["a.png", "a.tif"], ["a.png"], ("a.png", "a.tif")),
        (["t1.png", "t2.png"], ["m1.png", "m01.png", "m2.png", "m3.png"], None),
        (["t1.png", "t02.png"], ["m01.png", "m001.png", "m2.png"], ("m01.png", "m001.png")),
    ],
)
def test_ambiguous_names_are_refused_with_both(images, masks, both):
    if both is None:
        assert names(images, masks)[0] == [("t1.png", "m1.png"), ("t2.png", "m2.png")]
        return
    with pytest.raises(UserError) as caught:
        names(images, masks)
    assert all(b in str(caught.value) for b in both) and "\n" not in str(caught.value)


@settings(max_examples=60)
@given(st.lists(st.text("ab12_- ", min_size=1, max_size=5), unique=True, max_size=6), st.randoms())
def test_every_name_finds_itself_in_any_order(stems, random):
    images, masks = [f"{s}.png" for s in stems], [f"{s}.tif" for s in stems]
    random.shuffle(masks)
    assert names(images, masks) == ([(f"{s}.png", f"{s}.tif") for s in stems], [])


@pytest.mark.parametrize("name", ["pairing", "masks", "mixed", "separate"])
def test_the_examples_in_the_docstrings(name):
    result = doctest.testmod(importlib.import_module(f"minunet.data.{name}"))
    assert result.attempted >= 1 and result.failed == 0


def test_mask_names():
    assert [is_mask_name(Path(n)) for n in ("a_mask.png", "label 3.tif", "gt.npy", "amask.png", "mask2/a.png")] == [
        *(True, True, True),
        *(False, False),
    ]


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.sampled_from([np.uint8, np.uint16, np.int32]))
def test_table_and_undo_are_inverse(seed, H, W, dtype):
    rng = np.random.default_rng(seed)
    values = rng.choice(np.iinfo(np.uint8).max if dtype == np.uint8 else 60000, 5, replace=False)
    mask = rng.choice(values, (H, W)).astype(dtype)
    mask.flat[0], mask.flat[-1] = values[0], values[-1]
    kept = mask.copy()
    if H * W == 1:
        return
    table = m.make_table({Path("x"): m.survey(mask)})
    assert np.array_equal(m.undo(m.apply(mask, table), table), mask) and np.array_equal(mask, kept)


def test_mixed_is_indexed_like_a_stack():
    arrays = [np.full((2, 3 + k), k) for k in range(4)]
    mixed = gather(arrays)
    assert (len(mixed), mixed.shape, mixed.ndim, mixed.size) == (4, (4, 2, 6), 3, 2 * (3 + 4 + 5 + 6))
    assert np.array_equal(mixed[2], arrays[2]) and np.array_equal(mixed[np.int64(-1)], arrays[3])
    assert [a.shape for a in mixed[np.array([3, 1])]] == [(2, 6), (2, 4)]
    assert isinstance(mixed[1:2], np.ndarray) and mixed[1:2].shape == (1, 2, 4)
    assert isinstance(gather(arrays[:1] * 2), np.ndarray) and mixed.dtype == arrays[0].dtype


def test_separate_leaves_cells_apart_by_a_line():
    a = np.zeros((7, 9), np.int32)
    a[1:6, 1:4], a[1:6, 4:8] = 2, 9
    out = separate(a)
    assert out.dtype == np.uint8 and not out[:, 3:5].any() and out[3, 2] and out[3, 6]
    assert out[1:6, 1:3].all() and out[1:6, 5:8].all()  # no other border is touched
    assert np.array_equal(separate(np.array([[4, 4], [4, 4]])), np.ones((2, 2)))
    diagonal = separate(np.array([[1, 0], [0, 2]]))
    assert not diagonal.any()
    rng = np.random.default_rng(0)
    for dtype in (np.uint8, np.uint16, np.int32, np.int64):
        cells = np.kron(rng.integers(0, 4, (5, 6)), np.ones((3, 4), int)).astype(dtype)
        kept = cells.copy()
        wide = np.pad(cells, 1, mode="edge")
        around = np.stack([wide[i : i + 15, j : j + 24] for i in range(3) for j in range(3)])
        expected = (cells > 0) & ((around == 0) | (around == cells)).all(axis=0)
        assert np.array_equal(separate(cells), expected) and np.array_equal(cells, kept)
