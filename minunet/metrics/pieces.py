"""Which cells a segmentation has merged and which it has split, pixel by pixel: for pictures and counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RIGHT, SPLIT, MERGED = 0, 1, 2
LEAST = 10  # pixels: smaller pieces are specks, neither counted nor marked


class Pieces(NamedTuple):
    """What is wrong with the segments of one slice."""

    kinds: np.ndarray  # uint8 (H, W): RIGHT, SPLIT or MERGED
    splits: int  # found segments that are pieces of a cell whose largest part is another segment's
    mergers: int  # true cells whose largest part lies in a segment that is mostly another cell


def pieces(truth: np.ndarray, found: np.ndarray) -> Pieces:
    """Compare the numbered cells of a truth with numbered segments; both integers (H, W), 0 background.

    With c[t, f] the pixels of cell t in segment f, best(t) the segment with the most of t and best(f) the cell with the
    most of f: the pair (t, f) is merged where best(t) = f and best(f) != t, split where best(f) = t and best(t) != f.
    Where both hold or neither does, as in the slivers along a border that lies a little off, nothing is marked.

    >>> pieces(np.array([[1] * 20 + [0] + [2] * 30]), np.array([[7] * 51]))[1:]
    (0, 1)
    """
    if truth.shape != found.shape:
        raise ValueError(f"pieces: truth has shape {truth.shape} and found {found.shape}; they must match")
    truth, found = truth.astype(np.int64), found.astype(np.int64)
    columns = int(found.max(initial=0)) + 1
    pairs, index, count = np.unique(truth * columns + found, return_inverse=True, return_counts=True)
    t, f = pairs // columns, pairs % columns
    both = (t > 0) & (f > 0)
    rising = np.argsort(count, kind="stable")
    rising = rising[both[rising]]
    best_f = dict(zip(t[rising].tolist(), f[rising].tolist()))  # the last one stays: the one with the most pixels
    best_t = dict(zip(f[rising].tolist(), t[rising].tolist()))
    kinds = np.zeros(len(pairs), np.uint8)
    for k in np.flatnonzero(both & (count >= LEAST)).tolist():
        mine, its = best_f[int(t[k])] == f[k], best_t[int(f[k])] == t[k]
        if mine != its:
            kinds[k] = MERGED if mine else SPLIT
    return Pieces(kinds[index.reshape(truth.shape)], int((kinds == SPLIT).sum()), int((kinds == MERGED).sum()))
