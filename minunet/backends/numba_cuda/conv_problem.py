"""One convolution: its three arrays, whichever of them is the result, and its sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from minunet.backends.numba_cuda.launch import optional


@dataclass
class Problem:
    """x (N, H, W, C), w (O, KH, KW, C), y (N, OH, OW, O), as arrays; gradients stand in the place of what they are of.

    b, activation : of the epilogue; for grad_x they belong to the result, which is `x`
    """

    x: Any
    w: Any
    y: Any
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    b: Any = None
    activation: str | None = None
    N: int = field(init=False)
    H: int = field(init=False)
    W: int = field(init=False)
    C: int = field(init=False)
    O: int = field(init=False)
    KH: int = field(init=False)
    KW: int = field(init=False)
    OH: int = field(init=False)
    OW: int = field(init=False)

    def __post_init__(self) -> None:
        self.N, self.H, self.W, self.C = self.x.shape
        self.O, self.KH, self.KW, _ = self.w.shape
        _, self.OH, self.OW, _ = self.y.shape

    @property
    def geometry(self) -> tuple[tuple[int, ...], ...]:
        """stride, padding, dilation: the last arguments of every kernel."""
        return self.stride, self.padding, self.dilation

    @property
    def epilogue(self) -> tuple[Any, bool]:
        """The bias, or something in its place, and whether it is there."""
        return optional(self.b, self.w)

    @property
    def relu(self) -> bool:
        return self.activation == "relu"
