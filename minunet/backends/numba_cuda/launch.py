"""From a row's arrays to a launched kernel: grids, and numbers of the types that kernels are compiled for.

A device offers `empty(shape, dtype)` and `run(kernel, grid, block, arguments)`: CuPy's GPU or the simulator
(__init__.py), or a test that only records. A Python int becomes int64 in a kernel and a float becomes float64, in
which the whole arithmetic would then be done; so numbers that meet array elements go through `real`.
"""

from __future__ import annotations

from math import prod
from typing import Any, Protocol

from minunet.backends.numba_cuda.library import load, sizes
from minunet.errors import UserError

Grid = tuple[int, int, int]
MOST_YZ = 65535  # blocks along y and z that the hardware takes; along x 2^31 - 1


class Device(Protocol):
    name: str

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any: ...

    def run(self, kernel: Any, grid: Grid, block: Grid, arguments: tuple[Any, ...]) -> None: ...


def launch(device: Device, stem: str, kernel: str, grid: Any, block: Any, *arguments: Any) -> None:
    """Run `kernel` of kernels/numba_cuda/<stem>.py. grid, block : up to three numbers.

    Raises UserError where the arrays need a grid beyond the hardware's limits.
    """
    grid = _three(grid)
    if max(grid[1:]) > MOST_YZ:
        need = f"numba_cuda kernel {kernel!r}: the arrays need a grid of {grid}, and y and z end at {MOST_YZ}"
        raise UserError(f"{need}; use a smaller batch")
    device.run(getattr(load(stem), kernel), grid, _three(block), arguments)


def _three(size: int | tuple[int, ...]) -> Grid:
    given = (size,) if isinstance(size, int) else tuple(map(int, size))
    return (*given, *[1] * (3 - len(given)))


def real(like: Any, *numbers: float) -> tuple[Any, ...]:
    """The numbers in the dtype of the array `like`."""
    return tuple(like.dtype.type(number) for number in numbers)


def optional(array: Any, like: Any) -> tuple[Any, bool]:
    """(array, True), or where it is missing (some array of its kind, False): one compiled kernel serves both."""
    return (like.reshape(-1), False) if array is None else (array, True)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def up_to_power(n: int, most: int) -> int:
    """The power of two from n on, but at most `most`."""
    return min(most, 1 << max(n - 1, 0).bit_length())


def flat(device: Device, stem: str, kernel: str, n: int, *arguments: Any) -> None:
    """A kernel whose threads take elements 0 .. n - 1 in turns."""
    s = sizes()
    launch(device, stem, kernel, max(1, min(s.MOST_BLOCKS, ceil_div(n, s.THREADS))), s.THREADS, *arguments)


def over_map(device: Device, stem: str, kernel: str, y: Any, *arguments: Any) -> None:
    """A kernel whose threads take channels (x), columns (y) and rows (z) of y (N, H, W, C) in turns."""
    s = sizes()
    n, h, w, c = y.shape
    x = up_to_power(c, s.LANES)
    rows = s.THREADS // x
    grid = (1, min(ceil_div(w, rows), s.MOST_ROWS), min(n * h, s.MOST_ROWS))
    launch(device, stem, kernel, grid, (x, rows), y, *arguments)


ROWS = 16  # pixels for each thread before another block is worth its partial sums


def columns(pixels: int, channels: int, samples: int = 1) -> tuple[Grid, Grid]:
    """Grid and block for (samples, pixels, channels): x channels, y pixels, z samples. grid[1] is the number of parts.

    A function of the sizes alone, so that sums keep their order on every device.
    """
    s = sizes()
    x = up_to_power(channels, s.LANES)
    rows, across = s.THREADS // x, ceil_div(channels, x)
    parts = max(1, min(ceil_div(pixels, rows * ROWS), s.MOST_PARTS // (across * samples)))
    return (across, parts, samples), (x, rows, 1)


def finish(device: Device, out: Any, partial: Any, factor: float = 1.0, steps: tuple[int, int] | None = None) -> None:
    """out[n steps[0] + c steps[1]] = factor sum over parts of partial (samples, parts, channels).

    steps : (channels, 1) where nothing is said
    """
    s = sizes()
    samples, _, channels = partial.shape
    x = up_to_power(channels, s.LANES)
    grid, block = (ceil_div(channels, x), 1, samples), (x, s.THREADS // x, 1)
    arguments = (out.reshape(-1), partial, *real(partial, factor), steps or (channels, 1))
    launch(device, "channel_sum", "channel_sum_finish", grid, block, *arguments)


def matrix(a: Any) -> Any:
    """An array (..., C) as (pixels, C), in place."""
    return a.reshape(prod(a.shape[:-1]), a.shape[-1])
