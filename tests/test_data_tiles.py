"""Mirroring, the overlap-tile plan and the symmetries, at every awkward size."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from minunet.data.tiles import mirror_pad, plan, reflect_indices, symmetries, window
from minunet.errors import UserError

side = st.integers(1, 40)
pad = st.integers(0, 100)


@settings(max_examples=150)
@given(H=side, W=side, top=pad, bottom=pad, left=pad, right=pad)
def test_mirror_pad_is_numpys_reflect(H, W, top, bottom, left, right):
    image = np.random.default_rng(H * W).normal(size=(H, W, 2))
    padded = mirror_pad(image, top, bottom, left, right)
    pads = ((top, bottom), (left, right), (0, 0))
    mode = [{"mode": "reflect"} if n > 1 else {"mode": "edge"} for n in (H, W)]  # one pixel mirrors to itself
    expected = np.pad(image, (pads[0], (0, 0), (0, 0)), **mode[0])
    expected = np.pad(expected, ((0, 0), pads[1], (0, 0)), **mode[1])
    assert np.array_equal(padded, expected)


def test_reflect_indices_step_by_step():
    for n in range(1, 7):
        for position, index in zip(range(-30, 30), reflect_indices(-30, 30, n)):
            i = position
            while not 0 <= i < n and n > 1:
                i = -i if i < 0 else 2 * (n - 1) - i
            assert index == (i if n > 1 else 0)


@given(H=side, W=side, top=st.integers(-60, 60), left=st.integers(-60, 60), h=side, w=side)
def test_a_window_is_a_part_of_the_mirrored_plane(H, W, top, left, h, w):
    image = np.arange(H * W).reshape(H, W)
    plane = mirror_pad(image, 60, 100, 60, 100)
    part = window(image, top, left, h, w)
    assert np.array_equal(part, plane[top + 60 : top + 60 + h, left + 60 : left + 60 + w])
    part[...] = -1
    assert image.min() == 0  # a copy


@settings(max_examples=200)
@given(
    H=st.integers(1, 90),
    W=st.integers(1, 90),
    oh=st.integers(1, 30),
    ow=st.integers(1, 30),
    my=st.integers(0, 12),
    mx=st.integers(0, 12),
    align=st.sampled_from([1, 2, 4, 16]),
)
def test_a_plan_covers_each_pixel_once_with_its_context(H, W, oh, ow, my, mx, align):
    """A "network" that takes the middle of its input must give the image back; each pixel is written once."""
    size, tile_in, tile_out = (H, W), (oh + 2 * my, ow + 2 * mx), (oh, ow)
    if (oh < align and oh < H) or (ow < align and ow < W):
        with pytest.raises(UserError, match="larger tile"):
            plan(size, tile_in, tile_out, align)
        return
    image = np.random.default_rng(0).normal(size=(H, W, 1))
    result = np.full((H, W, 1), np.nan)
    writes = np.zeros((H, W), int)
    for tile in plan(size, tile_in, tile_out, align):
        assert tile.source[0] % align == -my % align and tile.source[1] % align == -mx % align
        x = tile.read(image)
        assert x.shape == (*tile_in, 1)
        tile.write(result, x[my : my + oh, mx : mx + ow])
        top, left, h, w = tile.target
        writes[top : top + h, left : left + w] += 1
    assert (writes == 1).all()
    assert np.array_equal(result, image)


def test_tiled_equals_untiled_for_a_valid_filter_and_pooling():
    """5 x 5 mean filter, then 4 x 4 block means spread back: depends on alignment, as pooling networks do."""

    def network(x):
        y = ndimage.uniform_filter(x, 5)[2:-2, 2:-2]
        h, w = y.shape
        return y.reshape(h // 4, 4, w // 4, 4).mean((1, 3)).repeat(4, 0).repeat(4, 1)

    image = np.random.default_rng(1).normal(size=(37, 50))
    untiled = np.empty(image.shape)
    for tile in plan(image.shape, (44, 56), (40, 52), 4):
        tile.write(untiled, network(tile.read(image)))
    tiled = np.empty(image.shape)
    tiles = plan(image.shape, (16, 20), (12, 16), 4)
    assert len(tiles) == 4 * 4
    for tile in tiles:
        tile.write(tiled, network(tile.read(image)))
    error = np.abs(tiled - untiled).max()
    assert np.isfinite(error) and error <= 1e-12


def test_the_papers_sizes():
    assert len(plan((512, 512), (700, 700), (516, 516), 16)) == 1
    assert len(plan((512, 512), (572, 572), (388, 388), 16)) == 4
    starts = sorted({tile.target[0] for tile in plan((300, 10), (316, 316), (132, 132), 16)})
    assert starts == [0, 128, 256]


def test_symmetries_are_eight_and_undone():
    image = np.arange(3 * 5 * 2).reshape(3, 5, 2)
    seen = set()
    for apply, undo in symmetries():
        turned = apply(image)
        assert np.array_equal(undo(turned), image)
        seen.add((turned.shape, turned.tobytes()))
    assert len(seen) == 8
    assert len(symmetries(7)) == 7
    assert np.array_equal(symmetries(1)[0][0](image), image)


def test_undo_brings_a_prediction_back():
    """undo must be applied to a same-sized prediction of the turned image, not only to the image itself."""
    image = np.random.default_rng(0).normal(size=(6, 9))
    for apply, undo in symmetries():
        assert np.allclose(undo(ndimage.uniform_filter(apply(image), 3)), ndimage.uniform_filter(image, 3))


def test_refusals():
    for call in (
        lambda: mirror_pad(np.zeros((3, 3)), -1, 0, 0, 0),
        lambda: mirror_pad(np.zeros((0, 3)), 1, 0, 0, 0),
        lambda: plan((0, 5), (8, 8), (4, 4)),
        lambda: plan((5, 5), (8, 8), (9, 4)),
        lambda: symmetries(9),
        lambda: symmetries(0),
    ):
        with pytest.raises(UserError):
            call()


@pytest.mark.parametrize("name", ["tiles", "weights", "isbi"])
def test_the_examples_in_the_docstrings(name):
    result = doctest.testmod(importlib.import_module(f"minunet.data.{name}"))
    assert result.attempted >= 1 and result.failed == 0
