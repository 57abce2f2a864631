"""Losses that lie on the device: read together, every so often, since reading one waits for all the work before it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np


class Unread:
    """Room for the losses of up to `steps` steps of `together` batches each, in the memory of `backend`."""

    def __init__(self, backend: ModuleType, steps: int, together: int):
        self._backend, self._together, self._count = backend, together, 0
        self._kept = backend.empty((steps * together,), np.float32)

    def __len__(self) -> int:
        """Steps that are kept."""
        return self._count // self._together

    def keep(self, loss: Any) -> None:
        """A batch's loss, an array of one number, copied on the device. Raises IndexError where there is no room."""
        if self._count == len(self._kept):
            raise IndexError(f"{self._count} losses are kept already; read() them")
        self._kept[self._count : self._count + 1] = loss.reshape(1)
        self._count += 1

    def read(self) -> list[float]:
        """The mean loss of each step since the last reading, in one copy to the host."""
        values = self._backend.numpy(self._kept)[: self._count].astype(np.float64)
        self._count = 0
        return values.reshape(-1, self._together).mean(axis=1).tolist()
