"""What tests of ISBI scores share: drawn cells, probabilities of them, and overlaps counted from dictionaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import ValuesView

import numpy as np
from scipy import ndimage

FOUR = ndimage.generate_binary_structure(2, 1)


def blur(stack: np.ndarray, sd: float) -> np.ndarray:
    return np.stack([ndimage.gaussian_filter(s.astype(np.float32), sd) for s in stack]).clip(0, 1)


def voronoi(seed: int, slices: int = 3, h: int = 41, w: int = 53) -> np.ndarray:
    """Cells as polygons with membrane between: bool (S, H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    out = []
    for _ in range(slices):
        points = rng.random((12, 2)) * (h, w)
        d = np.sort([np.hypot(y - a, x - b) for a, b in points], axis=0)
        out.append(d[1] - d[0] > 2.5)
    return np.array(out)


def noisy(cells: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (blur(cells, 1.2) + 0.1 * rng.standard_normal(cells.shape)).clip(0, 1).astype(np.float32)


def contingency(truth: np.ndarray, predicted: np.ndarray, singletons: bool = True) -> tuple[ValuesView[int], ...]:
    """Sizes of overlaps, true cells and segments on the pixels of true cells, from dictionaries of pixels."""
    both, rows, columns = Counter(), Counter(), Counter()
    for place, (t, p) in enumerate(zip(truth.ravel().tolist(), predicted.ravel().tolist())):
        if t == 0:
            continue
        segment = ("pixel", place) if p == 0 and singletons else p
        both[t, segment] += 1
        rows[t] += 1
        columns[segment] += 1
    return both.values(), rows.values(), columns.values()
