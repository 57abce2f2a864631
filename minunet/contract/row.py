"""What a row of the contract is, and the checks that rows share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

F32, F64, I32 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int32)


class Spec(NamedTuple):
    """What the contract knows of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Work(NamedTuple):
    """A row's answer: what one call writes, and how many additions and multiplications it does."""

    outputs: tuple[Spec, ...]
    flops: int


@dataclass(frozen=True)
class Row:
    """One kernel. `linear`: the inputs in which it is linear when the others, and the options, stand still.

    `tolerance[dtype]` bounds norm(result - exact) / norm(exact), where exact is computed in float64.
    """

    name: str
    stem: str
    rule: Callable[..., Work]
    inputs: tuple[str, ...]
    optional: frozenset[str]
    options: tuple[str, ...]
    shape_only: frozenset[str]
    linear: tuple[str, ...]
    tolerance: dict[np.dtype, float]
    in_place: bool  # an output may be the input of the same position: optimisers
    integers: frozenset[str]  # inputs of dtype int32
    doubles: frozenset[str]  # inputs of dtype float64, whatever the others' is; all others share one floating dtype


ROWS: dict[str, Row] = {}
CONV = {F32: 2e-5, F64: 1e-12}  # fp32 has room for Winograd's F(4x4, 3x3)
SUM = {F32: 5e-6, F64: 1e-12}  # long sums
POINT = {F32: 1e-6, F64: 1e-14}  # a few roundings per element


def row(
    stem: str,
    *,
    linear: tuple[str, ...] = (),
    tolerance: dict[np.dtype, float] = POINT,
    shape_only: tuple[str, ...] = (),
    in_place: bool = False,
    integers: tuple[str, ...] = (),
    doubles: tuple[str, ...] = (),
) -> Callable[[Callable[..., Work]], Callable[..., Work]]:
    """Enter the decorated rule into `ROWS` under its own name."""

    def enter(rule: Callable[..., Work]) -> Callable[..., Work]:
        parameters = inspect.signature(rule).parameters.values()
        arrays = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        ROWS[rule.__name__] = Row(
            name=rule.__name__,
            stem=stem,
            rule=rule,
            inputs=tuple(p.name for p in arrays),
            optional=frozenset(p.name for p in arrays if p.default is None),
            options=tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY),
            shape_only=frozenset(shape_only),
            linear=linear,
            tolerance=tolerance,
            in_place=in_place,
            integers=frozenset(integers),
            doubles=frozenset(doubles),
        )
        return rule

    return enter


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless the condition holds."""
    if not condition:
        raise ValueError(message)


def same(a: Spec, b: Spec, what: str) -> None:
    """Raise unless two arrays have one shape."""
    require(a.shape == b.shape, f"{what}: shapes {a.shape} and {b.shape} differ; they must be equal")


def channels(vector: Spec | None, c: int, what: str) -> None:
    """Raise unless `vector` is missing or has one value per channel."""
    if vector is not None:
        require(
            vector.shape == (c,),
            f"{what} has shape {vector.shape}; it needs one value for each of {c} channels",
        )


def activated(activation: str | None, what: str) -> None:
    """Raise unless `activation`, the act() of a row's formula, is None (act(y) = y) or "relu" (act(y) = max(y, 0))."""
    require(activation in (None, "relu"), f"{what}: activation {activation!r} is unknown; it is None or 'relu'")
