"""The Numba kernels (kernels/numba_cuda) on an NVIDIA GPU: CuPy's arrays without a copy, CuPy's current stream.

With MINUNET_SIMULATE=1, set before Python starts, the same kernels run under Numba's simulator on NumPy arrays: for
tests and for stepping through a kernel with a debugger, a thousand threads a second. Nothing else turns the simulator
on. Importable without numba-cuda; `available()` is then false, and `reason()` says why.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from minunet.backends import cuda as raw
from minunet.backends.cuda import cupy, full
from minunet.backends.numba_cuda import gpu
from minunet.backends.numba_cuda.launch import Grid
from minunet.backends.numba_cuda.library import REMEDY, compiler, numba_cuda, simulated
from minunet.backends.stems import bind
from minunet.errors import UserError

name = "numba_cuda"
OLDEST = (7, 5)  # compute capability of Turing: what the CUDA 13 compilers still know


class _NoArray:
    """Stands for cupy.ndarray where there is no CuPy: nothing is one."""


@lru_cache(maxsize=1)
def reason() -> str:
    """Why the backend cannot run here; empty where it can."""
    if simulated():
        return numba_cuda()[1]
    module, why = cupy()
    if module is None:
        return why
    cuda, why = numba_cuda()
    if cuda is None:
        return why
    toolkit, why = compiler(cuda)
    if toolkit is None:
        return why
    if not cuda.is_available():
        return "Numba finds no NVIDIA GPU; install or update the NVIDIA driver, or set MINUNET_SIMULATE=1 to simulate"
    driver = cuda.cudadrv.driver.get_version()
    if driver[0] < toolkit[0]:
        versions = f"numba-cuda compiles for CUDA {toolkit[0]}, and the driver supports {driver[0]}.{driver[1]}"
        return f"{versions}; {REMEDY}"
    capability = cuda.get_current_device().compute_capability
    if tuple(capability[:2]) < OLDEST:
        return f"the GPU is sm_{capability[0]}{capability[1]}, and the kernels need sm_75 or newer"
    return ""


def available() -> bool:
    """Whether there is a GPU with CuPy and numba-cuda to use it, or the simulator was asked for."""
    return reason() == ""


def _check() -> None:
    if not available():
        raise UserError(f"backend 'numba_cuda': {reason()}")


def __getattr__(attribute: str) -> Any:
    if attribute == "Array":
        if simulated():
            return np.ndarray
        module, _ = cupy()
        return _NoArray if module is None else module.ndarray
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """An uninitialised array of the device."""
    return device.empty(shape, dtype)


def asarray(a: Any) -> Any:
    """A NumPy array, or one of the device, as a C-contiguous array of the device, of the same shape."""
    _check()
    if simulated():
        return np.asarray(a, order="C")
    with full():
        return cupy()[0].asarray(a, order="C")


def numpy(a: Any) -> np.ndarray:
    """An array of the device as a NumPy array; waits for the kernels that write it."""
    return a if isinstance(a, np.ndarray) else cupy()[0].asnumpy(a)


def overlap(a: Any, b: Any) -> bool:
    """Whether two contiguous arrays share memory."""
    return np.may_share_memory(a, b) if simulated() else raw.overlap(a, b)


def capacity() -> int:
    """Bytes that arrays may take on the device; the simulator's are the host's, and nobody counts them."""
    return sys.maxsize if simulated() else raw.capacity()


def occupied() -> int:
    """Bytes that arrays take there now; nobody counts the simulator's."""
    return 0 if simulated() else raw.occupied()


class _Gpu:
    """Launches on CuPy's current device and stream; workspaces come from CuPy's memory pool."""

    name = name

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        _check()
        with full():
            return cupy()[0].empty(shape, dtype)

    def run(self, kernel: Any, grid: Grid, block: Grid, arguments: tuple[Any, ...]) -> None:
        gpu.launch(cupy()[0], kernel, grid, block, arguments)


class _Simulator:
    """Runs a kernel as threads of Python, block after block."""

    name = name

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Full of NaN (integers: the lowest value), where the GPU's memory holds whatever was there."""
        _check()
        array = np.empty(shape, dtype)
        array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).min)
        return array

    def run(self, kernel: Any, grid: Grid, block: Grid, arguments: tuple[Any, ...]) -> None:
        # A NumPy array would be copied in and out, so that an update in place would be lost to the copy of its input.
        wrap = import_module("numba.cuda.simulator.cudadrv.devicearray").FakeCUDAArray
        kernel[grid, block](*(wrap(a) if isinstance(a, np.ndarray) else a for a in arguments))


device = _Simulator() if simulated() else _Gpu()
kernels = bind("minunet.backends.numba_cuda", device)
