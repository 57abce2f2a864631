"""The fast CPU backend: compiled loops on NumPy arrays, float32 and float64.

Kernels are found by row name in the module of the row's stem. What each computes is said once, in its row of
`minunet.contract`; the gate has checked shapes and dtypes before a kernel is called. Compiled code is kept on disk by
`minunet.jit`, so that only the first use of a kernel on a machine waits for
the compiler: about a second each, half a minute for all of them in one dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from minunet import jit
from minunet.backends.cpu.memory import empty
from minunet.backends.stems import by_row

__all__ = ["Array", "asarray", "compiled", "empty", "kernels", "name", "numpy"]

name = "cpu"
Array = np.ndarray
kernels: dict[str, Callable[..., None]] = by_row("minunet.backends.cpu")


def asarray(a) -> np.ndarray:
    """`a` as a C-contiguous NumPy array of its own dtype."""
    return np.ascontiguousarray(a)


def numpy(a: np.ndarray) -> np.ndarray:
    """The array itself: this backend works on NumPy's."""
    return a


def compiled() -> bool:
    """Whether an earlier run has compiled kernels here; otherwise the first step waits for the compiler."""
    return jit.compiled(Path(__file__).parent)
