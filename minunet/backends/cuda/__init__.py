"""The CUDA C++ kernels on an NVIDIA GPU, by CuPy: its arrays, its memory pool, its current stream.

The files under kernels/cuda are compiled by NVRTC for the device's architecture (nvrtc.py), kept on disk, and launched
with arguments that launch.py has checked against their text. A row is launched by the function of its
name in the module of its stem. Importable without
CuPy; `available()` is then false, and `reason()` says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from minunet.backends.cuda import nvrtc
from minunet.backends.cuda.sources import Parameter, Program
from minunet.backends.stems import bind
from minunet.errors import DeviceMemoryError, UserError

name = "cuda"
HEADERS = "install CUDA's headers: pip install nvidia-cuda-runtime nvidia-cuda-crt, or nvidia-cuda-runtime-cu12"
OLDEST = 75  # Turing: what NVRTC 13 still compiles for
OUT_OF_MEMORY = 2  # CUDA's error code, of the runtime and of the driver
NULL = np.uint64(0)  # a missing array; CuPy would pass None as an argument that does not exist


class _NoArray:
    """Stands for cupy.ndarray where there is no CuPy: nothing is one."""


def _import_cupy() -> tuple[Any, str]:
    try:
        return import_module("cupy"), ""
    except ImportError as error:
        return None, f"CuPy is missing ({error}); pip install 'minunet[cuda13]', or cuda12 for a driver before 580"


@lru_cache(maxsize=1)
def cupy() -> tuple[Any, str]:
    """CuPy, or (None, why not). Not imported before it is needed: it takes a second."""
    return _import_cupy()


@lru_cache(maxsize=1)
def reason() -> str:
    """Why the backend cannot run here; empty where it can."""
    module, why = cupy()
    if module is None:
        return why
    try:
        count = module.cuda.runtime.getDeviceCount()
    except module.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy finds no usable driver ({error}); install or update the NVIDIA driver"
    if count == 0:
        return "there is no NVIDIA GPU"
    if capability() < OLDEST:
        return f"the GPU is sm_{capability()}, and the kernels need sm_{OLDEST} or newer"
    if not nvrtc.available():
        return f"{nvrtc.library()[1]}; {nvrtc.REMEDY}"
    if capability() not in nvrtc.architectures():
        return (
            f"the GPU is sm_{capability()}, and NVRTC {'.'.join(map(str, nvrtc.version()))} compiles for"
            f" sm_{nvrtc.architectures()[0]} to sm_{nvrtc.architectures()[-1]}; update nvidia-cuda-nvrtc"
        )
    newest = module.cuda.runtime.driverGetVersion() // 1000
    if newest < nvrtc.version()[0]:
        return (
            f"the driver supports CUDA {newest}, and NVRTC {'.'.join(map(str, nvrtc.version()))} is newer;"
            f" update the driver, or install NVRTC {newest}"
        )
    return ""


@lru_cache(maxsize=1)
def headers() -> str:
    """Why CuPy cannot compile its own small kernels (fill, sums of arrays); empty where it can.

    It compiles them as they are first used, with headers of CUDA that its package does not bring.
    """
    module = cupy()[0]
    try:
        with full():
            module.empty((1,), np.float32).fill(0.5)
    except UserError:
        raise
    except Exception as error:  # CuPy's CompileException, NVRTC's error, a header that is not found: no common class
        said = " ".join(str(error).split())
        return f"CuPy cannot compile a kernel of its own ({said[:160]}); {HEADERS}"
    return ""


def available() -> bool:
    """Whether there is a GPU, and CuPy and NVRTC to use it."""
    return reason() == ""


def capability() -> int:
    """10 major + minor of the current device's compute capability."""
    return _capability(cupy()[0].cuda.runtime.getDevice())


@cache
def _capability(number: int) -> int:
    return int(cupy()[0].cuda.Device(number).compute_capability)


def architecture() -> str:
    """What to compile for: "sm_90a" on Hopper, whose own instructions need the a; "sm_86" and so on elsewhere."""
    return f"sm_{capability()}{'a' if capability() == 90 else ''}"


def __getattr__(attribute: str) -> Any:
    if attribute == "Array":
        module, _ = cupy()
        return _NoArray if module is None else module.ndarray
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")


def _cupy() -> Any:
    why = reason() or headers()
    if why:
        raise UserError(f"backend 'cuda': {why}")
    return cupy()[0]


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """An uninitialised array of the device, from CuPy's memory pool."""
    return device.empty(shape, dtype)


def asarray(a: Any) -> Any:
    """A NumPy array, or one of the device, as a C-contiguous array of the device, of the same shape."""
    module = _cupy()
    with full():
        return module.asarray(a, order="C")  # ascontiguousarray would make an array of one number a vector


def numpy(a: Any) -> np.ndarray:
    """An array of the device as a NumPy array; waits for the kernels that write it."""
    return _cupy().asnumpy(a)


def overlap(a: Any, b: Any) -> bool:
    """Whether two contiguous arrays share memory."""
    return a.data.ptr < b.data.ptr + b.nbytes and b.data.ptr < a.data.ptr + a.nbytes


def capacity() -> int:
    """Bytes that arrays may take on the device: what is free, and what CuPy's pool holds."""
    module = _cupy()
    return module.cuda.runtime.memGetInfo()[0] + module.get_default_memory_pool().total_bytes()


def occupied() -> int:
    """Bytes that arrays take on the device now."""
    return _cupy().get_default_memory_pool().used_bytes()


@contextmanager
def full() -> Iterator[None]:
    """CuPy's and CUDA's errors for a memory that is full as one for the user."""
    cuda = cupy()[0].cuda
    try:
        yield
    except cuda.memory.OutOfMemoryError as error:
        raise DeviceMemoryError(f"the GPU's memory is full ({error})") from error
    except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError) as error:
        if error.status != OUT_OF_MEMORY:
            raise
        raise DeviceMemoryError(f"the GPU's memory is full ({error})") from error


@cache
def _function(program: Program, kernel: str, shared: int, architecture: str, number: int) -> Any:
    """A loaded kernel, allowed `shared` bytes of dynamic shared memory where that is more than it has by itself.

    number : of the current device; CuPy loads a kernel once for each, and what is allowed holds for one of them
    """
    module, file = _cupy(), nvrtc.cubin(program, architecture)
    try:
        with full():
            function = module.RawModule(path=str(file)).get_function(kernel)
            if shared > 48 * 1024:
                function.max_dynamic_shared_size_bytes = shared
    except module.cuda.driver.CUDADriverError as error:
        raise UserError(
            f"{program.file}: {kernel}, compiled for {architecture}, cannot be loaded ({error}); update the driver, or"
            f" remove {file}, which is then made again"
        ) from error
    return function


class _Gpu:
    """The device that `launch.py` launches on: the current one of CuPy, its current stream."""

    name = name

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        module = _cupy()
        with full():
            return module.empty(shape, dtype)

    def address(self, array: Any) -> int:
        return array.data.ptr

    def architecture(self) -> int:
        return capability()

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
        ready = tuple(NULL if argument is None else argument for argument in arguments)
        number = cupy()[0].cuda.runtime.getDevice()
        _function(program, kernel, shared, architecture(), number)(grid, block, ready, shared_mem=shared)


device = _Gpu()
kernels = bind("minunet.backends.cuda", device)
