"""Arguments on their way to a kernel, which nobody checks after us; and what CuPy is given, by a stand-in for it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minunet import backends
from minunet.backends import cuda
from minunet.backends.cuda import columns, launch, maps, nvrtc, sources
from minunet.contract import ROWS
from minunet.errors import DeviceMemoryError, UserError

F32 = np.dtype(np.float32)
PARAMETERS = sources.kernels("pointwise.cu", "float")["dropout"]


class Recorder:
    """A device that launches nothing and remembers what it was asked for."""

    name = "recorder"

    def __init__(self) -> None:
        self.launches: list[tuple] = []

    def empty(self, shape, dtype):
        return np.empty(shape, dtype)

    def address(self, array) -> int:
        return array.__array_interface__["data"][0]

    def run(self, program, kernel, grid, block, shared, parameters, arguments) -> None:
        self.launches.append((program, kernel, grid, block, shared, arguments))


def test_numbers_become_the_kernels_own_types():
    y, x = np.empty(4, F32), np.ones(4, F32)
    packed = launch.pack("dropout", PARAMETERS, (y, x, 4, 1, 2**64 - 1, 7, 0.5))
    assert packed[0] is y
    assert packed[1] is x
    assert [type(v) for v in packed[2:]] == [np.int32, np.int32, np.uint64, np.int32, np.float32]


BAD = {
    "too few": ((1, 2), "dropout takes 7 arguments .*; got 2"),
    "an int that is none": ((None, None, 4.0, 1, 0, 7, 0.5), "n = 4.0 is no int32"),
    "an int too large": ((None, None, 2**31, 1, 0, 7, 0.5), "n = 2147483648 is no int32"),
    "a negative seed": ((None, None, 4, 1, -1, 7, 0.5), "seed = -1 is no uint64"),
    "no number": ((None, None, 4, 1, 0, 7, "half"), "keep = 'half' is no number"),
    "another dtype": ((np.empty(4), None, 4, 1, 0, 7, 0.5), "y must be an array of float32; it is float64"),
    "no array": ((3, None, 4, 1, 0, 7, 0.5), "y must be an array of float32; it is 3"),
}


@pytest.mark.parametrize("label", BAD)
def test_arguments_that_do_not_fit_are_named(label):
    arguments, message = BAD[label]
    with pytest.raises(TypeError, match=message):
        launch.pack("dropout", PARAMETERS, arguments)


def test_a_view_is_refused():
    with pytest.raises(ValueError, match="y is not C-contiguous"):
        launch.pack("dropout", PARAMETERS, (np.empty((4, 4), F32).T, None, 4, 1, 0, 7, 0.5))


def test_more_elements_than_an_int_counts():
    huge = SimpleNamespace(dtype=F32, flags=SimpleNamespace(c_contiguous=True), size=2**31)
    with pytest.raises(UserError, match="use a smaller batch or tile"):
        launch.pack("dropout", PARAMETERS, (huge, None, 4, 1, 0, 7, 0.5))


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [
        (1, 33, 0, "whole warps"),
        (1, 2048, 0, "at most 1024"),
        (1, (1, 1, 96), 0, "whole warps"),
        ((1, 70000), 32, 0, "beyond any device"),
        (1, 32, 300_000, "beyond any device"),
    ],
)
def test_geometry_is_checked(grid, block, shared, message):
    x = np.ones(4, F32)
    with pytest.raises(ValueError, match=message):
        launch.launch(Recorder(), "pointwise.cu", "relu", F32, grid, block, x, x, 4, 1, shared=shared)


def test_an_unknown_kernel_is_named():
    with pytest.raises(ValueError, match=r"optim\.cu has no kernel 'lamb'; it has sgd, adam"):
        launch.launch(Recorder(), "optim.cu", "lamb", F32, 1, 32)


def test_an_empty_grid_launches_nothing():
    device, x = Recorder(), np.ones(0, F32)
    launch.launch(device, "pointwise.cu", "relu", F32, 0, 32, x, x, 0, 0)
    assert device.launches == []


def test_macros_are_part_of_the_program():
    device, x = Recorder(), np.ones(4, F32)
    launch.launch(device, "pointwise.cu", "relu", F32, (1, 2), (32, 2), x, x, 4, 1, TILE=8, ROWS=2)
    program, kernel, grid, block, _, _ = device.launches[0]
    assert program.macros == ("-DREAL=float", "-DROWS=2", "-DTILE=8")
    assert (kernel, grid, block) == ("relu", (1, 2, 1), (32, 2, 1))


def test_unaligned_arrays_go_element_by_element():
    memory = np.zeros(64, F32)
    start = -memory.ctypes.data % 16 // 4
    device, on, off = Recorder(), memory[start : start + 17], memory[start + 1 : start + 18]
    assert launch.vectors(device, 17, on) == 4
    assert launch.vectors(device, 17, on, off) == 0
    narrow, wide = memory[start + 1 : start + 17].reshape(1, 2, 2, 4), memory[start : start + 16].reshape(1, 2, 2, 4)
    assert columns.columns(device, wide).wide
    assert not columns.columns(device, narrow).wide
    assert maps.maps(device, wide).wide
    assert not maps.maps(device, wide, narrow).wide
    assert not maps.maps(device, wide, parts=(6,)).wide


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 7, 5, 3), (1, 570, 570, 64), (8, 30, 30, 1024), (1, 1, 1, 5000)])
def test_geometry_covers_the_array(shape):
    array = np.broadcast_to(np.float32(0), shape)  # no memory
    g = columns.columns(Recorder(), array)
    x, y = g.block
    each = 4 if g.wide else 1
    assert x * y == launch.THREADS
    assert y & (y - 1) == 0
    assert g.grid[0] * x * each >= g.channels > (g.grid[0] - 1) * x * each
    assert 1 <= g.grid[1] <= columns.BLOCKS
    m = maps.maps(Recorder(), array)
    assert m.grid[0] * m.block[1] >= shape[2] > (m.grid[0] - 1) * m.block[1]


def test_every_row_has_a_launcher():
    assert sorted(cuda.kernels) == sorted(ROWS)


# --- The backend `cuda` without a GPU, and with a stand-in for CuPy


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


class RefusedError(Exception):
    """Stands for CuPy's CUDARuntimeError and OutOfMemoryError."""


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
            memory=SimpleNamespace(OutOfMemoryError=RefusedError),
        ),
    )
    Module.launches.clear()
    caches = (cuda.reason, cuda._capability, cuda._function)
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
        raise RefusedError("Out of memory allocating 512 bytes")

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
    stand_in.get_default_memory_pool = lambda: SimpleNamespace(total_bytes=lambda: 234)
    assert cuda.capacity() == 1234


@needs_nvrtc
def test_more_than_48_kib_of_shared_memory_are_asked_for(stand_in):
    x = cuda.asarray(np.ones(4, np.float32))
    for size in (1024, 100_000):
        launch.launch(cuda.device, "pointwise.cu", "relu", F32, 1, 32, x, x, 4, 1, shared=size)
    assert [entry[5:] for entry in Module.launches] == [(1024, 0), (100_000, 100_000)]


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


def test_a_driver_that_fails_says_so(stand_in):
    def fails():
        raise RefusedError("cudaErrorInsufficientDriver")

    stand_in.cuda.runtime.getDeviceCount = fails
    assert "cudaErrorInsufficientDriver" in cuda.reason()
    assert "driver" in cuda.reason()


@needs_nvrtc
def test_a_full_gpu_names_the_remedy(stand_in):
    def full(shape, dtype):
        raise RefusedError("Out of memory allocating 4 bytes")

    stand_in.empty = full
    with pytest.raises(UserError, match=r"GPU's memory is full .*; use a smaller batch or tile"):
        cuda.empty((1,), F32)


def test_hopper_is_compiled_for_its_own_instructions(stand_in):
    assert cuda.architecture() == "sm_86"
    cuda._capability.cache_clear()
    stand_in.cuda.Device = lambda number: SimpleNamespace(compute_capability="90")
    assert cuda.architecture() == "sm_90a"
