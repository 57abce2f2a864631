"""Products of matrices: one number, one row, one column, sizes that are multiples of nothing; each way round."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from .sample import Case, make, normal, rows

_SIZES = {  # (N, M, K, P)
    "odd": (2, 5, 7, 3),
    "one number": (1, 1, 1, 1),
    "rows by columns": (3, 1, 9, 1),
    "columns by rows": (2, 6, 1, 5),
    "17 by 33 by 64": (1, 17, 33, 64),
    "long sums": (2, 32, 301, 17),
    "attention": (1, 209, 32, 40),
}


@rows("matmul")
def _matmul(_: str) -> Iterable[Case]:
    for (label, (n, m, k, p)), ta, tb in product(_SIZES.items(), (False, True), (False, True)):
        a, b = normal(n, *((k, m) if ta else (m, k))), normal(n, *((p, k) if tb else (k, p)))
        turned = ", a transposed" * ta + ", b transposed" * tb
        yield Case(label + turned, make(a, b), {"transpose_a": ta, "transpose_b": tb})
