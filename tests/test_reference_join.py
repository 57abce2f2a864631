"""The reference's crops and paddings, judged by loops and NumPy; their gradients as adjoints."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from cases import cases
from checks import reference, sample


def each(row_name: str):
    return [pytest.param(case, id=case.label) for case in cases(row_name)]


@pytest.mark.parametrize("case", each("crop_concat"))
def test_crop_concat_by_loops(case):
    x, skip = sample(case, np.float64)
    y = reference("crop_concat", x, skip)
    (N, H, W, C), (_, HS, WS, CS) = x.shape, skip.shape
    assert y.shape == (N, H, W, C + CS)
    top, left = (HS - H) // 2, (WS - W) // 2
    for n, i, j, c in product(*map(range, y.shape)):
        assert y[n, i, j, c] == (x[n, i, j, c] if c < C else skip[n, i + top, j + left, c - C])


def test_crop_of_u_net():
    """The 64 x 64 map of the contracting path meets the 56 x 56 map: 4 pixels go on each side (figure 1)."""
    skip = np.arange(64.0 * 64).reshape(1, 64, 64, 1)
    y = reference("crop_concat", np.zeros((1, 56, 56, 1)), skip)
    assert np.array_equal(y[0, :, :, 1], skip[0, 4:60, 4:60, 0])


@pytest.mark.parametrize("case", each("crop_concat_grad"))
def test_crop_concat_grad_is_the_adjoint(case, rng):
    (dy,) = sample(case, np.float64)
    dx, dskip = reference("crop_concat_grad", dy, **case.options)
    x, skip = rng.normal(size=dx.shape), rng.normal(size=dskip.shape)
    y = reference("crop_concat", x, skip)
    both = (dx * x).sum() + (dskip * skip).sum()
    assert abs((dy * y).sum() - both) <= 1e-12 * np.linalg.norm(dy) * np.linalg.norm(y)
    assert np.count_nonzero(dskip) <= dy[..., dx.shape[3] :].size


@pytest.mark.parametrize("case", each("pad"))
def test_pad_by_numpy(case):
    (x,) = sample(case, np.float64)
    top, bottom, left, right = case.options["padding"]
    widths = ((0, 0), (top, bottom), (left, right), (0, 0))
    fill = {"constant_values": case.options["value"]} if case.options["mode"] == "constant" else {}
    expected = np.pad(x, widths, mode=case.options["mode"], **fill)
    assert np.array_equal(reference("pad", x, **case.options), expected)


def test_mirrors_do_not_repeat_the_edge():
    x = np.array([1.0, 2, 3, 4]).reshape(1, 1, 4, 1)
    y = reference("pad", x, padding=(0, 0, 2, 3), mode="reflect", value=0.0)
    assert y.ravel().tolist() == [3, 2, 1, 2, 3, 4, 3, 2, 1]
    dx = reference("pad_grad", np.ones((1, 1, 9, 1)), padding=(0, 0, 2, 3), mode="reflect")
    assert dx.ravel().tolist() == [2, 3, 3, 1]


@pytest.mark.parametrize("case", each("pad_grad"))
def test_pad_grad_is_the_adjoint(case, rng):
    (dy,) = sample(case, np.float64)
    dx = reference("pad_grad", dy, **case.options)
    x = rng.normal(size=dx.shape)
    y = reference("pad", x, **case.options, value=0.0)
    assert y.shape == dy.shape
    assert abs((dy * y).sum() - (dx * x).sum()) <= 1e-12 * np.linalg.norm(dy) * np.linalg.norm(y)


@pytest.mark.parametrize("case", each("crop"))
def test_crop_by_loops(case):
    (x,) = sample(case, np.float64)
    y = reference("crop", x, **case.options)
    top, left, first = case.options["offset"]
    assert y.shape == (x.shape[0], *case.options["size"])
    for n, i, j, c in product(*map(range, y.shape)):
        assert y[n, i, j, c] == x[n, top + i, left + j, first + c]


@pytest.mark.parametrize("case", each("embed"))
def test_embed_is_the_adjoint_of_crop(case, rng):
    (dy,) = sample(case, np.float64)
    dx = reference("embed", dy, **case.options)
    x = rng.normal(size=dx.shape)
    y = reference("crop", x, offset=case.options["offset"], size=dy.shape[1:])
    assert abs((dy * y).sum() - (dx * x).sum()) <= 1e-12 * np.linalg.norm(dy) * np.linalg.norm(y)
    assert np.count_nonzero(dx) == dy.size
