"""The reference convolution, judged by loops, SciPy and (where it is installed) PyTorch."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
from cases import cases
from checks import near, reference, sample
from scipy.signal import correlate

ENOUGH = 150_000  # multiplications that plain Python does in a moment


def small(row_name: str):
    """The row's cases that loops can do, without the fused variants."""
    found = []
    for case in cases(row_name):
        a, b = (x.shape for x in sample(case, np.float64)[:2])
        taps = prod(b[:3]) if row_name != "conv2d_grad_w" else b[3] * prod(case.options["size"])
        outputs = prod(a) if row_name != "conv2d_grad_w" else prod(b[:3]) * a[3]
        if case.options.get("activation") is None and taps * outputs < ENOUGH:
            found.append(pytest.param(case, id=case.label))
    return found


def meetings(x_shape, w_shape, y_shape, stride, padding, dilation):
    """(n, i, j, o, u, v, c, h, w): output (n,i,j,o) meets pixel (n,h,w,c) through weight (o,u,v,c)."""
    (_, H, W, C), (O, KH, KW, _), (N, OH, OW, _) = x_shape, w_shape, y_shape
    for n, i, j, u, v in product(range(N), range(OH), range(OW), range(KH), range(KW)):
        h = i * stride[0] + u * dilation[0] - padding[0]
        w = j * stride[1] + v * dilation[1] - padding[2]
        if 0 <= h < H and 0 <= w < W:
            for o, c in product(range(O), range(C)):
                yield n, i, j, o, u, v, c, h, w


def sizes(options):
    return {key: options[key] for key in ("stride", "padding", "dilation")}


@pytest.mark.parametrize("case", small("conv2d"))
def test_conv2d_by_loops(case):
    x, w, b = sample(case, np.float64)
    y = reference("conv2d", x, w, b, **case.options)
    expected = np.zeros(y.shape) if b is None else np.broadcast_to(b, y.shape).copy()
    for n, i, j, o, u, v, c, h, k in meetings(x.shape, w.shape, y.shape, **sizes(case.options)):
        expected[n, i, j, o] += x[n, h, k, c] * w[o, u, v, c]
    assert near(y, expected)


@pytest.mark.parametrize("case", small("conv2d_grad_x"))
def test_conv2d_grad_x_by_loops(case):
    dy, w, b = sample(case, np.float64)
    dx = reference("conv2d_grad_x", dy, w, b, **case.options)
    expected = np.zeros(dx.shape) if b is None else np.broadcast_to(b, dx.shape).copy()
    for n, i, j, o, u, v, c, h, k in meetings(dx.shape, w.shape, dy.shape, **sizes(case.options)):
        expected[n, h, k, c] += dy[n, i, j, o] * w[o, u, v, c]
    assert near(dx, expected)


@pytest.mark.parametrize("case", small("conv2d_grad_w"))
def test_conv2d_grad_w_by_loops(case):
    x, dy = sample(case, np.float64)
    dw = reference("conv2d_grad_w", x, dy, **case.options)
    expected = np.zeros(dw.shape)
    for n, i, j, o, u, v, c, h, k in meetings(x.shape, dw.shape, dy.shape, **sizes(case.options)):
        expected[o, u, v, c] += dy[n, i, j, o] * x[n, h, k, c]
    assert near(dw, expected)


def test_loops_see_every_kind_of_case():
    """The filter above must leave strides, dilation, padding on one side, a bias and a rectangular kernel."""
    for row_name in ("conv2d", "conv2d_grad_x", "conv2d_grad_w"):
        left = {param.values[0].label for param in small(row_name)}
        assert {"3x3 valid", "one pixel", "stride 2 x 3", "dilation 1 x 3", "asymmetric padding", "all at once"} <= left


@pytest.mark.parametrize("mode, pad", [("valid", 0), ("same", 1), ("full", 2)])
def test_conv2d_by_scipy(rng, mode, pad):
    x, w = rng.normal(size=(2, 9, 12, 5)), rng.normal(size=(4, 3, 3, 5))
    padding = {"stride": (1, 1), "padding": (pad,) * 4, "dilation": (1, 1)}
    y = reference("conv2d", x, w, None, **padding, activation=None)
    for n, o in product(range(2), range(4)):
        assert near(y[n, :, :, o], sum(correlate(x[n, :, :, c], w[o, :, :, c], mode) for c in range(5)))


def test_activation_comes_last(rng):
    x, w, b = rng.normal(size=(1, 5, 6, 3)), rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)
    options = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1)}
    plain = reference("conv2d", x, w, b, **options, activation=None)
    assert (reference("conv2d", x, w, b, **options, activation="relu") == np.maximum(plain, 0)).all()
    dy, b = rng.normal(size=(1, 5, 6, 4)), rng.normal(size=3)
    plain = reference("conv2d_grad_x", dy, w, b, **options, size=(5, 6), activation=None)
    fused = reference("conv2d_grad_x", dy, w, b, **options, size=(5, 6), activation="relu")
    assert (fused == np.maximum(plain, 0)).all()
    assert (plain < 0).any()


def test_channel_sum_by_loops(rng):
    dy = rng.normal(size=(2, 3, 5, 4))
    expected = [sum(dy[n, i, j, c] for n, i, j in product(range(2), range(3), range(5))) for c in range(4)]
    assert near(reference("channel_sum", dy), np.array(expected))


def oihw(w):
    return np.ascontiguousarray(w.transpose(0, 3, 1, 2))


def nchw(x):
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def nhwc(x):
    return x.detach().numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize("stride, pad, dilation, out", [((1, 2), (0, 1), (1, 1), 3), ((2, 2), (2, 1), (2, 3), 4)])
def test_conv2d_and_gradients_by_torch(rng, stride, pad, dilation, out):
    torch = pytest.importorskip("torch")
    x, w, b = rng.normal(size=(2, 11, 10, 3)), rng.normal(size=(out, 3, 2, 3)), rng.normal(size=out)
    tx, tw, tb = (torch.tensor(a, requires_grad=True) for a in (nchw(x), oihw(w), b))
    ty = torch.nn.functional.conv2d(tx, tw, tb, stride, pad, dilation)
    options = {"stride": stride, "padding": (pad[0], pad[0], pad[1], pad[1]), "dilation": dilation}
    assert near(reference("conv2d", x, w, b, **options, activation=None), nhwc(ty))
    dy = rng.normal(size=nhwc(ty).shape)
    ty.backward(torch.tensor(nchw(dy)))
    dx = reference("conv2d_grad_x", dy, w, None, **options, size=(11, 10), activation=None)
    assert near(dx, nhwc(tx.grad))
    assert near(reference("conv2d_grad_w", x, dy, **options, size=(3, 2)), nhwc(tw.grad))
    assert near(reference("channel_sum", dy), tb.grad.numpy())


@pytest.mark.parametrize(
    "kernel, stride, pad, output_padding", [(2, 2, 0, 0), (3, 2, 1, 1), (4, 2, 1, 0), (64, 32, 16, 0)]
)
def test_transposed_convolution_by_torch(rng, kernel, stride, pad, output_padding):
    """The forward pass of a transposed convolution is conv2d_grad_x with a bias."""
    torch = pytest.importorskip("torch")
    x, w, b = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(5, kernel, kernel, 2)), rng.normal(size=2)
    expected = torch.nn.functional.conv_transpose2d(
        *(torch.tensor(a) for a in (nchw(x), oihw(w), b)), stride, pad, output_padding
    )
    options = {"stride": (stride, stride), "padding": (pad,) * 4, "dilation": (1, 1), "activation": None}
    y = reference("conv2d_grad_x", x, w, b, **options, size=tuple(expected.shape[2:]))
    assert near(y, nhwc(expected))
