"""Numbers as tensor cores take them: float32 rounded to tf32, bf16 or fp16, in NumPy."""

from __future__ import annotations

import numpy as np

ROUNDED = ("tf32", "bf16", "fp16")


def round_to(precision: str, x: np.ndarray) -> np.ndarray:
    """x float32, rounded: tf32 to 10 bits of fraction, ties away from zero; bf16 to 7 and fp16 to 10, ties to even."""
    if precision == "fp16":
        return x.astype(np.float16).astype(np.float32)
    bits = np.ascontiguousarray(x).view(np.uint32).astype(np.uint64)
    if precision == "tf32":
        kept = (bits + 0x1000) & 0xFFFFE000
    else:
        kept = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return kept.astype(np.uint32).view(np.float32).reshape(x.shape)
