"""The reference's pooling, judged by loops, SciPy and PyTorch."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from cases import cases
from checks import near, reference, sample
from scipy.ndimage import maximum_filter


def each(row_name: str):
    return [pytest.param(case, id=case.label) for case in cases(row_name)]


@pytest.mark.parametrize("case", each("max_pool2d"))
def test_max_pool2d_by_loops(case):
    """Going through the window row by row, a value takes the lead only if it is greater: the first of equals stays."""
    (x,) = sample(case, np.float64)
    y, indices = reference("max_pool2d", x, **case.options)
    (KH, KW), (sh, sw), (ph, pw) = (case.options[key] for key in ("kernel", "stride", "padding"))
    _, H, W, _ = x.shape
    for n, i, j, c in product(*map(range, y.shape)):
        best, where = None, None
        for u, v in product(range(KH), range(KW)):
            h, w = i * sh + u - ph, j * sw + v - pw
            if 0 <= h < H and 0 <= w < W and (best is None or x[n, h, w, c] > best):
                best, where = x[n, h, w, c], h * W + w
        assert y[n, i, j, c] == best
        assert indices[n, i, j, c] == where


def test_first_of_equal_maxima():
    x = np.array([[1.0, 3, 3], [3, 3, 0], [3, 0, 0]]).reshape(1, 3, 3, 1)
    options = {"kernel": (2, 2), "stride": (1, 1), "padding": (0, 0), "ceil_mode": False}
    y, indices = reference("max_pool2d", x, **options)
    assert y.ravel().tolist() == [3, 3, 3, 3]
    assert indices.ravel().tolist() == [1, 1, 3, 4]


def test_a_window_of_minus_infinity_and_one_with_nan():
    """-inf on the image beats padding, and a NaN is not lost: a network that diverges is seen."""
    options = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "ceil_mode": False}
    y, indices = reference("max_pool2d", np.full((1, 1, 1, 1), -np.inf), **options)
    assert y.item() == -np.inf
    assert indices.item() == 0
    x = np.zeros((1, 2, 2, 1))
    x[0, 1, 0, 0] = np.nan
    y, indices = reference("max_pool2d", x, **options)
    assert np.isnan(y).all()
    assert indices.item() == 2


def test_max_pool2d_by_scipy(rng):
    x = rng.normal(size=(2, 7, 9, 3))
    options = {"kernel": (3, 5), "stride": (1, 1), "padding": (1, 2), "ceil_mode": False}
    y, _ = reference("max_pool2d", x, **options)
    assert (y == maximum_filter(x, size=(1, 3, 5, 1), mode="constant", cval=-np.inf)).all()


@pytest.mark.parametrize("size", [(8, 9), (9, 8), (11, 7), (3, 3)])
@pytest.mark.parametrize("kernel, stride, pad", [(2, 2, 0), (3, 2, 1), (2, 3, 1), (3, 2, 0)])
@pytest.mark.parametrize("ceil", [False, True])
def test_max_pool2d_by_torch(rng, size, kernel, stride, pad, ceil):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, 3, *size))
    values, where = torch.nn.functional.max_pool2d(
        torch.tensor(x), kernel, stride, pad, ceil_mode=ceil, return_indices=True
    )
    options = {"kernel": (kernel,) * 2, "stride": (stride,) * 2, "padding": (pad,) * 2, "ceil_mode": ceil}
    y, indices = reference("max_pool2d", np.ascontiguousarray(x.transpose(0, 2, 3, 1)), **options)
    assert np.array_equal(y, values.numpy().transpose(0, 2, 3, 1))
    assert np.array_equal(indices, where.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize("case", each("scatter_by_index"))
def test_scatter_by_loops(case):
    values, indices = sample(case, np.float64)
    H, W = case.options["size"]
    expected = np.zeros((values.shape[0], H, W, values.shape[3]))
    for n, i, j, c in product(*map(range, values.shape)):
        h, w = divmod(int(indices[n, i, j, c]), W)
        expected[n, h, w, c] += values[n, i, j, c]
    assert near(reference("scatter_by_index", values, indices, size=(H, W)), expected)


@pytest.mark.parametrize("case", each("gather_by_index"))
def test_gather_by_loops(case):
    plane, indices = sample(case, np.float64)
    out = reference("gather_by_index", plane, indices)
    for n, i, j, c in product(*map(range, indices.shape)):
        h, w = divmod(int(indices[n, i, j, c]), plane.shape[2])
        assert out[n, i, j, c] == plane[n, h, w, c]


@pytest.mark.parametrize("wrong", [-1, 6])
def test_indices_outside_the_plane_are_refused(wrong):
    indices = np.array([0, wrong], np.int32).reshape(1, 1, 2, 1)
    with pytest.raises(ValueError, match=f"indices run from .*{wrong}"):
        reference("scatter_by_index", np.ones((1, 1, 2, 1)), indices, size=(2, 3))
    with pytest.raises(ValueError, match=f"indices run from .*{wrong}"):
        reference("gather_by_index", np.ones((1, 2, 3, 1)), indices)


def test_pooled_values_return_to_where_they_came_from(rng):
    """Scatter after pooling puts each maximum back on its pixel: SegNet's unpooling."""
    x = rng.permutation(2 * 6 * 8 * 3).reshape(2, 6, 8, 3) + 1.0
    options = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": False}
    y, indices = reference("max_pool2d", x, **options)
    plane = reference("scatter_by_index", y, indices, size=(6, 8))
    assert np.array_equal(plane, np.where(plane > 0, x, 0))
    assert (plane > 0).sum() == y.size
    assert np.array_equal(reference("gather_by_index", plane, indices), y)


def test_global_average_and_its_gradient(rng):
    x, dy = rng.normal(size=(2, 3, 5, 4)), rng.normal(size=(2, 1, 1, 4))
    y = reference("global_avg_pool", x)
    dx = reference("global_avg_pool_grad", dy, size=(3, 5))
    for n, c in product(range(2), range(4)):
        mean = sum(x[n, i, j, c] for i, j in product(range(3), range(5))) / 15
        assert abs(y[n, 0, 0, c] - mean) <= 1e-14
        assert near(dx[n, :, :, c], np.full((3, 5), dy[n, 0, 0, c] / 15))


def windows_and_pixels(x_shape, y_shape, kernel, stride, padding):
    """(i, j, h, w): window (i, j) holds pixel (h, w) of the map."""
    for i, j, u, v in product(*map(range, (*y_shape[1:3], *kernel))):
        h, w = i * stride[0] + u - padding[0], j * stride[1] + v - padding[1]
        if 0 <= h < x_shape[1] and 0 <= w < x_shape[2]:
            yield i, j, h, w


@pytest.mark.parametrize("case", each("avg_pool2d"))
def test_avg_pool2d_by_loops(case):
    (x,) = sample(case, np.float64)
    y = reference("avg_pool2d", x, **case.options)
    expected = np.zeros(y.shape)
    for i, j, h, w in windows_and_pixels(x.shape, y.shape, **case.options):
        expected[:, i, j] += x[:, h, w]
    KH, KW = case.options["kernel"]
    assert near(y, expected / (KH * KW))


@pytest.mark.parametrize("case", each("avg_pool2d_grad"))
def test_avg_pool2d_grad_by_loops(case):
    (dy,) = sample(case, np.float64)
    dx = reference("avg_pool2d_grad", dy, **case.options)
    options = {key: case.options[key] for key in ("kernel", "stride", "padding")}
    expected = np.zeros(dx.shape)
    for i, j, h, w in windows_and_pixels(dx.shape, dy.shape, **options):
        expected[:, h, w] += dy[:, i, j]
    KH, KW = options["kernel"]
    assert near(dx, expected / (KH * KW))


@pytest.mark.parametrize("size, kernel, stride, pad", [((41, 41), 3, 1, 1), ((8, 9), 2, 2, 0), ((11, 7), 5, 3, 2)])
def test_avg_pool2d_and_gradient_by_torch(rng, size, kernel, stride, pad):
    """Zeros of the padding count in the divisor, as is PyTorch's default."""
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, 3, *size))
    tx = torch.tensor(x, requires_grad=True)
    ty = torch.nn.functional.avg_pool2d(tx, kernel, stride, pad)
    options = {"kernel": (kernel,) * 2, "stride": (stride,) * 2, "padding": (pad,) * 2}
    y = reference("avg_pool2d", np.ascontiguousarray(x.transpose(0, 2, 3, 1)), **options)
    assert near(y, ty.detach().numpy().transpose(0, 2, 3, 1))
    dy = rng.normal(size=y.shape)
    ty.backward(torch.tensor(dy.transpose(0, 3, 1, 2).copy()))
    dx = reference("avg_pool2d_grad", dy, **options, size=size)
    assert near(dx, tx.grad.numpy().transpose(0, 2, 3, 1))
