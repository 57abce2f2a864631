"""Cells that touch, made apart: U-Net learns classes, so that only background between two cells keeps them two."""

from __future__ import annotations

import numpy as np


def separate(instances: np.ndarray, gap: int = 1) -> np.ndarray:
    """Classes uint8 (H, W) of instance numbers (H, W), 0 = background: 1 inside cells, 0 elsewhere and along borders.

    A cell's pixel becomes background where another cell is among its 8 neighbours (gap 1), or within that many pixels
    along a side or diagonal: a line of 2 gap pixels between touching cells. (Ronneberger 2015, section 3: "the
    separation border is computed using morphological operations"; which ones it does not say.)

    >>> separate(np.array([[5, 5, 5, 9, 9, 0]])).tolist()
    [[1, 1, 0, 0, 1, 0]]
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    cells = np.asarray(instances)
    side = 2 * gap + 1
    highest = maximum_filter(cells, side, mode="nearest")
    lowest = minimum_filter(np.where(cells > 0, cells, cells.max(initial=0)), side, mode="nearest")
    return ((cells > 0) & (highest == cells) & (lowest == cells)).astype(np.uint8)
