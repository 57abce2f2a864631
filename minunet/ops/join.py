"""Putting maps together, around and apart. Kernels: crop_concat, pad, crop and their adjoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from minunet.ops.shared import Tensor, as_map, call, four, pair, record


def crop_concat(x: Tensor, skip: Tensor) -> Tensor:
    """y = [x, centre crop of skip to x's H, W] along channels: U-Net's skip connection (arXiv 1505.04597, fig. 1)

    x : (N, H, W, C)     skip : (N, HS >= H, WS >= W, CS)     returns (N, H, W, C + CS)
    The crop starts at ((HS - H) // 2, (WS - W) // 2): 568 -> 392 starts at 88. Raises ValueError where skip is smaller.
    """
    x, skip = as_map(x, "crop_concat"), as_map(skip, "crop_concat, skip")
    split, size = x.shape[3], skip.shape[1:3]

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any, Any]:
        return call("crop_concat_grad", dy, size=size, split=split)

    return record("crop_concat", call("crop_concat", x.data, skip.data), (x, skip), backward)


def concat(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one N, H, W joined along channels: (N, H, W, C1), (N, H, W, C2), ... -> (N, H, W, C1 + C2 + ...)."""
    tensors = [as_map(t, "concat") for t in tensors]
    if not tensors:
        raise ValueError("concat: needs one tensor at least")
    for t in tensors[1:]:
        if t.shape[:3] != tensors[0].shape[:3]:
            raise ValueError(f"concat: {t.shape} and {tensors[0].shape} differ in N, H or W; crop_concat crops")
    return reduce(crop_concat, tensors)


def pad(x: Tensor, padding: int | tuple[int, ...], mode: str = "constant", value: float = 0.0) -> Tensor:
    """x with a border: `value` ("constant"), or the image mirrored about its edge pixel ("reflect")

    x : (N, H, W, C)     padding : p, (ph, pw) or (top, bottom, left, right) pixels
    Returns (N, H + top + bottom, W + left + right, C). Raises ValueError where reflecting needs more than the image has
    (padding < size); `minunet.data.mirror_pad` mirrors repeatedly.
    """
    x = as_map(x, "pad")
    padding = four(padding, "pad: padding")
    y = call("pad", x.data, padding=padding, mode=mode, value=float(value))

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("pad_grad", dy, padding=padding, mode=mode),)

    return record("pad", y, (x,), backward)


def crop(x: Tensor, size: tuple[int, int], offset: tuple[int, int] | None = None) -> Tensor:
    """y[n,i,j,c] = x[n, top + i, left + j, c]: a window of the map

    x : (N, H, W, C)     size : (h, w), at most (H, W)     offset : (top, left); None: ((H - h) // 2, (W - w) // 2)
    Returns (N, h, w, C). Raises ValueError where the window is not within x.
    """
    x = as_map(x, "crop")
    h, w = pair(size, "crop: size", least=1)
    if offset is None:
        if h > x.shape[1] or w > x.shape[2]:
            raise ValueError(f"crop: size {(h, w)} is larger than the map of {x.shape[1:3]}; pad it first")
        offset = ((x.shape[1] - h) // 2, (x.shape[2] - w) // 2)
    return _window(x, (*pair(offset, "crop: offset"), 0), (h, w, x.shape[3]), "crop")


def split(x: Tensor, channels: Sequence[int]) -> list[Tensor]:
    """x along channels, in pieces of these counts: (N, H, W, C) -> [(N, H, W, c) for c in channels], sum = C."""
    x = as_map(x, "split")
    counts = [int(c) for c in channels]
    if not counts or min(counts) < 1 or sum(counts) != x.shape[3]:
        raise ValueError(f"split: channels {counts} must be positive and add up to the {x.shape[3]} of x")
    firsts = (sum(counts[:k]) for k in range(len(counts)))
    return [_window(x, (0, 0, first), (*x.shape[1:3], c), "split") for first, c in zip(firsts, counts)]


def pad_channels(x: Tensor, channels: int) -> Tensor:
    """Channels of zeros behind those of x: (N, H, W, C) -> (N, H, W, channels). ENet's shortcut (arXiv 1606.02147)."""
    x = as_map(x, "pad_channels")
    small = x.shape[1:]
    if int(channels) < small[2]:
        raise ValueError(f"pad_channels: x has {small[2]} channels already; {channels} is less")

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("crop", dy, offset=(0, 0, 0), size=small),)

    y = call("embed", x.data, offset=(0, 0, 0), size=(*small[:2], int(channels)))
    return record("pad_channels", y, (x,), backward)


def _window(x: Tensor, offset: tuple[int, int, int], size: tuple[int, int, int], name: str) -> Tensor:
    """x[:, top : top + h, left : left + w, first : first + c], offset = (top, left, first), size = (h, w, c)."""
    large = x.shape[1:]

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("embed", dy, offset=offset, size=large),)

    return record(name, call("crop", x.data, offset=offset, size=size), (x,), backward)
