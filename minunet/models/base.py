"""What all networks share: their name and arguments (for checkpoints), and the sizes that they take."""

from __future__ import annotations

from typing import Any

from minunet.nn import Module

SEARCH = 4096  # a legal size is looked for this far above the one asked for


class Network(Module):
    """A Module from images to logits. Subclasses define `forward` and `trace`."""

    config: dict[str, Any]  # {"model": name, arguments...}, set by `minunet.models.build`

    def trace(self, size: int) -> int | None:
        """Output height (or width) for an input height (or width), None if the network does not take that size."""
        raise NotImplementedError(f"{type(self).__name__} does not define trace")

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
