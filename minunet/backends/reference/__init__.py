"""The reference: every kernel in plain NumPy and float64, as close to the contract's formula as code can be.

It judges the other backends, so it shares no code with them and is more precise than they are: float32 arrays are
computed in float64 and rounded once, when the result is written. Brute force and SciPy judge the reference itself
(tests/test_reference_*.py).
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature

import numpy as np

from minunet.backends.stems import by_row
from minunet.contract import ROWS

name = "reference"
Array = np.ndarray
F32 = np.dtype(np.float32)


def empty(shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """An uninitialised C-contiguous array."""
    return np.empty(shape, dtype)


def asarray(a: np.ndarray) -> np.ndarray:
    """A NumPy array as an array of this backend: contiguous, otherwise itself."""
    return np.ascontiguousarray(a)


def numpy(a: np.ndarray) -> np.ndarray:
    """An array of this backend as a NumPy array: itself."""
    return a


def in_float64(kernel: Callable[..., None], n_inputs: int) -> Callable[..., None]:
    """`kernel` for float32 as well: inputs widened exactly, outputs rounded once.

    The kernel computes into scratch arrays full of NaN, so that an element it forgets to write shows.
    """
    arrays = [p for p in signature(kernel).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    n_outputs = len(arrays) - n_inputs

    def run(*args: np.ndarray | None, **options) -> None:
        outputs, inputs = args[:n_outputs], args[n_outputs:]
        wide = [np.full(y.shape, np.nan) if y.dtype == F32 else y for y in outputs]
        kernel(*wide, *(x.astype(np.float64) if x is not None and x.dtype == F32 else x for x in inputs), **options)
        for y, result in zip(outputs, wide):
            if y is not result:
                y[...] = result

    run.__name__, run.__doc__ = kernel.__name__, kernel.__doc__
    return run


kernels: dict[str, Callable[..., None]] = {
    row: in_float64(kernel, len(ROWS[row].inputs)) for row, kernel in by_row("minunet.backends.reference").items()
}
