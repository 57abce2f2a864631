"""Images of different sizes as one thing that is indexed like a stack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from minunet.data.mapped import is_mapped


class Mixed:
    """Arrays (H, W) or (H, W, C) whose H and W may differ, in place of a stack (S, H, W[, C]).

    m[3] is an array, m[indices] (array, list or slice) a Mixed or, where the sizes allow it, a stack. `shape` is that
    of the smallest stack that could hold all, (S, largest H, largest W[, C]); `size` counts the elements that exist.
    """

    def __init__(self, arrays: Sequence[np.ndarray]):
        self.arrays = list(arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.arrays)

    def __getitem__(self, index: Any) -> np.ndarray | Mixed:
        if isinstance(index, int | np.integer):
            return self.arrays[index]
        chosen = np.arange(len(self.arrays))[index]
        return gather([self.arrays[k] for k in chosen])

    @property
    def dtype(self) -> np.dtype:
        return self.arrays[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.arrays), *(max(sides) for sides in zip(*(a.shape for a in self.arrays))))

    @property
    def ndim(self) -> int:
        return 1 + self.arrays[0].ndim

    @property
    def size(self) -> int:
        return sum(a.size for a in self.arrays)

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.arrays)


def gather(arrays: Iterable[np.ndarray]) -> np.ndarray | Mixed:
    """A stack where all arrays have one shape, else, and where some lie in a file that is mapped, a Mixed.

    >>> gather([np.zeros((2, 3)), np.zeros((4, 1))]).shape
    (2, 4, 3)
    """
    arrays = list(arrays)
    alike = len({a.shape for a in arrays}) == 1 and not any(map(is_mapped, arrays))
    return np.stack(arrays) if alike else Mixed(arrays)
