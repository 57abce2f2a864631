"""Products of matrices on the CPU: NumPy's, which hands each to BLAS; a transpose is a flag there, not a copy."""

from __future__ import annotations

import numpy as np


def matmul(y, a, b, *, transpose_a, transpose_b):
    np.matmul(a.swapaxes(1, 2) if transpose_a else a, b.swapaxes(1, 2) if transpose_b else b, out=y)
