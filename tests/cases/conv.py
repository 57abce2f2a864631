"""Convolution: sizes that tiles, vectors and Winograd blocks do not divide."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minunet.contract import ROWS
from minunet.contract.row import Spec

from .sample import MAPS, Case, make, normal, rows

_CONV = {  # label: (N, H, W, C), (O, KH, KW), stride, padding (top, bottom, left, right), dilation
    "3x3 valid": ((2, 7, 5, 3), (4, 3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
    "one pixel": ((1, 1, 1, 1), (1, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "one pixel, all padding": ((2, 1, 1, 2), (3, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "one row": ((1, 1, 17, 6), (5, 1, 3), (1, 1), (0, 0, 1, 1), (1, 1)),
    "1x1": ((2, 5, 6, 13), (7, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "1x1 stride 2": ((1, 7, 6, 9), (5, 1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    "3x3 same": ((2, 9, 11, 5), (6, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "3x3 full": ((1, 6, 4, 7), (3, 3, 3), (1, 1), (2, 2, 2, 2), (1, 1)),
    "3x3 valid, odd channels": ((1, 19, 23, 33), (18, 3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
    "3x3 valid, 64 channels": ((1, 21, 18, 64), (64, 3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
    "3x3 same, 17 to 130 channels": ((1, 6, 13, 17), (130, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "3x3 same, 72 to 96 channels": ((2, 27, 22, 72), (96, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "3x3, 80 channels, asymmetric padding": ((1, 15, 26, 80), (40, 3, 3), (1, 1), (0, 1, 2, 0), (1, 1)),
    "one channel in": ((1, 12, 10, 1), (64, 3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
    "two channels out": ((1, 6, 7, 64), (2, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "asymmetric padding": ((2, 6, 5, 4), (3, 3, 3), (1, 1), (0, 2, 1, 3), (1, 1)),
    "padding beyond the kernel": ((1, 3, 2, 3), (2, 2, 2), (1, 1), (3, 4, 4, 2), (1, 1)),
    "stride 2": ((2, 9, 7, 6), (5, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    "stride 2, last row unread": ((1, 8, 6, 4), (3, 3, 3), (2, 2), (0, 0, 0, 0), (1, 1)),
    "stride 2 x 3": ((1, 10, 11, 3), (6, 3, 4), (2, 3), (1, 0, 0, 1), (1, 1)),
    "stride beyond the kernel": ((1, 11, 10, 4), (3, 2, 2), (3, 3), (0, 0, 0, 0), (1, 1)),
    "2x2 stride 2": ((2, 6, 10, 8), (12, 2, 2), (2, 2), (0, 0, 0, 0), (1, 1)),
    "4x4 stride 2": ((1, 8, 10, 5), (7, 4, 4), (2, 2), (1, 1, 1, 1), (1, 1)),
    "7x7 stride 2": ((1, 13, 15, 3), (8, 7, 7), (2, 2), (3, 3, 3, 3), (1, 1)),
    "dilation 2": ((1, 11, 9, 4), (6, 3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    "dilation 1 x 3": ((2, 5, 12, 3), (4, 2, 3), (1, 1), (0, 0, 0, 0), (1, 3)),
    "1x5": ((1, 4, 9, 6), (6, 1, 5), (1, 1), (0, 0, 2, 2), (1, 1)),
    "5x1": ((1, 9, 4, 6), (6, 5, 1), (1, 1), (2, 2, 0, 0), (1, 1)),
    "5x5": ((1, 9, 7, 3), (4, 5, 5), (1, 1), (2, 2, 2, 2), (1, 1)),
    "kernel as large as the image": ((2, 7, 6, 5), (9, 7, 6), (1, 1), (0, 0, 0, 0), (1, 1)),
    "all at once": ((2, 12, 9, 5), (7, 3, 2), (2, 1), (1, 2, 0, 3), (1, 2)),
}


def _conv_sizes():
    """label, shapes of x, w and y, and the options, of each convolution above."""
    for label, (x, (o, kh, kw), stride, padding, dilation) in _CONV.items():
        w = (o, kh, kw, x[3])
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        f64 = np.dtype(np.float64)
        work = ROWS["conv2d"].rule(Spec(x, f64), Spec(w, f64), **options, activation=None)
        yield label, x, w, work.outputs[0].shape, options


@rows("conv2d", "conv2d_grad_x")
def _conv2d(row_name: str) -> Iterable[Case]:
    for label, x, w, y, sizes in _conv_sizes():
        image, n_bias = (normal(*x), y[3]) if row_name == "conv2d" else (normal(*y), x[3])
        options = sizes if row_name == "conv2d" else sizes | {"size": x[1:3]}
        yield Case(label, make(image, normal(*w), None), options | {"activation": None})
        fused = make(image, normal(*w), normal(n_bias, mean=0.5))
        yield Case(f"{label}, bias", fused, options | {"activation": None}, linear=False)
        yield Case(f"{label}, bias, relu", fused, options | {"activation": "relu"}, linear=False)


@rows("conv2d_grad_w")
def _conv2d_grad_w(_: str) -> Iterable[Case]:
    for label, x, w, y, options in _conv_sizes():
        yield Case(label, make(normal(*x), normal(*y)), options | {"size": w[1:3]})


@rows("channel_sum")
def _channel_sum(_: str) -> Iterable[Case]:
    for label, shape in MAPS.items():
        yield Case(label, make(normal(*shape, mean=0.5)))
    yield Case("long sum", make(normal(1, 201, 199, 2, mean=0.5)))


_DEPTHWISE = {  # label: (N, H, W, C), (O / C, KH, KW), stride, padding (top, bottom, left, right), dilation
    "3x3 valid": ((2, 7, 5, 3), (1, 3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
    "one pixel": ((1, 1, 1, 1), (1, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "one pixel, all padding": ((2, 1, 1, 2), (1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "one channel": ((1, 9, 8, 1), (1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "one channel to 5": ((1, 9, 8, 1), (5, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "3x3 same, 17 channels": ((2, 9, 11, 17), (1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "3x3 same, 33 channels, wide": ((1, 6, 43, 33), (1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "3x3 same, 64 channels": ((1, 13, 10, 64), (1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "3x3 stride 2": ((2, 9, 8, 20), (1, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    "3x3 stride 2, last row unread": ((1, 8, 6, 4), (1, 3, 3), (2, 2), (0, 0, 0, 0), (1, 1)),
    "two outputs a channel": ((2, 7, 6, 5), (2, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "three outputs a channel, stride 2": ((1, 8, 9, 19), (3, 3, 2), (2, 2), (1, 0, 0, 1), (1, 1)),
    "dilation 2": ((1, 11, 9, 34), (1, 3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    "dilation 18, mostly padding": ((1, 12, 9, 6), (1, 3, 3), (1, 1), (18, 18, 18, 18), (18, 18)),
    "asymmetric padding": ((2, 6, 5, 4), (1, 3, 3), (1, 1), (0, 2, 1, 3), (1, 1)),
    "padding beyond the kernel": ((1, 3, 2, 3), (1, 2, 2), (1, 1), (3, 4, 4, 2), (1, 1)),
    "stride beyond the kernel": ((1, 11, 10, 4), (1, 2, 2), (3, 3), (0, 0, 0, 0), (1, 1)),
    "1x5": ((1, 4, 9, 18), (1, 1, 5), (1, 1), (0, 0, 2, 2), (1, 1)),
    "7x7": ((1, 9, 10, 16), (1, 7, 7), (1, 1), (3, 3, 3, 3), (1, 1)),
    "kernel as large as the image": ((2, 7, 6, 5), (1, 7, 6), (1, 1), (0, 0, 0, 0), (1, 1)),
    "all at once": ((2, 12, 9, 5), (2, 3, 2), (2, 1), (1, 2, 0, 3), (1, 2)),
}


def _depthwise_sizes():
    """label, shapes of x, w and y, and the options, of each depthwise convolution above."""
    f64 = np.dtype(np.float64)
    for label, (x, (m, kh, kw), stride, padding, dilation) in _DEPTHWISE.items():
        w = (m * x[3], kh, kw, 1)
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        work = ROWS["depthwise_conv2d"].rule(Spec(x, f64), Spec(w, f64), **options, activation=None)
        yield label, x, w, work.outputs[0].shape, options


@rows("depthwise_conv2d")
def _depthwise_conv2d(_: str) -> Iterable[Case]:
    for label, x, w, y, options in _depthwise_sizes():
        yield Case(label, make(normal(*x), normal(*w), None), options | {"activation": None})
        fused = make(normal(*x), normal(*w), normal(y[3], mean=0.5))
        yield Case(f"{label}, bias", fused, options | {"activation": None}, linear=False)
        yield Case(f"{label}, bias, relu", fused, options | {"activation": "relu"}, linear=False)


@rows("depthwise_conv2d_grad_x")
def _depthwise_conv2d_grad_x(_: str) -> Iterable[Case]:
    for label, x, w, y, options in _depthwise_sizes():
        yield Case(label, make(normal(*y), normal(*w)), options | {"size": x[1:]})


@rows("depthwise_conv2d_grad_w")
def _depthwise_conv2d_grad_w(_: str) -> Iterable[Case]:
    for label, x, w, y, options in _depthwise_sizes():
        yield Case(label, make(normal(*x), normal(*y)), options | {"size": w[1:3]})
