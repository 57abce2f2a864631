"""Convolution, of all channels and of each by itself: forward and its two adjoints."""

from __future__ import annotations

from math import prod

from minunet.contract.row import CONV, SUM, Spec, Work, activated, channels, require, row


def conv_output(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """floor((size + pad - dilation (kernel - 1) - 1) / stride) + 1, with pad = both sides together."""
    return (size + pad - dilation * (kernel - 1) - 1) // stride + 1


def _conv(x: tuple[int, ...], w: Spec, stride, padding, dilation) -> tuple[tuple[int, ...], int]:
    """(N, OH, OW, O) and the FLOPs of a convolution of an `x`-shaped array with `w`."""
    require(len(x) == 4 and len(w.shape) == 4, f"conv2d needs x[N,H,W,C] and w[O,KH,KW,C]; got {x} and {w.shape}")
    require(x[3] == w.shape[3], f"conv2d: x has {x[3]} channels and w expects {w.shape[3]}; shapes {x} and {w.shape}")
    return _sliding(x, w, stride, padding, dilation)


def _sliding(x: tuple[int, ...], w: Spec, stride, padding, dilation) -> tuple[tuple[int, ...], int]:
    """(N, OH, OW, O) and the FLOPs where w slides over x, whichever channels of x it meets."""
    (n, h, wd, _), (o, kh, kw, wc) = x, w.shape
    require(
        min(stride) >= 1 and min(dilation) >= 1 and min(padding) >= 0,
        "conv2d: stride, dilation >= 1, padding >= 0",
    )
    oh = conv_output(h, kh, stride[0], padding[0] + padding[1], dilation[0])
    ow = conv_output(wd, kw, stride[1], padding[2] + padding[3], dilation[1])
    require(
        oh >= 1 and ow >= 1,
        f"conv2d: input {h} x {wd} (padding {padding}) is smaller than the kernel {kh} x {kw} (dilation {dilation})",
    )
    return (n, oh, ow, o), 2 * n * oh * ow * o * kh * kw * wc


@row("conv", linear=("x", "w"), tolerance=CONV)
def conv2d(x, w, b=None, *, stride, padding, dilation, activation):
    """y[n,i,j,o] = act(b[o] + sum_{u,v,c} x[n, i sh + u dh - top, j sw + v dw - left, c] w[o,u,v,c])."""
    y, flops = _conv(x.shape, w, stride, padding, dilation)
    channels(b, y[3], "conv2d: the bias")
    activated(activation, "conv2d")
    return Work((Spec(y, x.dtype),), flops)


@row("conv", linear=("dy", "w"), tolerance=CONV, shape_only=("size",))
def conv2d_grad_x(dy, w, b=None, *, size, stride, padding, dilation, activation):
    """dx = act(b + adjoint of conv2d in x applied to dy); with bias it is the transposed convolution. size = (H, W)."""
    require(len(dy.shape) == 4 and len(w.shape) == 4, f"needs dy[N,OH,OW,O], w[O,KH,KW,C]: {dy.shape}, {w.shape}")
    dx = (dy.shape[0], *size, w.shape[3])
    y, flops = _conv(dx, w, stride, padding, dilation)
    require(y == dy.shape, f"conv2d_grad_x: a {size} input gives {y}, but dy has {dy.shape}")
    channels(b, dx[3], "conv_transpose2d: the bias")
    activated(activation, "conv_transpose2d")
    return Work((Spec(dx, dy.dtype),), flops)


@row("conv", linear=("x", "dy"), tolerance=CONV, shape_only=("size",))
def conv2d_grad_w(x, dy, *, size, stride, padding, dilation):
    """dw[o,u,v,c] = sum_{n,i,j} dy[n,i,j,o] x[n, i sh + u dh - top, j sw + v dw - left, c]. size = (KH, KW)."""
    dw = Spec((dy.shape[3], *size, x.shape[3]), x.dtype)
    y, flops = _conv(x.shape, dw, stride, padding, dilation)
    require(y == dy.shape, f"conv2d_grad_w: x and the kernel give {y}, but dy has {dy.shape}")
    return Work((dw,), flops)


@row("conv", linear=("dy",), tolerance=SUM)
def channel_sum(dy):
    """db[c] = sum_{n,i,j} dy[n,i,j,c]."""
    return Work((Spec(dy.shape[-1:], dy.dtype),), prod(dy.shape))


def _depthwise(x: tuple[int, ...], w: Spec, stride, padding, dilation) -> tuple[tuple[int, ...], int]:
    """(N, OH, OW, O) and the FLOPs of a depthwise convolution."""
    fits = len(x) == 4 and len(w.shape) == 4 and w.shape[3] == 1 and w.shape[0] % x[3] == 0
    require(
        fits,
        f"depthwise_conv2d needs x[N,H,W,C] and w[O,KH,KW,1], O a multiple of C; got {x} and {w.shape}",
    )
    return _sliding(x, w, stride, padding, dilation)


@row("conv", linear=("x", "w"), tolerance=CONV)
def depthwise_conv2d(x, w, b=None, *, stride, padding, dilation, activation):
    """y[n,i,j,o] = act(b[o] + sum_{u,v} x[n, i sh + u dh - top, j sw + v dw - left, o // m] w[o,u,v,0]), m = O / C."""
    y, flops = _depthwise(x.shape, w, stride, padding, dilation)
    channels(b, y[3], "depthwise_conv2d: the bias")
    activated(activation, "depthwise_conv2d")
    return Work((Spec(y, x.dtype),), flops)


@row("conv", linear=("dy", "w"), tolerance=CONV, shape_only=("size",))
def depthwise_conv2d_grad_x(dy, w, *, size, stride, padding, dilation):
    """dx = adjoint of depthwise_conv2d in x applied to dy. size = (H, W, C)."""
    dx = (dy.shape[0], *size)
    y, flops = _depthwise(dx, w, stride, padding, dilation)
    require(y == dy.shape, f"depthwise_conv2d_grad_x: a {size} input gives {y}, but dy has {dy.shape}")
    return Work((Spec(dx, dy.dtype),), flops)


@row("conv", linear=("x", "dy"), tolerance=CONV, shape_only=("size",))
def depthwise_conv2d_grad_w(x, dy, *, size, stride, padding, dilation):
    """dw[o,u,v,0] = sum_{n,i,j} dy[n,i,j,o] x[n, i sh + u dh - top, j sw + v dw - left, o // m]. size = (KH, KW)."""
    dw = Spec((dy.shape[3], *size, 1), x.dtype)
    y, flops = _depthwise(x.shape, dw, stride, padding, dilation)
    require(y == dy.shape, f"depthwise_conv2d_grad_w: x and the kernel give {y}, but dy has {dy.shape}")
    return Work((dw,), flops)
