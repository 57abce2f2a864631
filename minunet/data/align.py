"""Masks that lie beside what they outline: measured, and undone by moving the images.

Masks are often drawn, or saved, a fraction of a pixel off, all in the same direction. A network that sees its tiles
flipped and turned cannot learn a direction, and so misses every outline by that fraction. The labels of ISBI 2012 lie
0.6 pixels above their membranes, which costs a twentieth of the pixel error (docs/recipes.md). Moving the images before
training, and before prediction, brings both together; what is predicted then lies as the masks do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from minunet.data.dataset import IGNORE
from minunet.data.tiles import reflect_indices

REACH = 4  # px: larger displacements are no matter of drawing
CLEAR = 0.1  # the least correlation of grey values and labels that says anything
MOST_SECTIONS, MOST_PIXELS = 64, 1024  # sections, evenly spread, and the side of each one's middle, that are looked at

Displacement = tuple[float, float]  # down and right, in pixels
Reader = Callable[[int, int, int, int], np.ndarray]


def displacement(images: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> Displacement | None:
    """(down, right): mask pixel (i, j) belongs to image pixel (i + down, j + right); None where nothing clear is found.

    images : real (H, W) or (H, W, C), whose channels' mean counts       labels : integers (H, W), IGNORE left out

    The peak of the cross-correlation of grey values and labels (class 1 against the rest), pooled over the sections (of
    many, and of large ones, a sample):
    r(d) = sum_i (x_(i+d) - mean x) (y_i - mean y) over whole pixels d within REACH, and between them the top of the
    parabola through the nine values around the largest |r|. Without a peak inside REACH, or with |r| below CLEAR, None.
    """
    side = 2 * REACH + 1
    joint, xx, yy = np.zeros((side, side)), np.zeros((side, side)), 0.0
    if len(images) != len(labels):
        raise ValueError(f"displacement: {len(images)} images and {len(labels)} label maps; give one for each")
    for s in range(0, len(images), -(-len(images) // MOST_SECTIONS) or 1):
        image, mask = _middle(np.asarray(images[s])), _middle(np.asarray(labels[s]))
        H, W = mask.shape
        if min(H, W) <= 2 * side:
            continue
        x = image.reshape(H, W, -1).mean(axis=2, dtype=np.float64)
        x -= x.mean()
        inner = mask[REACH : H - REACH, REACH : W - REACH]
        known = inner != IGNORE
        y = (inner == 1) - ((inner == 1) & known).sum() / max(known.sum(), 1)
        y[~known] = 0
        yy += float(np.square(y).sum())
        for i, j in np.ndindex(side, side):
            moved = x[i : i + H - 2 * REACH, j : j + W - 2 * REACH]
            joint[i, j] += float((moved * y).sum())
            xx[i, j] += float(np.square(moved).sum())
    if yy == 0 or xx.min() == 0:
        return None
    r = np.abs(joint) / np.sqrt(xx * yy)
    i, j = np.unravel_index(r.argmax(), r.shape)
    if r[i, j] < CLEAR or not (0 < i < side - 1 and 0 < j < side - 1):
        return None
    down, right = _top(r[i - 1 : i + 2, j - 1 : j + 2])
    return float(i - REACH + down), float(j - REACH + right)


def _middle(x: np.ndarray) -> np.ndarray:
    """At most MOST_PIXELS rows and columns in the middle of (H, W, ...)."""
    top, left = (max(0, (n - MOST_PIXELS) // 2) for n in x.shape[:2])
    return x[top : top + MOST_PIXELS, left : left + MOST_PIXELS]


def _top(values: np.ndarray) -> tuple[float, float]:
    """Where the parabola a + b u + c v + d u^2 + e u v + f v^2 through 3 x 3 values (least squares) has its top."""
    u, v = (g.ravel() for g in np.mgrid[-1:2, -1:2])
    terms = np.stack([np.ones(9), u, v, u * u, u * v, v * v], axis=1)
    _, b, c, d, e, f = np.linalg.lstsq(terms, values.ravel(), rcond=None)[0]
    curvature = np.array([[2 * d, e], [e, 2 * f]])
    if np.linalg.det(curvature) <= 0:
        return 0.0, 0.0
    u, v = np.clip(np.linalg.solve(curvature, [-b, -c]), -1, 1)
    return float(u), float(v)


def displaced(image: np.ndarray, by: Displacement) -> np.ndarray:
    """y[i, j] = image at (i + down, j + right), between pixels by Keys' cubic kernel (a = -1/2), mirrored beyond the
    border: float32 (H, W) or (H, W, C).
    """
    y = image.astype(np.float64)
    for axis, distance in enumerate(by):
        whole = int(np.floor(distance))
        n = y.shape[axis]
        line = np.take(y, reflect_indices(whole - 1, whole + n + 2, n), axis)  # (n + 3) pixels
        y = sum(
            weight * np.take(line, range(k, k + n), axis) for k, weight in enumerate(_keys(distance - whole)) if weight
        )
    return y.astype(np.float32)


def displaced_window(
    read: Reader, size: tuple[int, int], by: Displacement, place: tuple[int, int, int, int]
) -> np.ndarray:
    """The window `place` (top, left, height, width) of `displaced(image, by)`, mirrored beyond its edges.

    read : (top, left, height, width) -> that window of the image (H, W) = size, mirrored beyond its edges
    """
    top, left, height, width = place
    rows, cols = reflect_indices(top, top + height, size[0]), reflect_indices(left, left + width, size[1])
    first, rim = (int(rows.min()), int(cols.min())), REACH + 3
    inner = (int(rows.max()) + 1 - first[0], int(cols.max()) + 1 - first[1])
    wide = read(first[0] - rim, first[1] - rim, inner[0] + 2 * rim, inner[1] + 2 * rim)
    moved = displaced(wide, by)[rim : rim + inner[0], rim : rim + inner[1]]
    return moved[rows - first[0]][:, cols - first[1]]


def _keys(f: float) -> tuple[float, float, float, float]:
    """Weights of the pixels at -1, 0, 1 and 2 for a place 0 <= f < 1 (Keys, IEEE Trans. ASSP 29, 1981)."""
    return (
        ((-0.5 * f + 1.0) * f - 0.5) * f,
        (1.5 * f - 2.5) * f * f + 1.0,
        ((-1.5 * f + 2.0) * f + 0.5) * f,
        (0.5 * f - 0.5) * f * f,
    )
