"""Pooling and its way back. Kernels: max_pool2d, scatter_by_index, gather_by_index, avg_pool2d, global_avg_pool."""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.ops.shared import Tensor, as_tensor, call, data, pair, record


def max_pool2d(
    x: Tensor,
    kernel: int | tuple[int, int] = 2,
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    return_indices: bool = False,
    ceil_mode: bool = False,
) -> Tensor | tuple[Tensor, Any]:
    """y[n,i,j,c] = the maximum of x over the window that starts at (i sh - ph, j sw - pw)

    x : (N, H, W, C)      stride : the kernel's size where it is None      padding : at most half the kernel; never wins

    Returns (N, OH, OW, C), OH = floor((H + 2 ph - KH) / sh) + 1 (`ceil_mode`: rounded up, but the last window starts
    inside), and with `return_indices` also indices int32 (N, OH, OW, C): h W + w of the first maximum in row-major
    order. Backward keeps the indices only: it scatters dy to them.
    """
    x = as_tensor(x)
    kernel = pair(kernel, "max_pool2d: kernel", least=1)
    stride = kernel if stride is None else pair(stride, "max_pool2d: stride", least=1)
    padding = pair(padding, "max_pool2d: padding")
    y, indices = call("max_pool2d", x.data, kernel=kernel, stride=stride, padding=padding, ceil_mode=bool(ceil_mode))
    size = x.shape[1:3]

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("scatter_by_index", dy, indices, size=size),)

    out = record("max_pool2d", y, (x,), backward)
    return (out, indices) if return_indices else out


def max_unpool2d(x: Tensor, indices: Any, output_size: tuple[int, int]) -> Tensor:
    """y[n, h, w, c] = sum of x[n,i,j,c] over the i, j with indices[n,i,j,c] = h W + w; 0 elsewhere

    x : (N, OH, OW, C)     indices : int32 of that shape, from `max_pool2d`     output_size : (H, W)
    Returns (N, H, W, C). Raises ValueError for an index outside the plane. Source: SegNet (arXiv 1511.00561), fig. 3.
    """
    x = as_tensor(x)
    size = pair(output_size, "max_unpool2d: output_size", least=1)
    known = isinstance(indices, np.ndarray) and indices.dtype == np.int32 and indices.size
    if known and indices.view(np.uint32).max() >= size[0] * size[1]:  # a negative one is a large one here: one pass
        raise ValueError(
            f"max_unpool2d: indices run from {indices.min()} to {indices.max()}, outside a {size[0]} x {size[1]} plane;"
            " output_size must be the size of max_pool2d's input"
        )
    y = call("scatter_by_index", x.data, data(indices), size=size)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("gather_by_index", dy, indices),)

    return record("max_unpool2d", y, (x,), backward)


def avg_pool2d(
    x: Tensor,
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
) -> Tensor:
    """y[n,i,j,c] = sum of x over the window that starts at (i sh - ph, j sw - pw), divided by KH KW

    x : (N, H, W, C)     stride : the kernel's size where it is None     padding : zeros, at most half the kernel; they
        count in the divisor, so that a constant map falls off towards its border
    Returns (N, OH, OW, C), OH = floor((H + 2 ph - KH) / sh) + 1. Nothing is kept for backward.
    """
    x = as_tensor(x)
    kernel = pair(kernel, "avg_pool2d: kernel", least=1)
    options = {
        "kernel": kernel,
        "stride": kernel if stride is None else pair(stride, "avg_pool2d: stride", least=1),
        "padding": pair(padding, "avg_pool2d: padding"),
    }
    y = call("avg_pool2d", x.data, **options)
    size = x.shape[1:3]

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("avg_pool2d_grad", dy, size=size, **options),)

    return record("avg_pool2d", y, (x,), backward)


def global_avg_pool(x: Tensor) -> Tensor:
    """y[n,0,0,c] = mean over i, j of x[n,i,j,c]:  (N, H, W, C) -> (N, 1, 1, C)."""
    x = as_tensor(x)
    size = x.shape[1:3]

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call("global_avg_pool_grad", dy, size=size),)

    return record("global_avg_pool", call("global_avg_pool", x.data), (x,), backward)
