"""The reference's up-sampling, judged by loops, SciPy and PyTorch; its gradients as adjoints."""

from __future__ import annotations

from itertools import product
from math import floor

import numpy as np
import pytest
from cases import cases
from checks import near, reference, sample
from scipy.ndimage import map_coordinates

MODES = [("nearest", {}), ("bilinear", {"align_corners": False}), ("bilinear", {"align_corners": True})]


def each(row_name: str):
    return [pytest.param(case, id=case.label) for case in cases(row_name)]


@pytest.mark.parametrize("case", each("upsample_nearest"))
def test_nearest_by_loops(case):
    (x,) = sample(case, np.float64)
    y = reference("upsample_nearest", x, **case.options)
    (_, H, W, _), (_, OH, OW, _) = x.shape, y.shape
    for n, i, j, c in product(*map(range, y.shape)):
        assert y[n, i, j, c] == x[n, i * H // OH, j * W // OW, c]


def source(i: int, size: int, out: int, align_corners: bool) -> float:
    if align_corners:
        return i * (size - 1) / (out - 1) if out > 1 else 0.0
    return max((i + 0.5) * size / out - 0.5, 0.0)


@pytest.mark.parametrize("case", each("upsample_bilinear"))
def test_bilinear_by_loops(case):
    (x,) = sample(case, np.float64)
    y = reference("upsample_bilinear", x, **case.options)
    (_, H, W, _), (_, OH, OW, _) = x.shape, y.shape
    expected = np.empty(y.shape)
    for n, i, j, c in product(*map(range, y.shape)):
        h, w = source(i, H, OH, case.options["align_corners"]), source(j, W, OW, case.options["align_corners"])
        h0, w0 = floor(h), floor(w)
        h1, w1 = min(h0 + 1, H - 1), min(w0 + 1, W - 1)
        above = (1 - (w - w0)) * x[n, h0, w0, c] + (w - w0) * x[n, h0, w1, c]
        below = (1 - (w - w0)) * x[n, h1, w0, c] + (w - w0) * x[n, h1, w1, c]
        expected[n, i, j, c] = (1 - (h - h0)) * above + (h - h0) * below
    assert near(y, expected)


@pytest.mark.parametrize("case", each("upsample_bilinear"))
def test_bilinear_by_scipy(case):
    (x,) = sample(case, np.float64)
    y = reference("upsample_bilinear", x, **case.options)
    (_, H, W, _), (_, OH, OW, _) = x.shape, y.shape
    align = case.options["align_corners"]
    rows, columns = [source(i, H, OH, align) for i in range(OH)], [source(j, W, OW, align) for j in range(OW)]
    where = np.meshgrid(rows, columns, indexing="ij")
    for n, c in product(range(x.shape[0]), range(x.shape[3])):
        assert near(y[n, :, :, c], map_coordinates(x[n, :, :, c], where, order=1, mode="nearest"))


def test_worked_example():
    """Two pixels 0, 4 to four: halfway between pixels, or from corner to corner."""
    x = np.array([0.0, 4.0]).reshape(1, 1, 2, 1)
    assert reference("upsample_nearest", x, size=(1, 4)).ravel().tolist() == [0, 0, 4, 4]
    assert reference("upsample_bilinear", x, size=(1, 4), align_corners=False).ravel().tolist() == [0, 1, 3, 4]
    y = reference("upsample_bilinear", x, size=(1, 4), align_corners=True)
    assert near(y.ravel(), np.array([0, 4 / 3, 8 / 3, 4]))


@pytest.mark.parametrize("kind, options", MODES)
@pytest.mark.parametrize("shape, size", [((2, 3, 5, 3), (6, 10)), ((1, 11, 8, 4), (5, 3)), ((1, 5, 4, 2), (13, 4))])
def test_gradients_are_adjoints(rng, kind, options, shape, size):
    """sum(dy f(x)) = sum(f*(dy) x) for random x and dy."""
    x, dy = rng.normal(size=shape), rng.normal(size=(shape[0], *size, shape[3]))
    y = reference(f"upsample_{kind}", x, size=size, **options)
    dx = reference(f"upsample_{kind}_grad", dy, size=shape[1:3], **options)
    assert dx.shape == x.shape
    assert abs((dy * y).sum() - (dx * x).sum()) <= 1e-12 * np.linalg.norm(dy) * np.linalg.norm(y)


@pytest.mark.parametrize("kind, options", MODES)
@pytest.mark.parametrize("shape, size", [((2, 3, 5, 3), (6, 10)), ((1, 11, 8, 4), (5, 3)), ((1, 1, 6, 2), (4, 1))])
def test_up_sampling_by_torch(rng, kind, options, shape, size):
    torch = pytest.importorskip("torch")
    x, dy = rng.normal(size=shape), rng.normal(size=(shape[0], *size, shape[3]))
    tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    ty = torch.nn.functional.interpolate(tx, size=size, mode=kind, **options)
    ty.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
    y = reference(f"upsample_{kind}", x, size=size, **options)
    dx = reference(f"upsample_{kind}_grad", dy, size=shape[1:3], **options)
    # PyTorch's positions are in float32 for some modes: their error is 1e-7 of a pixel.
    assert near(y, ty.detach().numpy().transpose(0, 2, 3, 1), 1e-6)
    assert near(dx, tx.grad.numpy().transpose(0, 2, 3, 1), 1e-6)
