"""Putting maps together and around. Kernels: crop_concat, pad and their adjoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from minunet.ops.shared import Tensor, as_tensor, call, four, record


def crop_concat(x: Tensor, skip: Tensor) -> Tensor:
    """y = [x, centre crop of skip to x's H, W] along channels: U-Net's skip connection (arXiv 1505.04597, fig. 1)

    x : (N, H, W, C)     skip : (N, HS >= H, WS >= W, CS)     returns (N, H, W, C + CS)
    The crop starts at ((HS - H) // 2, (WS - W) // 2): 568 -> 392 starts at 88. Raises ValueError where skip is smaller.
    """
    x, skip = as_tensor(x), as_tensor(skip)
    split, size = x.shape[3], skip.shape[1:3]

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any, Any]:
        return call("crop_concat_grad", dy, size=size, split=split)

    return record("crop_concat", call("crop_concat", x.data, skip.data), (x, skip), backward)


def concat(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one N, H, W joined along channels: (N, H, W, C1), (N, H, W, C2), ... -> (N, H, W, C1 + C2 + ...)."""
    tensors = [as_tensor(t) for t in tensors]
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
    x = as_tensor(x)
    padding = four(padding, "pad: padding")
    y = call("pad", x.data, padding=padding, mode=mode, value=float(value))

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("pad_grad", dy, padding=padding, mode=mode),)

    return record("pad", y, (x,), backward)
