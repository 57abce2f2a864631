"""Convolution on the CPU: which algorithm runs for which shape.

- float32, 3x3, stride 1, enough channels: Winograd (`winograd.py`, `winograd_grad_w.py`), but not in strict precision
- 1x1 to one, two or four channels: lanes are pixels (`conv_narrow.py`)
- everything else: sums of products over taps (`conv_direct.py`), sums of outer products for dw (`conv_grad_w.py`)

All arrays are C-contiguous NHWC, of one dtype (float32 or float64); weights are w[O, KH, KW, C]. The caller has checked
that; outputs are written whole. The same call with the same number of threads gives the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads

from minunet.backends import strict

from . import conv_direct, conv_grad_w, conv_narrow, winograd, winograd_grad_w
from .channel_sum import channel_sum
from .depthwise import depthwise_conv2d, depthwise_conv2d_grad_w, depthwise_conv2d_grad_x

__all__ = [
    "channel_sum",
    "conv2d",
    "conv2d_grad_w",
    "conv2d_grad_x",
    "depthwise_conv2d",
    "depthwise_conv2d_grad_w",
    "depthwise_conv2d_grad_x",
]

Pair = tuple[int, int]
Quad = tuple[int, int, int, int]


def _winograd_tile(read: np.ndarray, written: np.ndarray, w: np.ndarray, stride: Pair, dilation: Pair) -> int:
    """Results a side of the Winograd tile that suits the call, 0 for the direct sum.

    With few channels the transforms cost more than they save; so they do where tiles hang far out of a small image.
    """
    KH, KW, C = w.shape[1:]
    if strict() or read.dtype != np.float32 or (KH, KW) != (3, 3) or stride != (1, 1) or dilation != (1, 1):
        return 0
    N, OH, OW, _ = written.shape
    if min(C, w.shape[0]) < 8:
        return 0
    # Multiply-adds for each pair of channels, transforms of the image included as 40 %; those of a filter take about
    # as long as 110 (m = 4) or 400 (m = 6) of them.
    tiles4, tiles6 = (N * -(-OH // m) * -(-OW // m) for m in (4, 6))
    costs = {0: N * OH * OW * 9, 4: 1.4 * tiles4 * 36 + 110, 6: 1.4 * tiles6 * 64 + 400}
    return min(costs, key=costs.get)


def conv2d(
    y: np.ndarray, x: np.ndarray, w: np.ndarray, b: np.ndarray | None,
    stride: Pair, padding: Quad, dilation: Pair, activation: str | None,
) -> None:  # fmt: skip
    """y[n,i,j,o] = act(b[o] + sum over u,v,c of x[n, i*sh + u*dh - top, j*sw + v*dw - left, c] * w[o,u,v,c]).

    y (N, OH, OW, O), x (N, H, W, C), w (O, KH, KW, C), b (O,) or None; x is 0 outside. padding is (top, bottom, left,
    right), of which bottom and right follow from the sizes; activation is None or "relu".
    """
    _apply(y, x, w, b, stride, padding, dilation, activation, False)


def conv2d_grad_x(
    dx: np.ndarray, dy: np.ndarray, w: np.ndarray, b: np.ndarray | None,
    stride: Pair, padding: Quad, dilation: Pair, activation: str | None,
) -> None:  # fmt: skip
    """The adjoint of conv2d in x; with bias b (C,) and activation it is also the transposed convolution.

    dx[n,h,w,c] = act(b[c] + sum of dy[n,i,j,o] * w[o,u,v,c] over all i,j,u,v,o that meet h = i*sh + u*dh - top and
    w = j*sw + v*dw - left). dx (N, H, W, C), dy (N, OH, OW, O).
    """
    _apply(dx, dy, w, b, stride, padding, dilation, activation, True)


def _apply(y, x, w, b, stride, padding, dilation, activation, adjoint: bool) -> None:
    threads = get_num_threads()
    m = _winograd_tile(x, y, w, stride, dilation)
    if m:
        winograd.conv3x3(y, x, w, b, padding[0], padding[2], activation, adjoint, threads, m)
    elif not adjoint and w.shape[1:3] == stride == (1, 1) and not any(padding) and w.shape[0] in conv_narrow.OUTPUTS:
        conv_narrow.narrow_conv(y, x, w, b, activation, threads)
    else:
        conv_direct.tap_conv(y, x, w, b, stride, padding, dilation, activation, adjoint, threads)


def conv2d_grad_w(dw: np.ndarray, x: np.ndarray, dy: np.ndarray, stride: Pair, padding: Quad, dilation: Pair) -> None:
    """dw[o,u,v,c] = sum over n,i,j of dy[n,i,j,o] * x[n, i*sh + u*dh - top, j*sw + v*dw - left, c]."""
    m = _winograd_tile(x, dy, dw, stride, dilation)
    if m:
        winograd_grad_w.grad_w3x3(dw, x, dy, padding[0], padding[2], get_num_threads(), m)
    else:
        conv_grad_w.grad_w(dw, x, dy, stride, padding, dilation, get_num_threads())
