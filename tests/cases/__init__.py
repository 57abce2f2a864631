"""Awkward sample inputs for every row of the contract.

`cases("conv2d")` lists cases; `case.inputs(rng, dtype)` makes the arrays in the row's order (None: missing), and
`case.options` are the options the gate wants. Sizes are odd, rectangular, one pixel, one channel, not multiples of
4, 8 or 16; values fit the operation: no ties where a maximum is differentiated, both signs and no kink for a ReLU,
logits up to +-10^4, sums that do not cancel to nothing. Conformance tests, gradient tests and benches use them.
"""

from __future__ import annotations

from . import augment, conv, join, loss, matmul, norm, optim, pointwise, pool, resample  # each enters its rows
from .sample import GENERATORS, Case

__all__ = [
    "Case",
    "augment",
    "cases",
    "conv",
    "join",
    "loss",
    "matmul",
    "norm",
    "optim",
    "pointwise",
    "pool",
    "resample",
]


def cases(row_name: str) -> list[Case]:
    """All cases of one contract row. Raises KeyError where a row has none, so that no new row stays untested."""
    return list(GENERATORS[row_name](row_name))
