"""What this machine can do at best, measured: products of large float32 matrices, and copying."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from bench import peers

SIDE = 2048  # of the matrices: 50 MB in all
COPY_BYTES = 256 << 20  # much more than any cache
TRIES = 6


class Roof(NamedTuple):
    """gflops: the best sgemm's GFLOP/s. gbytes: GB/s read and written by a copy."""

    gflops: float
    gbytes: float

    def seconds(self, gflop: float, gbytes: float) -> float:
        """The least time for so many products of the plain sum and so many bytes touched, each once."""
        return max(gflop / self.gflops, gbytes / self.gbytes)


def measure(threads: int, side: int = SIDE, copy_bytes: int = COPY_BYTES) -> Roof:
    """The best of TRIES each; sgemm by NumPy's BLAS and by PyTorch's where that is installed."""
    a, b = np.random.default_rng(0).standard_normal((2, side, side), dtype=np.float32)
    products: list[Callable[[], object]] = [lambda: a @ b]
    if peers.missing("PyTorch") is None:
        import torch

        ta, tb = torch.from_numpy(a), torch.from_numpy(b)
        products.append(lambda: ta @ tb)
    gflops = 2e-9 * side**3 / min(_fastest(p) for p in products)

    source = np.ones(copy_bytes // 4, np.float32)
    target = np.empty_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads)))
    with ThreadPoolExecutor(threads) as pool:  # NumPy copies without holding the interpreter
        gbytes = 2e-9 * copy_bytes / _fastest(lambda: list(pool.map(lambda pair: np.copyto(*pair), parts)))
    return Roof(round(gflops, 1), round(gbytes, 1))


def _fastest(call: Callable[[], object]) -> float:
    times = []
    for _ in range(TRIES):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
