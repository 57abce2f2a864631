"""The reference's depthwise convolution, judged by loops, by the full convolution, SciPy and PyTorch."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
from cases import cases
from checks import near, reference, sample
from scipy.signal import correlate

ENOUGH = 60_000  # multiplications that plain Python does in a moment
GEOMETRY = ("stride", "padding", "dilation")


def small(row_name: str):
    """The row's cases that loops can do."""
    found = []
    for case in cases(row_name):
        first, second = (a.shape for a in sample(case, np.float64)[:2])
        kernel = case.options.get("size") if row_name.endswith("grad_w") else second[1:3]
        if prod(first) * prod(kernel) <= ENOUGH:
            found.append(pytest.param(case, id=case.label))
    return found


def meetings(x_shape, w_shape, y_shape, stride, padding, dilation):
    """(n, i, j, o, u, v, h, w, c): output (n,i,j,o) meets pixel (n,h,w,c) through weight (o,u,v,0)."""
    (_, H, W, C), (O, KH, KW, _), (N, OH, OW, _) = x_shape, w_shape, y_shape
    for n, i, j, u, v in product(range(N), range(OH), range(OW), range(KH), range(KW)):
        h = i * stride[0] + u * dilation[0] - padding[0]
        w = j * stride[1] + v * dilation[1] - padding[2]
        if 0 <= h < H and 0 <= w < W:
            for o in range(O):
                yield n, i, j, o, u, v, h, w, o // (O // C)


@pytest.mark.parametrize("case", small("depthwise_conv2d"))
def test_forward_by_loops(case):
    x, w, b = sample(case, np.float64)
    y = reference("depthwise_conv2d", x, w, b, **case.options)
    expected = np.zeros(y.shape) if b is None else np.broadcast_to(b, y.shape).copy()
    geometry = {key: case.options[key] for key in GEOMETRY}
    for n, i, j, o, u, v, h, k, c in meetings(x.shape, w.shape, y.shape, **geometry):
        expected[n, i, j, o] += x[n, h, k, c] * w[o, u, v, 0]
    assert near(y, np.maximum(expected, 0) if case.options["activation"] == "relu" else expected)


@pytest.mark.parametrize("case", small("depthwise_conv2d_grad_x"))
def test_grad_x_by_loops(case):
    dy, w = sample(case, np.float64)
    dx = reference("depthwise_conv2d_grad_x", dy, w, **case.options)
    expected = np.zeros(dx.shape)
    geometry = {key: case.options[key] for key in GEOMETRY}
    for n, i, j, o, u, v, h, k, c in meetings(dx.shape, w.shape, dy.shape, **geometry):
        expected[n, h, k, c] += dy[n, i, j, o] * w[o, u, v, 0]
    assert near(dx, expected)


@pytest.mark.parametrize("case", small("depthwise_conv2d_grad_w"))
def test_grad_w_by_loops(case):
    x, dy = sample(case, np.float64)
    dw = reference("depthwise_conv2d_grad_w", x, dy, **case.options)
    expected = np.zeros(dw.shape)
    geometry = {key: case.options[key] for key in GEOMETRY}
    for n, i, j, o, u, v, h, k, c in meetings(x.shape, dw.shape, dy.shape, **geometry):
        expected[o, u, v, 0] += dy[n, i, j, o] * x[n, h, k, c]
    assert near(dw, expected)


def test_loops_see_every_kind_of_case():
    for row_name in ("depthwise_conv2d", "depthwise_conv2d_grad_x", "depthwise_conv2d_grad_w"):
        left = {param.values[0].label for param in small(row_name)}
        assert {"3x3 valid", "one pixel", "3x3 stride 2", "asymmetric padding", "all at once"} <= left


@pytest.mark.parametrize("mode, pad", [("valid", 0), ("same", 1), ("full", 2)])
def test_forward_by_scipy(rng, mode, pad):
    x, w = rng.normal(size=(2, 9, 12, 5)), rng.normal(size=(10, 3, 3, 1))
    options = {"stride": (1, 1), "padding": (pad,) * 4, "dilation": (1, 1), "activation": None}
    y = reference("depthwise_conv2d", x, w, None, **options)
    for n, o in product(range(2), range(10)):
        assert near(y[n, :, :, o], correlate(x[n, :, :, o // 2], w[o, :, :, 0], mode))


@pytest.mark.parametrize("stride, pad, dilation, m", [((1, 2), (0, 1), (1, 1), 1), ((2, 2), (2, 1), (2, 3), 3)])
def test_forward_and_gradients_by_torch(rng, stride, pad, dilation, m):
    """Also the order of the output channels: PyTorch's groups = C."""
    torch = pytest.importorskip("torch")
    x, w, b = rng.normal(size=(2, 11, 10, 4)), rng.normal(size=(4 * m, 3, 2, 1)), rng.normal(size=4 * m)
    tx, tw, tb = (
        torch.tensor(a, requires_grad=True) for a in (x.transpose(0, 3, 1, 2).copy(), w.transpose(0, 3, 1, 2).copy(), b)
    )
    ty = torch.nn.functional.conv2d(tx, tw, tb, stride, pad, dilation, groups=4)
    options = {"stride": stride, "padding": (pad[0], pad[0], pad[1], pad[1]), "dilation": dilation}
    y = reference("depthwise_conv2d", x, w, b, **options, activation=None)
    assert near(y, ty.detach().numpy().transpose(0, 2, 3, 1))
    dy = rng.normal(size=y.shape)
    ty.backward(torch.tensor(dy.transpose(0, 3, 1, 2).copy()))
    dx = reference("depthwise_conv2d_grad_x", dy, w, **options, size=(11, 10, 4))
    assert near(dx, tx.grad.numpy().transpose(0, 2, 3, 1))
    dw = reference("depthwise_conv2d_grad_w", x, dy, **options, size=(3, 2))
    assert near(dw, tw.grad.numpy().transpose(0, 2, 3, 1))
