"""What every operation needs: tensors from arguments, and pairs from numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minunet.backends import call, owner
from minunet.tensor import Tensor, record

__all__ = ["Tensor", "as_map", "as_tensor", "beside", "call", "data", "four", "like", "pair", "record"]


def as_tensor(x: Any) -> Tensor:
    """`x` itself if it is a Tensor, else a Tensor around the array."""
    return x if isinstance(x, Tensor) else Tensor(x)


def as_map(x: Any, what: str) -> Tensor:
    """`as_tensor(x)`. Raises ValueError, which begins with `what`, unless it has the four axes x[N,H,W,C]."""
    x = as_tensor(x)
    if len(x.shape) != 4:
        raise ValueError(f"{what}: needs x[N,H,W,C]; got shape {x.shape}")
    return x


def data(x: Any) -> Any:
    """The array of a Tensor, an array itself, or None."""
    return x.data if isinstance(x, Tensor) else x


def like(values: np.ndarray, x: Tensor) -> Any:
    """A NumPy array as an array of the backend that x lives on, of the same shape; other arrays as they are."""
    if isinstance(x.data, np.ndarray) or not isinstance(values, np.ndarray):
        return values
    return owner(x.data).asarray(values).reshape(values.shape)


def beside(array: Any, x: Tensor) -> Any:
    """An array (or NumPy sequence) as a contiguous one of x's dtype where x lies; itself where it is that already."""
    array = data(array)
    if isinstance(array, np.ndarray | np.generic | list | tuple | int | float):
        shape = np.shape(array)
        return like(np.ascontiguousarray(array, x.dtype).reshape(shape), x)
    if array is not None and array.dtype != x.dtype:
        array = array.astype(x.dtype)
    return array if array is None or array.flags.c_contiguous else array.copy()


def pair(value: int | tuple[int, int], name: str, least: int | None = None) -> tuple[int, int]:
    """(v, v) for a number, (h, w) for a pair. Raises ValueError for anything else, and for a number below `least`."""
    values = tuple(value) if isinstance(value, Iterable) else (value, value)
    if len(values) != 2 or not all(isinstance(v, int | np.integer) for v in values):
        raise ValueError(f"{name} is {value!r}; it must be an integer or a pair (height, width)")
    if least is not None and min(values) < least:
        raise ValueError(f"{name} is {value!r}; it must be at least {least}")
    return int(values[0]), int(values[1])


def four(value: int | tuple[int, ...], name: str) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) from p, (ph, pw) or all four. Raises ValueError for anything else."""
    if isinstance(value, Sequence) and len(value) == 4:
        (top, bottom), (left, right) = pair(value[:2], name), pair(value[2:], name)
        return top, bottom, left, right
    h, w = pair(value, name)
    return h, h, w, w
