"""Warping error: bend the true labels towards the prediction without changing topology; count what stays wrong.

A pixel is simple when flipping it changes neither the cells (4-connected) nor the membrane (8-connected). The truth
is relaxed by flipping simple points only, so a shifted membrane costs nothing and a broken one does (Jain 2010,
doi 10.1109/CVPR.2010.5539950). The best relaxation is NP-hard to find; the challenge fixes a greedy order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minunet.jit import njit
from minunet.metrics.segments import label_cells

RADIUS = 20  # of the window in which a removed pixel may still be bridged: 41 x 41 pixels

OTHER, SPLIT, MERGE = 1, 2, 3  # kinds of a pixel that stays wrong; 0 where nothing is wrong


def is_simple(ring: int) -> bool:
    """Whether a pixel may flip, from the 8 bits of its neighbours in circular order (bit 0 a corner).

    True when the ring is not all cell and exactly one circular run of cell pixels holds an edge neighbour
    (an odd bit); a run of corners alone is not 4-connected to the pixel.
    """
    if ring == 0xFF:
        return False
    bits = [ring >> k & 1 for k in range(8)]
    gap = bits.index(0)  # start after a gap, so that no run wraps around
    runs = "".join(str(bits[(gap + k) % 8] * (1 + (gap + k) % 2)) for k in range(8)).split("0")  # 1 corner, 2 edge
    return sum("2" in run for run in runs) == 1


SIMPLE = np.array([is_simple(ring) for ring in range(256)])


@njit(nogil=True)
def _relax(pixels, order, stride, simple):
    """Sweep over `order`, flipping what is simple, until a sweep flips nothing; returns how many stay wrong.

    The pixels that stay wrong are moved to the front of `order`. A right pixel never becomes wrong and the sort key
    of a pixel never changes, so one sorted list serves all sweeps.
    """
    step = (-stride - 1, -stride, -stride + 1, 1, stride + 1, stride, stride - 1, -1)
    left = order.size
    while True:
        kept = 0
        for n in range(left):
            i = order[n]
            ring = 0
            for k in range(8):
                ring |= pixels[i + step[k]] << k
            if simple[ring]:
                pixels[i] = 1 - pixels[i]
            else:
                order[kept] = i
                kept += 1
        if kept == left:
            return left
        left = kept


@njit(nogil=True)
def _is_split(pixels, i0, stride, W, H, radius, window, queue):
    """Whether clearing cell pixel i0 separates its neighbours, looking no further than the window around it.

    The window is copied with a frame of background, so the search needs neither bounds checks nor a list of
    visited pixels: it erases what it visits.
    """
    x0, y0 = i0 // stride, i0 % stride
    xa, xb = max(1, x0 - radius), min(W, x0 + radius)
    ya, yb = max(1, y0 - radius), min(H, y0 + radius)
    side = yb - ya + 3
    window[: (xb - xa + 3) * side] = 0
    for x in range(xa, xb + 1):
        for y in range(ya, yb + 1):
            window[(x - xa + 1) * side + y - ya + 1] = pixels[x * stride + y]
    centre = (x0 - xa + 1) * side + y0 - ya + 1
    window[centre] = 0
    wanted, start = 0, centre
    for step in (-side - 1, -side, -side + 1, -1, 1, side - 1, side, side + 1):
        if window[centre + step] == 1:
            window[centre + step] = 2  # a neighbour to be met
            wanted += 1
            start = centre + step
    window[start] = 0
    wanted -= 1
    queue[0] = start
    head, tail = 0, 1
    while head < tail and wanted > 0:  # breadth first: all are met after a few pixels, or never
        i = queue[head]
        head += 1
        for step in (-side, -1, 1, side):
            if window[i + step] != 0:
                wanted -= window[i + step] - 1
                window[i + step] = 0
                queue[tail] = i + step
                tail += 1
    return wanted > 0


@njit(nogil=True)
def _classify(pixels, components, wrong, stride, W, H, radius, kinds):
    """Kind of each pixel in `wrong`, from the ids of the cells in its 8-neighbourhood (components: -1 outside)."""
    step = (-stride - 1, -stride, -stride + 1, 1, stride + 1, stride, stride - 1, -1)
    size = (min(2 * radius + 1, W) + 2) * (min(2 * radius + 1, H) + 2)
    window, queue = np.zeros(size, np.uint8), np.empty(size, np.int64)
    ids = np.empty(8, np.int64)
    for n in range(wrong.size):
        i = wrong[n]
        found = 0
        for k in range(8):
            c = components[i + step[k]]
            known = c < 0
            for m in range(found):
                known = known or ids[m] == c
            if not known:
                ids[found] = c
                found += 1
        kinds[n] = OTHER
        if found >= 3:
            kinds[n] = SPLIT if pixels[i] == 1 else MERGE
        elif found == 2 and pixels[i] == 1 and _is_split(pixels, i, stride, W, H, radius, window, queue):
            kinds[n] = SPLIT


class Warped(NamedTuple):
    """The truth after relaxation, and the kind (0 right, OTHER, SPLIT, MERGE) of every pixel that stays wrong."""

    labels: np.ndarray  # bool (H, W)
    kinds: np.ndarray  # uint8 (H, W)


def warp_plane(truth: np.ndarray, p: np.ndarray, t: float) -> Warped:
    """`warp` for planes stored as [x, y]: truth bool (W, H), p float64 (W, H); results are (W, H) too."""
    W, H = truth.shape
    stride = H + 2
    padded = np.zeros((W + 2, stride), np.uint8)  # outside is background
    padded[1:-1, 1:-1] = truth
    x, y = np.nonzero(truth != (p > t))  # column by column
    key = np.abs(p[x, y] - t).astype(np.float32)
    order = ((x + 1) * stride + y + 1)[np.argsort(-key, kind="stable")]
    pixels = padded.reshape(-1)
    wrong = order[: _relax(pixels, order, stride, SIMPLE)]

    labels = padded[1:-1, 1:-1] == 1
    components = np.full(padded.shape, -1, np.int32)
    components[1:-1, 1:-1] = label_cells(labels)[0]
    # The reference takes the whole slice for its window where one side is shorter than the radius.
    radius = RADIUS if min(W, H) >= RADIUS else max(W, H)
    found = np.zeros(wrong.size, np.uint8)
    _classify(pixels, components.reshape(-1), wrong, stride, W, H, radius, found)
    kinds = np.zeros((W, H), np.uint8)
    kinds[wrong // stride - 1, wrong % stride - 1] = found
    return Warped(labels, kinds)


def warp(truth: np.ndarray, p: np.ndarray, t: float) -> Warped:
    """Relax one slice of truth towards the prediction p > t and classify the pixels that stay wrong.

    truth : bool (H, W), true inside a cell.   p : (H, W), probability of cell.   t : threshold.
    Wrong pixels are visited by decreasing |p - t| (rounded to float32), ties column by column, again and again.
    A pixel that stays wrong is a SPLIT if it is cell and its loss would separate a cell, a MERGE if it is membrane
    between two cells; holes and lone objects are OTHER.
    """
    plane = warp_plane(np.asarray(truth, np.bool_).T, np.asarray(p, np.float64).T, t)
    return Warped(np.ascontiguousarray(plane.labels.T), np.ascontiguousarray(plane.kinds.T))
