"""Products of matrices."""

from __future__ import annotations

import numpy as np


def matmul(y, a, b, *, transpose_a, transpose_b):
    """y[n,m,p] = sum_k A[n,m,k] B[n,k,p]; A and B are a and b, or their transposes."""
    left, right = "nkm" if transpose_a else "nmk", "npk" if transpose_b else "nkp"
    y[...] = np.einsum(f"{left},{right}->nmp", a, b)
