"""Putting maps together, around and apart: crop, concat, pad."""

from __future__ import annotations

from math import prod

from minunet.contract.row import SUM, Spec, Work, require, row


@row("join", linear=("x", "skip"))
def crop_concat(x, skip):
    """y = [x, centre crop of skip] along channels; the crop starts at (HS - H) // 2, (WS - W) // 2.

    Linear in both inputs together, and in one when the other is zero.
    """
    (n, h, w, c), (ns, hs, ws, cs) = x.shape, skip.shape
    require(n == ns and hs >= h and ws >= w, f"crop_concat: skip {skip.shape} cannot be cropped to {x.shape}")
    return Work((Spec((n, h, w, c + cs), x.dtype),), 0)


@row("join", linear=("dy",), shape_only=("size", "split"))
def crop_concat_grad(dy, *, size, split):
    """dx = the first `split` channels of dy; dskip = the others in the centre of a (HS, WS) = size plane of zeros."""
    n, h, w, c = dy.shape
    require(0 <= split <= c, f"crop_concat_grad: split {split} is not in 0 .. {c}, the channels of dy")
    fits = size[0] >= h and size[1] >= w
    require(fits, f"crop_concat_grad: size {size} is smaller than {h} x {w}, the centre that it must hold")
    return Work((Spec((n, h, w, split), dy.dtype), Spec((n, *size, c - split), dy.dtype)), 0)


@row("join", linear=("x",))
def pad(x, *, padding, mode, value):
    """y = x with `padding` (top, bottom, left, right) pixels of `value` ("constant") or mirrored without the edge."""
    (n, h, w, c), (top, bottom, left, right) = x.shape, padding
    require(min(padding) >= 0, f"pad: padding {padding} must not be negative")
    require(mode in ("constant", "reflect"), f"pad: mode {mode!r} is unknown; it is 'constant' or 'reflect'")
    if mode == "reflect":
        fits = max(top, bottom) < h and max(left, right) < w
        require(fits, f"pad: reflecting {padding} pixels needs an image larger than that; it is {h} x {w}")
    return Work((Spec((n, h + top + bottom, w + left + right, c), x.dtype),), 0)


@row("join", linear=("dy",), tolerance=SUM)
def pad_grad(dy, *, padding, mode):
    """Adjoint of pad: the inner window of dy, plus what reflection copied outwards."""
    (n, h, w, c), (top, bottom, left, right) = dy.shape, padding
    fits = top + bottom < h and left + right < w
    require(
        mode in ("constant", "reflect") and fits, f"pad_grad: mode {mode!r}, padding {padding} do not fit {dy.shape}"
    )
    return Work((Spec((n, h - top - bottom, w - left - right, c), dy.dtype),), prod(dy.shape))


@row("join", linear=("x",), shape_only=("size",))
def crop(x, *, offset, size):
    """y[n,i,j,c] = x[n, top + i, left + j, first + c], offset = (top, left, first), size = (h, w, c) of y."""
    n, *large = x.shape
    _window(large, offset, size, "crop")
    return Work((Spec((n, *size), x.dtype),), 0)


@row("join", linear=("dy",), shape_only=("size",))
def embed(dy, *, offset, size):
    """dx = zeros of size = (H, W, C), with dy at offset = (top, left, first): the adjoint of crop."""
    n, *small = dy.shape
    _window(size, offset, small, "embed")
    return Work((Spec((n, *size), dy.dtype),), 0)


def _window(large, offset, small, what: str) -> None:
    """Raise unless a window of `small` (h, w, c) that starts at `offset` lies within `large` (H, W, C)."""
    fits = all(o >= 0 and s >= 1 and o + s <= n for n, o, s in zip(large, offset, small, strict=True))
    require(
        fits,
        f"{what}: a window of {tuple(small)} (height, width, channels) at {tuple(offset)} is not within {tuple(large)}",
    )
