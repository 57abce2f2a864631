"""What the gate checks of a call, and the answers of the contract's rows, which it keeps."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from minunet.contract import Row, Spec, Work
from minunet.errors import UserError

ANSWERS = 4096  # kept at most; a training step of FusionNet asks about 90 different questions
_answers: dict[tuple[Any, ...], Work] = {}


def work_of(row: Row, inputs: tuple[Any, ...], options: dict[str, Any], backend: ModuleType) -> Work:
    """The row's answer for these inputs, once they are checked.

    A network asks the same again and again, so answers are kept under all that they depend on: the inputs' shapes and
    dtypes, and the options. Optimisers are let be: their rows ask little, and have an option that counts steps.
    """
    seen: list[tuple[Any, ...] | None] = []
    for array in inputs:
        if array is None:
            seen.append(None)
        elif isinstance(array, backend.Array) and array.flags.c_contiguous:
            seen.append((array.shape, array.dtype))
        else:
            break
    if row.in_place or len(seen) < len(inputs):
        return row.rule(*_check(row, inputs, backend), **options)
    key = (row.name, *seen, *options.items())
    try:
        work = _answers.get(key)
    except TypeError:  # an option that is no constant, a list say: it may change under the same name
        return row.rule(*_check(row, inputs, backend), **options)
    if work is None:
        work = row.rule(*_check(row, inputs, backend), **options)
        if len(_answers) >= ANSWERS:
            _answers.clear()
        _answers[key] = work
    return work


def _check(row: Row, inputs: tuple[Any, ...], backend: ModuleType) -> list[Spec | None]:
    """The inputs' specs, after checking number, kind, dtype and contiguity."""
    if len(inputs) > len(row.inputs):
        raise TypeError(f"{row.name} takes {len(row.inputs)} arrays ({', '.join(row.inputs)}); got {len(inputs)}")
    specs: list[Spec | None] = []
    floating = None
    for name, array in zip(row.inputs, inputs):
        if array is None:
            if name not in row.optional:
                raise TypeError(f"{row.name}: {name} is missing")
            specs.append(None)
            continue
        if not isinstance(array, backend.Array):
            why = getattr(backend, "reason", str)()  # a backend without a device has no arrays at all
            if why:
                raise UserError(f"backend {backend.name!r}: {why}")
            kind = type(array)
            raise TypeError(
                f"{row.name}: {name} is a {kind.__module__}.{kind.__name__}, and backend {backend.name!r} works on"
                f" {backend.Array.__module__}.{backend.Array.__name__}; choose the backend with use_backend(), or move"
                f" a network with .to({backend.name!r})"
            )
        dtype = array.dtype
        if name in row.integers:
            if dtype != np.int32:
                raise TypeError(f"{row.name}: {name} is {dtype}; it must be int32")
        elif name in row.doubles:
            if dtype != np.float64:
                raise TypeError(f"{row.name}: {name} is {dtype}; it must be float64")
        elif floating is None:
            if dtype not in row.tolerance:
                raise TypeError(f"{row.name}: {name} is {dtype}; it must be float32 or float64")
            floating = dtype
        elif dtype != floating:
            raise TypeError(f"{row.name}: {name} is {dtype} where {floating} is expected; convert one of them")
        if not array.flags.c_contiguous:
            raise ValueError(f"{row.name}: {name} is not C-contiguous; pass a contiguous copy")
        specs.append(Spec(array.shape, dtype))
    return specs


def check_out(
    row: Row, expected: tuple[Spec, ...], out: tuple[Any, ...], inputs: tuple[Any, ...], overlap: Callable
) -> None:
    """An output has the row's shape and memory of its own; in place it may be the input of its position, as a whole."""
    own = len(out) if row.in_place else 0
    others = [a for i, a in enumerate(inputs) if a is not None and not (i < own and a is out[i])]
    for array, spec in zip(out, expected, strict=True):
        if (array.shape, array.dtype) != spec or not array.flags.c_contiguous:
            raise ValueError(f"{row.name}: out must be contiguous {spec.dtype} {spec.shape}, not {array.shape}")
        for other in others:
            if overlap(array, other):
                raise ValueError(f"{row.name}: out must not share memory with an input or another output")
        others.append(array)
