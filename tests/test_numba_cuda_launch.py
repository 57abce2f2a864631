"""A launch as numba-cuda itself makes it, up to the driver's call: whose stream, whose memory, and that nothing waits.

Without a GPU, Numba's context and the driver's launch are stand-ins; typing, marshalling and streams are its own.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from minunet.backends import numba_cuda
from minunet.backends.numba_cuda import gpu, library

pytest.importorskip("numba.cuda.cudadrv.driver", reason="numba-cuda is missing")
pytestmark = pytest.mark.skipif(library.numba_cuda()[0] is None, reason=library.numba_cuda()[1])


class Array:
    """What a launch may ask of a CuPy array; a capsule or an interface that names a stream would make Numba wait."""

    def __init__(self, pointer: int, shape: tuple[int, ...], dtype=np.float32):
        self.data, self.shape, self.dtype = SimpleNamespace(ptr=pointer), shape, np.dtype(dtype)

    def __dlpack_device__(self):
        return 2, 0  # CUDA's first device

    def __dlpack__(self, **options):
        raise AssertionError("CuPy orders streams for a capsule")

    @property
    def __cuda_array_interface__(self):
        raise AssertionError("Numba waits for the stream of an interface")


class Driver:
    """Numba's context, and in place of the driver's launch a list of what it is given."""

    def __init__(self, monkeypatch):
        from numba.cuda import dispatcher
        from numba.cuda.cudadrv import devices, driver
        from numba.cuda.cudadrv.driver import Stream

        def stream(pointer: int) -> Stream:
            return Stream(pointer, external=True)

        context = SimpleNamespace(create_external_stream=stream, get_default_stream=lambda: stream(0))
        runtime = SimpleNamespace(ensure_context=nullcontext, get_or_create_context=lambda number: context)
        monkeypatch.setattr(devices, "_runtime", runtime)
        monkeypatch.setattr(dispatcher, "launch", self.launch)
        for waiting in ("cuStreamSynchronize", "cuCtxSynchronize", "cuEventSynchronize", "cuMemcpyHtoDAsync"):
            monkeypatch.setitem(vars(driver.driver), waiting, self.refuse)
        self.launches = []

    def launch(self, stream, config, kernel, *arguments):
        values = [getattr(a, "value", a) for a in arguments]
        self.launches.append((int(stream.handle), config.grid, config.block, kernel, values))

    def refuse(self, *arguments):
        raise AssertionError("waits, or copies")


@pytest.fixture
def launched(monkeypatch):
    """A function that runs a kernel of three arguments, and the launches that the driver saw."""
    from numba import cuda
    from numba.cuda.dispatcher import _Kernel

    @cuda.jit
    def kernel(y, x, p):
        y[0] = x[0] + p

    def compiled(types):
        """The kernel as if it were compiled: Numba's own, without machine code."""
        made.append(types)
        known = _Kernel.__new__(_Kernel)
        known.signature, known.debug, known.cooperative, known.extensions = (
            SimpleNamespace(args=types),
            False,
            False,
            (),
        )
        known._codelibrary = SimpleNamespace(get_cufunc=lambda: SimpleNamespace(kernel="machine code"))
        return known

    made = []
    monkeypatch.setattr(kernel, "compile", compiled)
    seen = Driver(monkeypatch)
    current = SimpleNamespace(ptr=0)
    runtime = SimpleNamespace(getDevice=lambda: 0)
    cupy = SimpleNamespace(ndarray=Array, cuda=SimpleNamespace(get_current_stream=lambda: current, runtime=runtime))
    monkeypatch.setattr(numba_cuda, "cupy", lambda: (cupy, ""))
    gpu.view.cache_clear()
    gpu._configured.cache_clear()

    def run(stream: int, *arguments):
        current.ptr = stream
        numba_cuda._Gpu().run(kernel, (3, 2, 1), (4, 8, 1), arguments)
        return seen.launches[-1]

    run.kernel, run.types, run.seen = kernel, made, seen.launches
    yield run
    gpu.view.cache_clear()
    gpu._configured.cache_clear()


F32 = np.float32


@pytest.mark.parametrize("sync", (0, 1), ids=("sync off", "sync on"))
@pytest.mark.parametrize("stream", (0, 1, 4096), ids=("default", "legacy", "CuPy's own"))
def test_the_stream_and_the_memory_are_cupys(launched, monkeypatch, stream, sync):
    """Any waiting, copying or capsule raises here, whatever NUMBA_CUDA_ARRAY_INTERFACE_SYNC says."""
    from numba.cuda.core import config

    monkeypatch.setattr(config, "CUDA_ARRAY_INTERFACE_SYNC", sync)
    handle, grid, block, code, values = launched(stream, Array(0x7000, (2, 3, 5)), Array(0x9000, (7,)), F32(1.5))
    assert (handle, grid, block, code) == (stream, (3, 2, 1), (4, 8, 1), "machine code")
    # An array is: two numbers of no use, size, bytes of an element, address, shape, strides.
    assert values == [0, 0, 30, 4, 0x7000, 2, 3, 5, 60, 20, 4, 0, 0, 7, 4, 0x9000, 7, 4, 1.5]


@pytest.mark.parametrize("dtype", (np.float32, np.float64, np.int32))
def test_types_are_those_of_numpys_arrays(launched, dtype):
    """What the other tests compile to PTX for is what is launched."""
    from numba import typeof

    launched(0, Array(0x7000, (2, 1), dtype), Array(0x9000, (1, 1, 3), dtype), F32(1))
    like = (np.empty((2, 1), dtype), np.empty((1, 1, 3), dtype), F32(1))
    assert launched.types == [tuple(map(typeof, like))]


def test_a_second_launch_makes_nothing_anew(launched):
    arrays = Array(0x7000, (2, 3)), Array(0x9000, (3,))
    first = launched(4096, *arrays, F32(1))
    second = launched(4096, Array(0x7000, (2, 3)), Array(0x9000, (3,)), F32(1))  # the pool's addresses come again
    assert first == second and gpu.view.cache_info().misses == 2 and gpu._configured.cache_info().misses == 1
    other = launched(8192, *arrays, F32(1))
    assert other[0] == 8192 and gpu._configured.cache_info().misses == 2
    reshaped = launched(4096, Array(0x7000, (6,)), Array(0x9000, (3,), np.int32), F32(1))
    assert reshaped[4][5:7] == [6, 4] and gpu.view.cache_info().misses == 4


def test_what_would_wait_is_seen(launched):
    """The stand-ins notice an array that is handed to Numba as it is."""
    with pytest.raises(AssertionError, match="CuPy orders streams"):
        launched.kernel[1, 1](Array(0x7000, (2,)), Array(0x9000, (2,)), F32(1))
    assert not launched.seen
