"""One convolution: its three arrays, whichever of them is the result, and its sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minunet.backends.cuda.launch import ACTIVATION


@dataclass(frozen=True)
class Problem:
    """x (N, H, W, C), w (O, KH, KW, C), y (N, OH, OW, O), as arrays; gradients stand in the place of what they are of.

    b, activation : of the epilogue; for grad_x they belong to the result, which is `x`
    """

    x: Any
    w: Any
    y: Any
    b: Any
    N: int
    H: int
    W: int
    C: int
    O: int
    KH: int
    KW: int
    OH: int
    OW: int
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    activation: int

    @classmethod
    def of(cls, x, w, y, stride, padding, dilation, b=None, activation=None) -> Problem:
        (n, h, wd, c), (o, kh, kw, _), (_, oh, ow, _) = x.shape, w.shape, y.shape
        return cls(x, w, y, b, n, h, wd, c, o, kh, kw, oh, ow, stride, padding, dilation, ACTIVATION[activation])

    @property
    def dtype(self) -> np.dtype:
        return self.x.dtype

    @property
    def sizes(self) -> tuple[int, ...]:
        """N, H, W, C, O, KH, KW, OH, OW, sh, sw, top, left, dh, dw: the integers that every step's kernels take."""
        top, _, left, _ = self.padding
        shape = (self.N, self.H, self.W, self.C, self.O, self.KH, self.KW, self.OH, self.OW)
        return (*shape, *self.stride, top, left, *self.dilation)
