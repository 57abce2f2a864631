"""Convolution, also by groups of channels, and its transpose.

Kernels: conv2d, conv2d_grad_x, conv2d_grad_w, the same as depthwise_..., and channel_sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, reduce
from math import prod
from typing import Any

from minunet.ops import join, pointwise
from minunet.ops.shared import Tensor, as_tensor, call, data, four, pair, record

Padding = str | int | tuple[int, ...]


def conv2d(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Padding = "valid",
    dilation: int | tuple[int, int] = 1,
    activation: str | None = None,
    groups: int = 1,
    skip: Tensor | None = None,
) -> Tensor:
    """y[n,i,j,o] = act(b[o] + sum_{u,v,c} x[n, i sh + u dh - top, j sw + v dw - left, c] w[o,u,v,c])

    x : float32 / float64 (N, H, W, C)      w : (O, KH, KW, C / groups)      b : (O,) or None
    padding : "valid" (none), "same" (output = ceil(H / stride), the odd pixel below and right), "full" (every
        position where kernel and input touch: dilation (K - 1) on each side), p, (ph, pw) or (top, bottom, left, right)
    activation : None, or the name of one in `minunet.ops`: "relu" (fused), "leaky_relu", "elu", "sigmoid", ...
    groups : output channel o reads the C / groups channels of x of its group, (o groups) // O. groups = C is the
        depthwise convolution (kernels of its own); other groups run one after the other
    skip : (N, HS, WS, CS); the convolution is then that of `crop_concat(x, skip)`, which is not kept for backward but
        joined again: the copy costs little, and memory is short when backward begins

    Returns (N, OH, OW, O), OH = floor((H + top + bottom - dh (KH - 1) - 1) / sh) + 1. Kept for backward: x, w, and y
    where relu is fused. Raises ValueError where shapes do not fit. This is cross-correlation, as in all networks here.

    >>> conv2d(Tensor(np.ones((1, 3, 3, 1))), Tensor(np.ones((1, 3, 3, 1)))).shape
    (1, 1, 1, 1)
    """
    x, w, b = as_tensor(x), as_tensor(w), None if b is None else as_tensor(b)
    again = None  # what makes x anew for backward, where it is not kept
    if skip is not None:
        again = partial(call, "crop_concat", x.data, as_tensor(skip).data)
        x = join.crop_concat(x, skip)
    _four_axes(x, w)
    stride, dilation = pair(stride, "conv2d: stride", least=1), pair(dilation, "conv2d: dilation", least=1)
    geometry = {
        "stride": stride,
        "padding": resolve_padding(padding, x.shape[1:3], w.shape[1:3], stride, dilation),
        "dilation": dilation,
    }
    pointwise.known(activation)
    forward, grad_x, grad_w = _kernels(groups, x.shape, w.shape, geometry)
    fused = "relu" if activation == "relu" else None
    y = forward(x.data, w.data, data(b), activation=fused)
    xa, wa, ya = None if again else x.data, w.data, y if fused else None

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any, ...]:
        if ya is not None:
            dy = call("relu_grad", dy, ya)
        dw = grad_w(again() if again else xa, dy) if need[1] else None
        dx = grad_x(dy, wa) if need[0] else None
        db = call("channel_sum", dy) if need[2] else None
        return dx, dw, db

    return pointwise.activate(record("conv2d", y, (x, w, b), backward), None if fused else activation)


def conv_transpose2d(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Padding = "valid",
    output_padding: int | tuple[int, int] = 0,
    activation: str | None = None,
) -> Tensor:
    """The adjoint of conv2d in its input, with bias: y = act(b + sum over every window that touched a pixel).

    x : (N, H, W, C_in)     w : (C_in, KH, KW, C_out), those of the convolution it is the adjoint of     b : (C_out,)
    padding : of that convolution, as in `conv2d` ("same": OH = H stride; "full": the largest there is)
    output_padding : rows and columns to add below and right, less than stride: where several sizes shrink to H, which

    Returns (N, OH, OW, C_out), OH = (H - 1) sh - top - bottom + KH + output_padding. It has no kernels of its own: its
    forward is conv2d_grad_x, its gradients are conv2d and conv2d_grad_w with the roles of x and dy exchanged.
    """
    x, w, b = as_tensor(x), as_tensor(w), None if b is None else as_tensor(b)
    _four_axes(x, w)
    stride = pair(stride, "conv_transpose2d: stride", least=1)
    extra = pair(output_padding, "conv_transpose2d: output_padding")
    kernel = w.shape[1:3]
    if not all(0 <= e < s for e, s in zip(extra, stride)):
        raise ValueError(f"conv_transpose2d: output_padding {extra} must be at least 0 and less than stride {stride}")
    if padding == "same":
        if extra != (0, 0):
            raise ValueError('conv_transpose2d: padding="same" fixes the output size; leave output_padding at 0')
        size = (x.shape[1] * stride[0], x.shape[2] * stride[1])
        pad4 = resolve_padding("same", size, kernel, stride, (1, 1))
    else:
        pad4 = resolve_padding(padding, (0, 0), kernel, stride, (1, 1))
        size = tuple(
            (x.shape[1 + a] - 1) * stride[a] - pad4[2 * a] - pad4[2 * a + 1] + kernel[a] + extra[a] for a in (0, 1)
        )
    if min(size) < 1:
        raise ValueError(f"conv_transpose2d: padding {pad4} leaves an output of {size}; it needs one pixel at least")
    geometry = {"stride": stride, "padding": pad4, "dilation": (1, 1)}
    fused = "relu" if activation == "relu" else None
    y = call("conv2d_grad_x", x.data, w.data, data(b), size=size, activation=fused, **geometry)
    xa, wa, ya = x.data, w.data, y if fused else None

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any, ...]:
        if ya is not None:
            dy = call("relu_grad", dy, ya)
        dx = call("conv2d", dy, wa, activation=None, **geometry) if need[0] else None
        dw = call("conv2d_grad_w", dy, xa, size=kernel, **geometry) if need[1] else None
        db = call("channel_sum", dy) if need[2] else None
        return dx, dw, db

    y = record("conv_transpose2d", y, (x, w, b), backward)
    return pointwise.activate(y, None if fused else activation)


def resolve_padding(
    padding: Padding, size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) for "valid", "same", "full", p, (ph, pw) or four numbers."""
    reach = [d * (k - 1) for k, d in zip(kernel, dilation)]  # what a kernel covers beyond one pixel
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "full":
        return reach[0], reach[0], reach[1], reach[1]
    if padding == "same":
        total = [max((-(-n // s) - 1) * s + r + 1 - n, 0) for n, s, r in zip(size, stride, reach)]
        return total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2
    if isinstance(padding, str):
        raise ValueError(f'padding {padding!r} is unknown; it is "valid", "same", "full", p, (ph, pw) or four numbers')
    numbers = four(padding, "padding")
    if min(numbers) < 0:
        raise ValueError(f"padding is {padding!r}; it must not be negative")
    return numbers


def _kernels(groups: int, x: tuple[int, ...], w: tuple[int, ...], geometry: dict) -> tuple[Callable, ...]:
    """forward(x, w, b, activation=), grad_x(dy, w) and grad_w(x, dy) of a convolution with so many groups."""
    (_, *size, c), (o, *kernel, wc) = x, w
    if groups == 1:
        return (
            partial(call, "conv2d", **geometry),
            partial(call, "conv2d_grad_x", size=tuple(size), activation=None, **geometry),
            partial(call, "conv2d_grad_w", size=tuple(kernel), **geometry),
        )
    if groups < 1 or c % groups or o % groups:
        raise ValueError(f"conv2d: groups {groups} must divide the {c} channels of x and the {o} of w; {x} and {w}")
    if wc * groups != c:
        raise ValueError(f"conv2d: with {groups} groups, x of {c} channels needs w[O,KH,KW,{c // groups}]; got {w}")
    if groups == c:
        return (
            partial(call, "depthwise_conv2d", **geometry),
            partial(call, "depthwise_conv2d_grad_x", size=(*size, c), **geometry),
            partial(call, "depthwise_conv2d_grad_w", size=tuple(kernel), **geometry),
        )
    return _grouped(groups, x, w, geometry)


def _grouped(groups: int, x: tuple[int, ...], w: tuple[int, ...], geometry: dict) -> tuple[Callable, ...]:
    """The three of `_kernels`, a group at a time: cut its channels out, convolve, put the results side by side."""
    c, o = x[3] // groups, w[0] // groups
    conv, grad_x, grad_w = _kernels(1, (*x[:3], c), (o, *w[1:]), geometry)

    def cut(a: Any, group: int, channels: int) -> Any:  # a[..., group]
        return call("crop", a, offset=(0, 0, group * channels), size=(*a.shape[1:3], channels))

    def cut_w(wa: Any, group: int) -> Any:  # w[group, ...]: (1, 1, 1, all numbers) has the groups side by side
        return cut(wa.reshape(1, 1, 1, -1), group, prod(w) // groups).reshape(o, *w[1:])

    def join(parts: Iterator[Any]) -> Any:
        return reduce(partial(call, "crop_concat"), parts)

    def forward(xa: Any, wa: Any, ba: Any, activation: str | None) -> Any:
        def bias(g: int) -> Any:
            return None if ba is None else cut(ba.reshape(1, 1, 1, -1), g, o).reshape(o)

        return join(conv(cut(xa, g, c), cut_w(wa, g), bias(g), activation=activation) for g in range(groups))

    def all_grad_x(dy: Any, wa: Any) -> Any:
        return join(grad_x(cut(dy, g, o), cut_w(wa, g)) for g in range(groups))

    def all_grad_w(xa: Any, dy: Any) -> Any:
        parts = (grad_w(cut(xa, g, c), cut(dy, g, o)) for g in range(groups))
        return join(part.reshape(1, 1, 1, -1) for part in parts).reshape(w)

    return forward, all_grad_x, all_grad_w


def _four_axes(x: Tensor, w: Tensor) -> None:
    if len(x.shape) != 4 or len(w.shape) != 4:
        raise ValueError(f"a convolution needs x[N,H,W,C] and w[O,KH,KW,C]; got shapes {x.shape} and {w.shape}")
