"""What all networks share: their name and arguments (for checkpoints), and the sizes that they take."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from minunet import backends
from minunet.nn import Module

SEARCH = 4096  # a legal size is looked for this far above the one asked for


class Output(NamedTuple):
    """One of the maps that a network returns in training: its share of the loss, and what it is trained on.

    target : "classes", the label map, or "edges", where two labels meet
    """

    weight: float = 1.0
    target: str = "classes"


class Network(Module):
    """A Module from images to logits. Subclasses define `forward`, and `trace` or the attributes it reads.

    forward : x (N, H, W, C) -> logits (N, OH, OW, n_classes). A network with more than one of `outputs` returns a tuple
        of them in training, the main one first, and that one alone in evaluation. Logits of a smaller size than the
        labels are trained on the labels shrunk to it (nearest).
    """

    config: dict[str, Any]  # {"model": name, arguments...}, set by `minunet.models.build`
    paper = ""  # authors, year, arXiv number
    multiple = 1  # legal heights and widths are multiples of this ...
    least = 1  # ... and at least this
    outputs: tuple[Output, ...] = (Output(),)
    unused: tuple[str, ...] = ()  # beginnings of the names of parameters that the definition has, but nothing reads

    @property
    def channels(self) -> tuple[int, ...]:
        """The numbers of image channels that the network takes."""
        return (self.config["in_channels"],)

    def trace(self, size: int) -> int | None:
        """Output height (or width) for an input height (or width), None if the network does not take that size."""
        return size if size >= self.least and size % self.multiple == 0 else None

    def output_size(self, h: int, w: int) -> tuple[int, int]:
        """(OH, OW) for an H x W input. Raises ValueError, naming the next legal size, where the network refuses it."""
        out = self.trace(h), self.trace(w)
        if out[0] is None or out[1] is None:
            legal = " x ".join(str(next(s for s in range(n, n + SEARCH) if self.trace(s) is not None)) for n in (h, w))
            raise ValueError(f"{type(self).__name__} does not take {h} x {w} images; the next legal size is {legal}")
        return out

    def input_size(self, oh: int, ow: int) -> tuple[int, int]:
        """The smallest legal (H, W) whose output is at least OH x OW."""
        return self._smallest(oh), self._smallest(ow)

    def _smallest(self, out: int) -> int:
        return next(s for s in range(out, out + SEARCH) if (self.trace(s) or 0) >= out)

    def margin(self, h: int, w: int) -> tuple[int, int]:
        """Context (pixels above, pixels left) that an H x W input has around its output."""
        oh, ow = self.output_size(h, w)
        return (h - oh) // 2, (w - ow) // 2

    def __call__(self, *inputs: Any) -> Any:
        shape = inputs[0].shape
        if len(shape) != 4:
            raise ValueError(f"{type(self).__name__} takes images x[N,H,W,C]; got an array of shape {shape}")
        self.output_size(*shape[1:3])
        return super().__call__(*inputs)


def positive(network: str, **numbers: int) -> None:
    """Raise ValueError unless every number is at least 1: `positive("unet", width=width, depth=depth)`."""
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{network}: {name} is {value}; it must be at least 1")


def one_of(network: str, argument: str, value: Any, known: tuple[Any, ...]) -> None:
    """Raise ValueError unless `value` is one of the known ones."""
    if value not in known:
        raise ValueError(f"{network}: {argument} {value!r} is unknown; it is one of {', '.join(map(repr, known))}")


def shapes_only() -> AbstractContextManager[Any]:
    """Networks that are built in this block have shapes instead of weights, and running them infers shapes.

    >>> with shapes_only(), no_grad(), backends.count() as work:
    ...     y = build("unet").eval()(image((1, 572, 572, 1)))
    >>> y.shape, work.flops
    """
    return backends.use_backend(backends.SHAPES)
