"""An array in a few numbers, by which another array is recognised as the same; see tests/vectors."""

from __future__ import annotations

import re

import numpy as np
from formula import u

SAMPLES = 32


def file_name(title: str) -> str:
    """ "fusionnet, port" -> "fusionnet-port.npz"."""
    return re.sub(r"[^\w+]+", "-", title) + ".npz"


def digest(a: np.ndarray) -> np.ndarray:
    """[the shape as four numbers, |a|, <a, u> / |u|, up to 32 values evenly spread from the first to the last]."""
    a = np.ascontiguousarray(a, np.float64)
    shape = (*a.shape, *[0] * (4 - a.ndim))
    weights = u(a.shape)
    spread = np.linspace(0, a.size - 1, min(SAMPLES, a.size)).round().astype(int)
    inner = (a * weights).sum() / np.linalg.norm(weights)
    return np.concatenate([shape, [np.linalg.norm(a), inner], a.ravel()[spread]])


def differences(found: np.ndarray, known: np.ndarray) -> float:
    """The largest difference between two digests in units of the known array's norm; inf where the shapes differ."""
    if found.shape != known.shape or not np.array_equal(found[:4], known[:4]):
        return np.inf
    return float(np.abs(found[4:] - known[4:]).max() / known[4])
