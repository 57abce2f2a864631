"""From a row's arrays to a launched kernel: what every launcher uses, on either device.

A device (CuPy's GPU, or the host that emulates one) offers `empty(shape, dtype)`, `address(array)` and
`run(program, kernel, grid, block, shared, parameters, arguments)`. CuPy checks nothing of a raw kernel's arguments,
passes a Python int as 64 bits and a float as a double; so arguments are checked and converted here, against the
parameter list in the kernel's own text.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, Protocol

import numpy as np

from minunet.backends.cuda import sources
from minunet.backends.cuda.sources import REAL, Parameter, Program
from minunet.errors import UserError

THREADS = 256  # of a block, where nothing else is said
FULL_GRID = 2048  # blocks that fill any device of today several times over; flat loops step through the rest
MOST_ELEMENTS = 2**31 - 2**26  # what an int counts, less the last step of a grid-wide loop
MOST_SHARED = 227 * 1024  # bytes of shared memory that a block can have (sm_90; older devices: less, and say so)
ACTIVATION = {None: 0, "relu": 1}  # codes of `activate` in kernels/cuda/common.cuh


class Device(Protocol):
    """Where kernels run."""

    name: str

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any: ...

    def address(self, array: Any) -> int: ...

    def architecture(self) -> int: ...

    def run(
        self,
        program: Program,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared: int,
        parameters: tuple[Parameter, ...],
        arguments: list[Any],
    ) -> None: ...


@lru_cache(maxsize=4096)
def _program(file: str, real: str, defines: tuple[tuple[str, int | str], ...]) -> Program:
    return Program(file, real, defines)


def launch(
    device: Device,
    file: str,
    kernel: str,
    dtype: np.dtype,
    grid: int | tuple[int, ...],
    block: int | tuple[int, ...],
    *args: Any,
    shared: int = 0,
    **defines: int | str,
) -> None:
    """Run `kernel` of kernels/cuda/`file`, compiled with REAL = dtype and these macros.

    grid, block : blocks, threads of a block: a number, or up to three (x, y, z)
    args        : the kernel's arguments in its order: arrays, None for a missing one, numbers
    shared      : bytes of dynamic shared memory
    Nothing is launched where the grid is empty. Raises TypeError / ValueError where arguments do not fit the kernel.
    """
    program = _program(file, REAL[dtype], tuple(sorted(defines.items())))
    parameters = sources.kernels(file, program.real).get(kernel)
    if parameters is None:
        raise ValueError(f"{file} has no kernel {kernel!r}; it has {', '.join(sources.kernels(file, program.real))}")
    grid, block = _three(grid), _three(block)
    if not all(grid):
        return
    threads = prod(block)
    if threads % 32 or not 0 < threads <= 1024 or block[2] > 64:
        raise ValueError(f"{kernel}: a block of {block} threads; it must be whole warps of 32, at most 1024 threads")
    if grid[0] >= 2**31 or max(grid[1:]) > 65535 or not 0 <= shared <= MOST_SHARED:
        raise ValueError(f"{kernel}: a grid of {grid} blocks with {shared} bytes of shared memory is beyond any device")
    device.run(program, kernel, grid, block, shared, parameters, pack(kernel, parameters, args))


def _three(size: int | tuple[int, ...]) -> tuple[int, int, int]:
    return (size, 1, 1) if isinstance(size, int) else (*size, 1, 1)[:3]


def pack(kernel: str, parameters: tuple[Parameter, ...], args: tuple[Any, ...]) -> list[Any]:
    """The arguments as the kernel wants them: arrays as they are, None, numbers as NumPy scalars of its own types."""
    if len(args) != len(parameters):
        names = ", ".join(p.name for p in parameters)
        raise TypeError(f"{kernel} takes {len(parameters)} arguments ({names}); got {len(args)}")
    packed = []
    for parameter, value in zip(parameters, args):
        if parameter.array:
            if value is not None:
                _check_array(kernel, parameter, value)
            packed.append(value)
        elif parameter.dtype.kind in "iu":
            limits = np.iinfo(parameter.dtype)
            if not isinstance(value, (int, np.integer)) or not limits.min <= value <= limits.max:
                raise TypeError(f"{kernel}: {parameter.name} = {value!r} is no {parameter.dtype}")
            packed.append(parameter.dtype.type(value))
        else:
            if not isinstance(value, (int, float, np.floating)):
                raise TypeError(f"{kernel}: {parameter.name} = {value!r} is no number")
            packed.append(parameter.dtype.type(value))
    return packed


def _check_array(kernel: str, parameter: Parameter, value: Any) -> None:
    dtype = getattr(value, "dtype", None)
    if dtype != parameter.dtype:
        what = repr(value) if dtype is None else str(dtype)
        raise TypeError(f"{kernel}: {parameter.name} must be an array of {parameter.dtype}; it is {what}")
    if not value.flags.c_contiguous:
        raise ValueError(f"{kernel}: {parameter.name} is not C-contiguous; a kernel reads memory as it lies")
    if value.size > MOST_ELEMENTS:
        raise UserError(
            f"{kernel}: {parameter.name} has {value.size} elements, and kernels count to {MOST_ELEMENTS};"
            " use a smaller batch or tile"
        )


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def flat_grid(n: int, per_thread: int = 1) -> int:
    """Blocks for a flat loop over n elements, `per_thread` of which a thread takes in one step."""
    return min(FULL_GRID, ceil_div(n, THREADS * per_thread))


def aligned(device: Device, *arrays: Any) -> bool:
    """Whether 16-byte loads and stores may be used on all these arrays."""
    return all(device.address(array) % 16 == 0 for array in arrays)


def vectors(device: Device, n: int, *arrays: Any) -> int:
    """How many groups of 16 bytes n elements make; 0 where an array does not start at a multiple of 16 bytes."""
    return n * arrays[0].itemsize // 16 if aligned(device, *arrays) else 0
