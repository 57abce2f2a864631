"""The reference's normalisation across channels, and the fold of a batch-norm: loops, finite differences, PyTorch."""

from __future__ import annotations

from itertools import product
from math import fsum, hypot

import numpy as np
import pytest
from checks import near, reference

LOCAL = [(5, 1e-4, 0.75), (5, 2.0, 0.75), (4, 1.5, 0.6), (1, 1.0, 0.5), (20, 3.0, 0.75)]


@pytest.mark.parametrize("size, alpha, beta", LOCAL)
def test_lrn_by_loops(rng, size, alpha, beta):
    x = rng.normal(size=(2, 3, 2, 7))
    y = reference("lrn", x, size=size, alpha=alpha, beta=beta)
    for n, i, j, c in product(*map(range, x.shape)):
        around = [float(x[n, i, j, k]) for k in range(7) if c - size // 2 <= k <= c + (size - 1) // 2]
        expected = x[n, i, j, c] / (1 + alpha / size * fsum(v * v for v in around)) ** beta
        assert abs(y[n, i, j, c] - expected) <= 1e-13


@pytest.mark.parametrize("size, alpha, beta", LOCAL)
def test_lrn_and_gradient_by_torch(rng, size, alpha, beta):
    torch = pytest.importorskip("torch")
    x, dy = rng.normal(size=(2, 2, 5, 3, 7))
    tx = torch.tensor(x.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    ty = torch.nn.functional.local_response_norm(tx, size, alpha, beta, 1.0)
    ty.backward(torch.tensor(dy.transpose(0, 3, 1, 2).copy()))
    options = {"size": size, "alpha": alpha, "beta": beta}
    assert near(reference("lrn", x, **options), ty.detach().numpy().transpose(0, 2, 3, 1))
    assert near(reference("lrn_grad", dy, x, **options), tx.grad.numpy().transpose(0, 2, 3, 1))


def slope_by_differences(name, x, dy, direction, options):
    h = 1e-5
    f = [(dy * reference(name, x + step * direction, **options)).sum() for step in (h, -h)]
    return (f[0] - f[1]) / (2 * h)


@pytest.mark.parametrize("size, alpha, beta", LOCAL)
def test_lrn_gradient_by_finite_differences(rng, size, alpha, beta):
    x, dy, direction = rng.normal(size=(3, 2, 3, 2, 7))
    options = {"size": size, "alpha": alpha, "beta": beta}
    slope = (reference("lrn_grad", dy, x, **options) * direction).sum()
    assert abs(slope - slope_by_differences("lrn", x, dy, direction, options)) <= 1e-8
    assert abs(slope) > 1e-3  # far from 0, so that a gradient of zero would be seen


def test_l2_normalize_by_loops(rng):
    x = rng.normal(size=(2, 3, 2, 5))
    x[0, 1, 1] = 0
    x[1, 2, 0] *= 1e-7
    y = reference("l2_normalize", x, eps=1e-6)
    for n, i, j in product(*map(range, x.shape[:3])):
        r = hypot(*map(float, x[n, i, j]))
        assert np.abs(y[n, i, j] - x[n, i, j] / max(r, 1e-6)).max() <= 1e-15
    assert (y[0, 1, 1] == 0).all()


@pytest.mark.parametrize("eps", [1e-12, 2.0])  # 2.0: above the norm of some pixels
def test_l2_gradient_by_finite_differences(rng, eps):
    x, dy, direction = rng.normal(size=(3, 2, 3, 2, 5))
    slope = (reference("l2_normalize_grad", dy, x, eps=eps) * direction).sum()
    assert abs(slope - slope_by_differences("l2_normalize", x, dy, direction, {"eps": eps})) <= 1e-8
    assert abs(slope) > 1e-3


@pytest.mark.parametrize("eps", [1e-12, 1e-6, 2.0])
def test_l2_and_gradient_by_torch(rng, eps):
    torch = pytest.importorskip("torch")
    x, dy = rng.normal(size=(2, 3, 4, 5, 6))
    x[1, 2] = 0
    tx = torch.tensor(x, requires_grad=True)
    ty = torch.nn.functional.normalize(tx, dim=-1, eps=eps)
    ty.backward(torch.tensor(dy))
    assert near(reference("l2_normalize", x, eps=eps), ty.detach().numpy())
    assert near(reference("l2_normalize_grad", dy, x, eps=eps), tx.grad.numpy())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axis", [0, -1])
def test_fold_by_loops(rng, axis, bias):
    w = rng.normal(size=(3, 2, 3, 4))
    c = w.shape[axis]
    mean, gamma, beta, b = rng.normal(size=(4, c))
    var = rng.uniform(0.1, 2, c)
    folded, shift = reference("fold_batch_norm", w, mean, var, gamma, beta, b if bias else None, eps=1e-3, axis=axis)
    for index in product(*map(range, w.shape)):
        o = index[axis]
        assert abs(folded[index] - w[index] * gamma[o] / (var[o] + 1e-3) ** 0.5) <= 1e-13
    for o in range(c):
        expected = ((b[o] if bias else 0) - mean[o]) * gamma[o] / (var[o] + 1e-3) ** 0.5 + beta[o]
        assert abs(shift[o] - expected) <= 1e-13


@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_convolution_is_both(rng, bias):
    """conv(x, w') + b' = batch_norm(conv(x, w) + b), of a convolution and of a transposed one (conv2d_grad_x)."""
    geometry = {"stride": (2, 1), "padding": (1, 0, 1, 2), "dilation": (1, 1), "activation": None}
    for row, axis, size in (("conv2d", 0, {}), ("conv2d_grad_x", -1, {"size": (13, 7)})):
        w = rng.normal(size=(3, 2, 3, 4))
        x = rng.normal(size=(2, 7, 8, w.shape[3 if axis == 0 else 0]))
        c = w.shape[axis]
        mean, gamma, beta, b = rng.normal(size=(4, c))
        vectors, b = (mean, rng.uniform(0.1, 2, c), gamma, beta), b if bias else None
        y = reference(row, x, w, b, **geometry, **size)
        expected = reference("batch_norm", y, *vectors, eps=1e-3, activation=None)
        folded = reference("fold_batch_norm", w, *vectors, b, eps=1e-3, axis=axis)
        assert near(reference(row, x, *folded, **geometry, **size), expected)
