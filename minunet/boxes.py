"""Where windows lie in an image, and in its turned versions: arithmetic of boxes, in pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from minunet.data.tiles import symmetries

Box = tuple[int, int, int, int]  # top, left, height, width
Size = tuple[int, int]


class Axis(NamedTuple):
    """One side of an image, and how windows lie along it; all in pixels."""

    n: int  # of the image
    whole: int  # of the window that would cover it alone
    side: int  # of a window, at most `whole`
    out: int  # that a window predicts
    stride: int
    context: int  # thrown away at cuts; 0 where a window's output is its middle

    def targets(self, slack: int) -> list[tuple[int, int]]:
        """(start, length) of what each window is to fill in, so that it could begin `slack` pixels earlier.

        n = 800, side = 512, context = 96, stride = 16: (0, 384), (384, 416). Of windows whose output 132 is their
        middle, n = 300: (0, 128), (128, 128), (256, 44).
        """
        if self.side >= self.whole:
            return [(0, self.n)]
        if not self.context:
            step = (self.out - slack) // self.stride * self.stride
            begins = [*range(0, self.n, step), self.n]
        else:
            side = self.side - math.ceil(slack / self.stride) * self.stride
            last = math.ceil((self.whole - side) / self.stride) * self.stride  # ends where the only window would end
            step = (side - 2 * self.context) // self.stride * self.stride
            begins = [0, *(start + self.context for start in (*range(step, last, step), last)), self.n]
        return [(begin, end - begin) for begin, end in pairwise(begins)]

    def window(self, start: int) -> tuple[int, int]:
        """(where the window begins that is to fill in the pixels from `start` on, how many of its outputs to skip)."""
        if self.side >= self.whole:
            return -((self.side - self.out) // 2), start
        if not self.context:
            first = start // self.stride * self.stride
            return first - (self.side - self.out) // 2, start - first
        last = math.ceil((self.whole - self.side) / self.stride) * self.stride
        first = min(max(start - self.context, 0) // self.stride * self.stride, last)
        return first, start - first


class Layout(NamedTuple):
    """How an image is covered: (rows, columns), the targets row by row, and the versions that are averaged."""

    axes: tuple[Axis, Axis]
    targets: list[Box]
    average: int

    @property
    def sides(self) -> Size:
        """The size of a window."""
        return self.axes[0].side, self.axes[1].side

    def windows(self, target: Box) -> Iterator[tuple[Box, Size, Callable, Callable]]:
        """(window in the image, outputs to skip in its turned version, apply, undo) for each version of the image."""
        for k, (apply, undo) in enumerate(symmetries(self.average)):
            rows, columns = self.axes if k % 2 == 0 else self.axes[::-1]
            top, left, _, _ = turned(target, (self.axes[0].n, self.axes[1].n), k)
            (i, skip_i), (j, skip_j) = rows.window(top), columns.window(left)
            yield unturned((i, j, rows.side, columns.side), (rows.n, columns.n), k), (skip_i, skip_j), apply, undo


def turned(box: Box, size: Size, k: int) -> Box:
    """Where a box of an image (H, W) lies in the k-th of its symmetries (`minunet.data.symmetries`)."""
    (i, j, h, w), (H, W) = box, size
    if k >= 4:
        j = W - j - w
    for _ in range(k % 4):
        i, j, h, w, H, W = W - j - w, i, w, h, W, H
    return i, j, h, w


def unturned(box: Box, size: Size, k: int) -> Box:
    """Where a box of the k-th symmetry, an image (H, W), lies in the image itself."""
    (i, j, h, w), (H, W) = box, size
    for _ in range(k % 4):
        i, j, h, w, H, W = j, H - i - h, w, h, W, H
    return (i, W - j - w, h, w) if k >= 4 else (i, j, h, w)
