"""The CUDA C++ kernels, run on this machine's processor: the same files, the same launchers, NumPy arrays.

It exists to test the kernels where there is no GPU, and to read and step through them; it is not fast. Blocks run one
after the other, the threads of a block as fibers (kernels/host/cuda_host.h), in ascending order of their index or, in
`with order("descending")`, in descending order. What a GPU would leave undefined is an error here: `KernelError`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import numpy as np

from minunet.backends.cuda import sources
from minunet.backends.cuda.sources import Parameter, Program
from minunet.backends.cuda_host import compiler
from minunet.backends.stems import bind

name = "cuda_host"
Array = np.ndarray
ORDERS = ("ascending", "descending")
INTEGER, FLOATING, ARRAY = range(3)  # `Kind` in kernels/host/run.h
_order: ContextVar[str] = ContextVar("minunet_thread_order", default="ascending")
_races: ContextVar[bool] = ContextVar("minunet_races", default=False)


class KernelError(RuntimeError):
    """A kernel did what a GPU leaves undefined: left its arrays, or waited where others did not."""


class _Argument(ctypes.Structure):  # `Argument` in kernels/host/run.h
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("array", ctypes.c_void_p),
        ("integer", ctypes.c_longlong),
        ("floating", ctypes.c_double),
        ("kind", ctypes.c_int),
        ("bytes", ctypes.c_int),
    ]


@contextmanager
def order(name: str) -> Iterator[None]:
    """Run blocks, and threads between two barriers, in "ascending" or "descending" order of their index."""
    if name not in ORDERS:
        raise ValueError(f"thread order {name!r} is unknown; it is one of {', '.join(ORDERS)}")
    token = _order.set(name)
    try:
        yield
    finally:
        _order.reset(token)


@contextmanager
def races() -> Iterator[None]:
    """Report two threads that touch the same memory, one of them writing, with no barrier between, even where this
    order of threads gives the right numbers. Slower, and each kernel file is compiled once more."""
    token = _races.set(True)
    try:
        yield
    finally:
        _races.reset(token)


def available() -> bool:
    """Whether a C++17 compiler is at hand."""
    return compiler.find()[0] is not None


def reason() -> str:
    """Why it is not available."""
    return compiler.find()[1]


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised C-contiguous array."""
    return np.empty(shape, dtype)


def asarray(a: Any) -> np.ndarray:
    """`a` as a C-contiguous NumPy array of its own dtype."""
    return np.ascontiguousarray(a)


def numpy(a: np.ndarray) -> np.ndarray:
    """The array itself."""
    return a


@cache
def _library(program: Program, races: bool) -> tuple[Any, tuple[str, ...]]:
    """The launch function of a compiled program, and the names of its kernels in the order of its table."""
    function = ctypes.CDLL(str(compiler.library(program, races))).minunet_launch
    function.restype = ctypes.c_char_p
    return function, tuple(sources.kernels(program.file, program.real))


class _Host:
    """The device that `minunet.backends.cuda.launch` launches on."""

    name = name

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A workspace: uninitialised on the GPU, so full of NaN (integers: of the lowest value) here."""
        array = np.empty(shape, dtype)
        array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).min)
        return array

    def address(self, array: np.ndarray) -> int:
        return array.__array_interface__["data"][0]

    def architecture(self) -> int:
        """Whatever a kernel asks for is emulated, up to what Hopper has."""
        return 90

    def run(
        self,
        program: Program,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared: int,
        parameters: tuple[Parameter, ...],
        arguments: list[Any],
    ) -> None:
        function, names = _library(program, _races.get())
        packed = (_Argument * len(arguments))(*map(self._argument, parameters, arguments))
        geometry = (ctypes.c_uint * 6)(*grid, *block)
        descending = int(_order.get() == "descending")
        fault = function(names.index(kernel), geometry, shared, packed, len(packed), descending)
        if fault:
            raise KernelError(f"{program.file}: {fault.decode()}")

    def _argument(self, parameter: Parameter, value: Any) -> _Argument:
        label, size = parameter.name.encode(), parameter.dtype.itemsize
        if parameter.array:
            where, length = (None, 0) if value is None else (self.address(value), value.size)
            return _Argument(label, where, length, 0.0, ARRAY, size)
        if parameter.dtype.kind == "f":
            return _Argument(label, None, 0, float(value), FLOATING, size)
        return _Argument(label, None, ctypes.c_longlong(int(value)).value, 0.0, INTEGER, size)


device = _Host()
kernels = bind("minunet.backends.cuda", device)
