"""Where a GPU's memory was full: which batch and tile would fit."""

from __future__ import annotations

from collections.abc import Callable

from minunet import footprint
from minunet.models import Network
from minunet.training.config import Config

SHARE = 0.8  # of the device's memory; the rest is for the kernels' work space and for gaps


def fitting(config: Config, model: Network, seen: tuple[int, int], slots: int, capacity: int) -> str:
    """The options with which a training step takes less than SHARE of `capacity` bytes, in words for the user.

    seen : (h, w) of the network's input     slots : arrays that the optimiser keeps for each weight
    The batch shrinks first, as `--accumulate` makes up for it, then the tile.
    """
    room = SHARE * capacity

    def fits(size: tuple[int, int], batch: int) -> bool:
        return footprint.training_step(model, size, batch, slots) <= room

    batch = _most(range(1, config.batch), lambda b: fits(seen, b))
    if batch is not None:
        together = -(-config.batch * config.accumulate // batch)
        return f"--batch {batch} --accumulate {together} with tiles of {_by(seen)} would fit"
    sides = [s for s in range(1, min(seen)) if model.trace(s) is not None]
    side = _most(sides, lambda s: fits((s, s), 1))
    if side is None:
        return "no tile fits beside the weights and the training images: give a smaller --width"
    return f"--tile {side} --batch 1 --accumulate {config.batch * config.accumulate} would fit"


def _most(candidates: range | list[int], fits: Callable[[int], bool]) -> int | None:
    """The largest candidate (in rising order) that fits, as all smaller ones do then; None where none does."""
    low, high = 0, len(candidates)  # those before `low` fit, those from `high` on do not
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if fits(candidates[middle]) else (low, middle)
    return candidates[low - 1] if low else None


def _by(size: tuple[int, int]) -> str:
    return " x ".join(map(str, size))
