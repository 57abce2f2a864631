"""The backend `cuda` without a GPU, and with a stand-in for CuPy: what CuPy is given, and what users are told."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minunet import backends
from minunet.backends import cuda
from minunet.backends.cuda import launch, nvrtc
from minunet.errors import DeviceMemoryError, UserError

F32 = np.dtype(np.float32)


def test_without_cupy_it_says_so(monkeypatch):
    monkeypatch.setattr(cuda, "cupy", lambda: (None, "CuPy is missing"))
    cuda.reason.cache_clear()
    try:
        assert not cuda.available()
        assert "CuPy is missing" in cuda.reason()
        assert not isinstance(np.empty(1), cuda.Array)
        with pytest.raises(UserError, match="backend 'cuda': CuPy is missing"):
            cuda.asarray(np.empty(1))
    finally:
        cuda.reason.cache_clear()


class RefusedError(RuntimeError):
    """Stands for CuPy's CUDARuntimeError and CUDADriverError."""

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


class FullError(MemoryError):
    """Stands for CuPy's OutOfMemoryError."""


class Module:
    """Stands for cupy.RawModule: remembers what is loaded and launched."""

    launches: list[tuple] = []  # noqa: RUF012 - one list for the test that looks at it

    def __init__(self, *, path: str):
        self.path = path

    def get_function(self, name: str):
        path, launches = self.path, self.launches

        class Function:
            max_dynamic_shared_size_bytes = 0

            def __call__(self, grid, block, arguments, *, shared_mem):
                launches.append((path, name, grid, block, arguments, shared_mem, self.max_dynamic_shared_size_bytes))

        return Function()


@pytest.fixture
def stand_in(monkeypatch):
    """CuPy with one device of compute capability 8.6, whose arrays are NumPy's with an address."""

    class Array(np.ndarray):
        data = property(lambda self: SimpleNamespace(ptr=self.__array_interface__["data"][0]))

    runtime = SimpleNamespace(
        getDeviceCount=lambda: 1, driverGetVersion=lambda: 13000, CUDARuntimeError=RefusedError, getDevice=lambda: 0
    )
    module = SimpleNamespace(
        ndarray=Array,
        RawModule=Module,
        empty=lambda shape, dtype: np.empty(shape, dtype).view(Array),
        asarray=lambda a, order=None: np.asarray(a, order=order).view(Array),
        asnumpy=np.asarray,
        cuda=SimpleNamespace(
            runtime=runtime,
            Device=lambda number: SimpleNamespace(compute_capability="86"),
            memory=SimpleNamespace(OutOfMemoryError=FullError),
            driver=SimpleNamespace(CUDADriverError=RefusedError),
        ),
    )
    Module.launches.clear()
    caches = (cuda.reason, cuda.headers, cuda._capability, cuda._function)
    for function in caches:
        function.cache_clear()
    monkeypatch.setattr(cuda, "cupy", lambda: (module, ""))
    yield module
    for function in caches:
        function.cache_clear()


needs_nvrtc = pytest.mark.skipif(not nvrtc.available(), reason=f"NVRTC: {nvrtc.library()[1]}")


@needs_nvrtc
def test_what_cupy_is_given(stand_in):
    """A cubin for the device's architecture, int32 and float32 scalars, a null pointer for a missing array."""
    assert cuda.available()
    x, w = (cuda.asarray(np.ones(s, np.float32)) for s in ((1, 5, 6, 3), (4, 3, 3, 3)))
    with backends.use_backend("cuda"):
        y = backends.call("conv2d", x, w, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), activation=None)
    assert y.shape == (1, 3, 4, 4)
    path, _, grid, block, arguments, shared, _ = Module.launches[-1]
    assert "sm_86" in path
    assert Path(path).read_bytes()[:4] == b"\x7fELF"
    assert len(grid) == len(block) == 3
    assert all(isinstance(a, (np.integer, np.floating, np.ndarray)) for a in arguments)
    assert not any(type(a) in (int, float, np.int64, np.float64) for a in arguments)
    assert any(a is y for a in arguments)
    assert any(type(a) is np.uint64 and a == 0 for a in arguments), "the missing bias"
    assert shared >= 0


@needs_nvrtc
def test_memory_that_is_full(stand_in):
    """CuPy's error becomes one for the user, wherever memory is asked for."""

    def refuse(*arguments, **options):
        raise FullError("Out of memory allocating 512 bytes")

    stand_in.empty = stand_in.asarray = refuse
    for take in (lambda: cuda.empty((4,), np.float32), lambda: cuda.asarray(np.ones(4))):
        with pytest.raises(
            DeviceMemoryError, match=r"memory is full .*512 bytes.*; use a smaller batch or tile"
        ) as error:
            take()
        assert error.value.what.endswith("512 bytes)")


@needs_nvrtc
def test_memory_overlap_and_one_number(stand_in):
    memory = cuda.asarray(np.zeros(8, np.float32))
    assert cuda.overlap(memory[:5], memory[4:])
    assert not cuda.overlap(memory[:4], memory[4:])
    assert cuda.asarray(np.asarray(3.0)).shape == ()
    stand_in.cuda.runtime.memGetInfo = lambda: (1000, 5000)
    pool = SimpleNamespace(total_bytes=lambda: 234, used_bytes=lambda: 200)
    stand_in.get_default_memory_pool = lambda: pool
    assert (cuda.capacity(), cuda.occupied()) == (1234, 200)


@needs_nvrtc
def test_more_than_48_kib_of_shared_memory_are_asked_for(stand_in):
    x = cuda.asarray(np.ones(4, np.float32))
    for size in (1024, 100_000):
        launch.launch(cuda.device, "pointwise.cu", "relu", F32, 1, 32, x, x, 4, 1, shared=size)
    assert [entry[5:] for entry in Module.launches] == [(1024, 0), (100_000, 100_000)]


@needs_nvrtc
def test_a_second_device_is_asked_too(stand_in, monkeypatch):
    """CuPy loads a kernel again on each device, and there it has 48 KiB until more are asked for."""
    now, asked = [0], []

    class Function:
        def __call__(self, grid, block, arguments, *, shared_mem):
            assert (now[0], shared_mem) in asked, "more shared memory than this device gives"

        def __setattr__(self, name, value):
            assert name == "max_dynamic_shared_size_bytes"
            asked.append((now[0], value))

    monkeypatch.setattr(Module, "get_function", lambda self, name: Function())
    stand_in.cuda.runtime.getDevice = lambda: now[0]
    x = cuda.asarray(np.ones(4, np.float32))
    for now[0] in (0, 1, 0, 1):
        launch.launch(cuda.device, "pointwise.cu", "relu", F32, 1, 32, x, x, 4, 1, shared=100_000)
    assert asked == [(0, 100_000), (1, 100_000)]


@needs_nvrtc
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"getDeviceCount": lambda: 0}, "there is no NVIDIA GPU"),
        ({"driverGetVersion": lambda: 11080}, "the driver supports CUDA 11, and NVRTC .* is newer; update the driver"),
    ],
)
def test_an_unusable_device_says_why(stand_in, change, message):
    vars(stand_in.cuda.runtime).update(change)
    assert not cuda.available()
    assert re.search(message, cuda.reason())


@needs_nvrtc
@pytest.mark.parametrize(
    ("capability", "message"), [("61", "need sm_75 or newer"), ("999", "update nvidia-cuda-nvrtc")]
)
def test_an_unsupported_architecture_says_so(stand_in, capability, message):
    stand_in.cuda.Device = lambda number: SimpleNamespace(compute_capability=capability)
    assert message in cuda.reason()


def test_without_nvrtc_it_says_so(stand_in, monkeypatch):
    monkeypatch.setattr(nvrtc, "library", lambda: (None, "no libnvrtc was found"))
    assert not cuda.available()
    assert cuda.reason() == f"no libnvrtc was found; {nvrtc.REMEDY}"
    assert "pip install nvidia-cuda-nvrtc" in nvrtc.REMEDY
    with pytest.raises(UserError, match="backend 'cuda': no libnvrtc was found; install NVRTC"):
        cuda.empty((1,), F32)


def test_a_driver_that_fails_says_so(stand_in):
    def fails():
        raise RefusedError("cudaErrorInsufficientDriver")

    stand_in.cuda.runtime.getDeviceCount = fails
    assert "cudaErrorInsufficientDriver" in cuda.reason()
    assert "driver" in cuda.reason()


@needs_nvrtc
def test_a_full_gpu_names_the_remedy(stand_in):
    def full(shape, dtype):
        raise FullError("Out of memory allocating 4 bytes")

    stand_in.empty = full
    with pytest.raises(UserError, match=r"GPU's memory is full .*; use a smaller batch or tile"):
        cuda.empty((1,), F32)


@needs_nvrtc
def test_cudas_own_error_for_a_full_memory(stand_in):
    """What has no room for a context or a kernel's code says it by a code; other errors stay what they are."""
    for status, expected in ((cuda.OUT_OF_MEMORY, DeviceMemoryError), (700, RefusedError)):
        with pytest.raises(expected, match="cudaErrorMemoryAllocation"), cuda.full():
            raise RefusedError("cudaErrorMemoryAllocation: out of memory", status)


@needs_nvrtc
def test_missing_headers_are_named_before_anything_runs(stand_in):
    """CuPy compiles its own kernels when they are first used, and then wants headers that it does not bring."""

    class Array(np.ndarray):
        def fill(self, value):
            raise RuntimeError("Failed to find\nCUDA headers.")

    stand_in.empty = lambda shape, dtype: np.empty(shape, dtype).view(Array)
    with pytest.raises(
        UserError, match=r"Failed to find CUDA headers.*pip install nvidia-cuda-runtime nvidia-cuda-crt"
    ):
        cuda.asarray(np.ones(3))


@needs_nvrtc
def test_a_kernel_that_cannot_be_loaded(stand_in, monkeypatch):
    """A damaged file of the cache, or a driver that does not know the format."""

    def refuse(self, name):
        raise RefusedError("CUDA_ERROR_INVALID_IMAGE: device kernel image is invalid", 200)

    monkeypatch.setattr(Module, "get_function", refuse)
    x = cuda.asarray(np.ones(4, np.float32))
    with pytest.raises(
        UserError, match=r"pointwise\.cu: relu, compiled for sm_86, .*update the driver, or remove .*cubin"
    ):
        launch.launch(cuda.device, "pointwise.cu", "relu", F32, 1, 32, x, x, 4, 1)


def test_hopper_is_compiled_for_its_own_instructions(stand_in):
    assert cuda.architecture() == "sm_86"
    cuda._capability.cache_clear()
    stand_in.cuda.Device = lambda number: SimpleNamespace(compute_capability="90")
    assert cuda.architecture() == "sm_90a"
