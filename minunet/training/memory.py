"""Where memory does not do for a training step: which batch and tile would fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from minunet import backends, footprint
from minunet.errors import DeviceMemoryError, UserError
from minunet.models import Network
from minunet.training.config import Config

if TYPE_CHECKING:
    from minunet.training.loop import Trainer

SHARE = 0.8  # of the memory; the rest is for the kernels' work space and for gaps
SLOTS = {"adam": 2, "sgd": 1}  # arrays that an optimiser keeps for each weight, at most


def machine() -> int | None:
    """Bytes of memory that this machine has; None where the system does not tell."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_weights(config: Config, shapes: Network) -> None:
    """Raise UserError for a network whose weights, gradients and optimiser state are more than the machine's memory:
    the system would end the program without a word.

    shapes : the network as `models.shapes_only` builds it
    """
    numbers, memory = sum(p.data.size for p in shapes.parameters()), machine()
    need = 4 * numbers * (2 + SLOTS[config.optimizer])
    if memory is not None and need > memory:
        raise UserError(
            f"{config.model}: its {numbers:,} weights take {_gib(need)} in training, and this machine has"
            f" {_gib(memory)}; give a smaller --width or --depth"
        )


def check_step(trainer: Trainer) -> None:
    """Raise UserError, naming what would fit, where a step on the CPU takes more than the machine's memory for sure."""
    memory = machine()
    if memory is None or backends.get().Array is not np.ndarray:
        return
    need = footprint.training_step(trainer.model, trainer.plan.seen, trainer.config.batch, _slots(trainer))
    if need > memory:
        remedy = fitting(trainer.config, trainer.model, trainer.plan.seen, _slots(trainer), memory)
        raise UserError(f"a training step takes {_gib(need)} at least, and this machine has {_gib(memory)}; {remedy}")


@contextmanager
def advised(trainer: Trainer) -> Iterator[None]:
    """Where memory ends inside the block, a UserError says which options would fit."""
    try:
        yield
    except DeviceMemoryError as error:
        room = backends.get().capacity() - trainer.sampler.on_device
        remedy = fitting(trainer.config, trainer.model, trainer.plan.seen, _slots(trainer), room)
        raise UserError(f"{error.what}; {remedy}") from error
    except MemoryError as error:
        what = str(error) or "there is no memory left"
        raise UserError(f"{what}; give a smaller --batch, --tile or --width") from error


def _slots(trainer: Trainer) -> int:
    return len(trainer.optimizer.slots)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


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
