"""Shapes instead of numbers: a backend whose arrays have a shape and a dtype, and whose kernels do nothing.

The gate works out every output's shape, and counts FLOPs and bytes, from the contract's rows. So a network that is
built and run here says its parameters, its layers' sizes and its work without a single weight: 250 million parameters
in milliseconds. `minunet.models.shapes_only` puts it to use; it is no choice for computing, so not among `NAMES`.
"""

from __future__ import annotations

from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from minunet.contract import ROWS

name = "shapes"


class ShapeArray:
    """What is left of an array without its elements. Arithmetic between equal shapes gives another of that shape.

    base : the array that it is another shape of, or the NumPy array that it was made of; None if a kernel made it
    """

    __slots__ = ("base", "dtype", "shape")
    flags = SimpleNamespace(c_contiguous=True)

    def __init__(self, shape: tuple[int, ...], dtype: Any = np.float32, base: Any = None):
        self.shape, self.dtype, self.base = tuple(int(n) for n in shape), np.dtype(dtype), base

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"ShapeArray({self.shape}, {self.dtype})"

    def astype(self, dtype: Any) -> ShapeArray:
        return ShapeArray(self.shape, dtype)

    def reshape(self, *shape: Any) -> ShapeArray:
        shape = shape[0] if isinstance(shape[0], tuple) else shape
        known = prod(n for n in shape if n >= 0)
        return ShapeArray(tuple(n if n >= 0 else self.size // known for n in shape), self.dtype, base=self)

    def copy(self) -> ShapeArray:
        return self

    def fill(self, value: Any) -> None:
        """Nothing: there are no elements."""

    def _same(self, other: Any) -> ShapeArray:
        return ShapeArray(self.shape, self.dtype)

    __add__ = __radd__ = __iadd__ = __sub__ = __rsub__ = __isub__ = _same
    __mul__ = __rmul__ = __imul__ = __truediv__ = _same


Array = ShapeArray


def empty(shape: tuple[int, ...], dtype: Any) -> ShapeArray:
    """An array of that shape."""
    return ShapeArray(shape, dtype)


def asarray(a: Any) -> ShapeArray:
    """The shape of a NumPy array."""
    return ShapeArray(a.shape, a.dtype, base=a)


def numpy(a: ShapeArray) -> np.ndarray:
    """Raises TypeError: what has no elements cannot become an array that has."""
    raise TypeError(f"{a!r} has a shape and no numbers; build and run the network outside shapes_only()")


def _nothing(*arrays: Any, **options: Any) -> None:
    """What every kernel does here: the gate has already worked out the shapes."""


kernels = dict.fromkeys(ROWS, _nothing)
