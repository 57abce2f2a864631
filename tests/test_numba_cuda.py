"""The Numba CUDA kernels without a GPU: simulated, compiled to PTX, and what is said where they cannot run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module, metadata
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cases import cases
from numba_signatures import Compiled, Recorder, recorded

import minunet as mu
from minunet import backends
from minunet.backends import numba_cuda
from minunet.backends.cuda import sources
from minunet.backends.numba_cuda import library
from minunet.backends.stems import bind
from minunet.errors import UserError

HERE = Path(__file__).parent
ARCHITECTURES = ((7, 5), (8, 0), (9, 0))
needs_numba_cuda = pytest.mark.skipif(
    library.numba_cuda()[0] is None, reason=library.numba_cuda()[1] or "numba-cuda is here"
)


@pytest.fixture(scope="module")
def simulations():
    """Two processes that run the kernels under the simulator, one for each dtype, while the other tests go on."""
    command = [sys.executable, "-m", "pytest", "-x", "-W", "ignore", "-p", "no:cacheprovider"]
    command.append(str(HERE / "simulated_numba_cuda.py"))
    environment = {**os.environ, "MINUNET_SIMULATE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    started = [
        subprocess.Popen([*command, "-k", only], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for only in ("float32", "not float32")
    ]
    yield started
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def compiler(simulations):
    """NVVM at hand. Asks for the simulations, so that they have begun when the compiling begins."""
    pytest.importorskip("numba.cuda.cudadrv.nvvm", reason="numba-cuda is missing")
    from numba.cuda.cudadrv import nvvm

    try:
        nvvm.NVVM()
    except (ImportError, OSError, nvvm.NvvmSupportError, RuntimeError) as error:
        pytest.skip(f"no NVVM to compile with ({error}); install the extra test")


@needs_numba_cuda
@pytest.mark.parametrize("dtype", (np.float32, np.float64), ids=("float32", "float64"))
def test_every_kernel_compiles(compiler, dtype):
    """Each launched kernel with the types it is launched with, for every architecture.

    The convolution's sums must stay in registers: an array with an index that is no constant goes to local memory,
    which is DRAM. And no kernel may take more shared memory than a block has without asking.
    """
    launched = recorded(np.dtype(dtype), cases).seen
    files = {kernel.py_func.__module__.rpartition(".")[2] for kernel, _ in launched}
    assert files == set(library.STEMS)
    for kernel, types in launched:
        compiled = Compiled(kernel, types)
        for cc in ARCHITECTURES:
            ptx = compiled.ptx(cc)
            where = f"{kernel.py_func.__module__}.{kernel.__name__} for sm_{cc[0]}{cc[1]}"
            assert f".target sm_{cc[0]}{cc[1]}" in ptx, where
            assert re.search(r"\.visible \.entry", ptx), where
            if "float64" not in str(types) and "partial" not in kernel.__name__:
                assert not re.search(r"\b(add|mul|fma)(\.rn)?\.f64", ptx), f"{where} computes in float64"
            if ".conv_" in where or ".matmul" in where:
                assert "__local_depot" not in ptx, f"{where} keeps an array in local memory"
            shared = sum(int(size) for size in re.findall(r"\.shared .*\[(\d+)\];", ptx))
            assert shared <= 48 * 1024, f"{where} takes {shared} bytes of shared memory"


@needs_numba_cuda
def test_conformance_under_the_simulator(simulations):
    for process in simulations:
        output = process.communicate()[0].decode()
        assert process.returncode == 0, output[-6000:]
        passed = int(re.search(r"(\d+) passed", output)[1])
        assert passed > 200, output[-500:]


ROOM = HERE.parent / "kernels"
# Kernels whose twin has another name. The twin's convolution makes grad_x phase by phase with its forward kernel;
# its lrn keeps s in a workspace, where Numba's keeps what each element gives to its neighbours; a plain cut is a
# deformation that has no nodes.
TWINS = {
    "augment.cut": "deform",
    "augment.cut_labels": "deform_nearest",
    "augment.deform_labels": "deform_nearest",
    "conv_2_shared_tile.conv2d_grad_x": "conv2d",
    "conv_3_register_gemm.conv2d_grad_x": "conv2d",
    "norm_local.lrn_share": "lrn_scale",
    "pointwise.tanh": "tanh_forward",
}


@needs_numba_cuda
@pytest.mark.parametrize("stem", library.STEMS)
def test_every_kernel_has_its_card_and_its_twin(stem):
    """A file's card has the seven lines in their order and names its twin, in which each kernel's own twin is."""
    text = (ROOM / "numba_cuda" / f"{stem}.py").read_text()
    card = text.split('"""')[1]
    assert tuple(re.findall(r"^(\w+)  +\S", card, re.MULTILINE)) == (*sources.CARD, "Twin")
    twin = re.search(r"^Twin +kernels/cuda/(\S+\.cu)\b", card, re.MULTILINE)
    assert twin and twin[1] in sources.files(), f"{stem}.py names no twin that is there"
    theirs = set(sources.kernels(twin[1], "float"))
    module = library.load(stem)
    own = {
        name
        for name, kernel in vars(module).items()
        if hasattr(kernel, "py_func") and not kernel.targetoptions.get("device")
    }
    assert own and {TWINS.get(f"{stem}.{name}", name) for name in own} <= theirs, (own, theirs)


def test_every_file_with_a_kernel_is_listed():
    """The others hold functions for kernels, and sizes."""
    files = {path.stem: path.read_text() for path in (ROOM / "numba_cuda").glob("*.py")}
    kernels = {stem for stem, text in files.items() if re.search(r"^ *@cuda\.jit$", text, re.MULTILINE)}
    assert kernels == set(library.STEMS)


def test_the_reading_room_shows_the_kernels_as_they_are():
    """Each line of the code in "One operation, four ways" stands in the file that is named above it, in that order."""
    room = HERE.parent / "kernels"
    section = (room / "README.md").read_text().split("## One operation, four ways")[1].split("\n## ")[0]
    shown = re.findall(r"\*\*, \[[^\]]*\]\(([^)]*)\).*?```\w*\n(.*?)```", section, re.DOTALL)
    assert len(shown) == 4
    for path, code in shown:
        rest = " ".join((room / path).read_text().split())
        for line in code.strip().splitlines():
            found = " ".join(line.split())
            assert found in rest, f"{path} has no line {found!r} here"
            rest = rest.partition(found)[2]


def fresh(monkeypatch):
    """No answer of an earlier question is kept."""
    library.numba_cuda.cache_clear()
    numba_cuda.reason.cache_clear()
    monkeypatch.setattr(numba_cuda, "cupy", lambda: (np, ""))


@pytest.fixture
def forget():
    yield
    library.numba_cuda.cache_clear()
    numba_cuda.reason.cache_clear()


def missing(name):
    raise metadata.PackageNotFoundError(name)


@pytest.mark.parametrize(
    "version, message",
    [
        (missing, "the package numba-cuda is missing; install the extra"),
        (lambda name: "0.4.1", "0.4.1 is too old"),
        (lambda name: "0.29rc1", "0.29rc1 is too old"),
    ],
)
def test_missing_or_old_numba_cuda(monkeypatch, forget, version, message):
    fresh(monkeypatch)
    monkeypatch.setattr(library, "version", version)
    assert not numba_cuda.available()
    assert message in numba_cuda.reason() and "minunet[cuda13]" in numba_cuda.reason()
    with pytest.raises(UserError, match=message) as error:
        numba_cuda.asarray(np.ones(3))
    assert "\n" not in str(error.value)


def test_numba_cuda_that_does_not_fit(monkeypatch, forget):
    def refuse(name):
        raise ImportError("cannot import name 'x' from 'numba'")

    fresh(monkeypatch)
    monkeypatch.setattr(library, "version", lambda name: "0.30.4")
    monkeypatch.setattr(library, "import_module", refuse)
    assert re.search("numba-cuda 0.30.4 does not fit to numba .* install the extra", numba_cuda.reason())


@pytest.fixture
def cuda(monkeypatch, forget):
    """`numba.cuda` with compilers of CUDA 13.0, a driver for 13.1 and an H200; tests take something away."""
    if library.numba_cuda()[0] is None:
        pytest.skip(library.numba_cuda()[1])
    cuda = library.require()
    fresh(monkeypatch)
    monkeypatch.setattr(import_module("numba.cuda.cudadrv.nvvm"), "NVVM", lambda: None)
    monkeypatch.setattr(cuda.runtime, "get_version", lambda: (13, 0))
    monkeypatch.setattr(cuda.cudadrv.driver, "get_version", lambda: (13, 1))
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "get_current_device", lambda: SimpleNamespace(compute_capability=(9, 0)))
    return cuda


def test_nothing_is_missing(cuda):
    assert numba_cuda.reason() == "" and numba_cuda.available()


def test_no_device(monkeypatch, cuda):
    monkeypatch.setattr(cuda, "is_available", lambda: False)
    assert "no NVIDIA GPU" in numba_cuda.reason() and not numba_cuda.available()
    with pytest.raises(UserError, match="no NVIDIA GPU"), mu.use_backend("numba_cuda"):
        backends.get().empty((2, 2), np.float32)
    with pytest.raises(UserError, match="no NVIDIA GPU"), mu.use_backend("numba_cuda"):
        mu.ops.relu(mu.Tensor(np.ones((2, 2))))


@pytest.mark.parametrize(
    "place, name, answer, message",
    [
        ("cudadrv.nvvm", "NVVM", RuntimeError("no libnvvm.so\nanywhere"), r"NVVM and NVRTC .* no libnvvm.so anywhere"),
        ("runtime", "get_version", OSError("no libnvrtc.so"), r"NVVM and NVRTC .* no libnvrtc.so"),
        ("runtime", "get_version", (14, 2), r"does not support CUDA 14\.2"),
        ("cudadrv.driver", "get_version", (12, 4), r"compiles for CUDA 13, and the driver supports 12\.4"),
        ("", "get_current_device", SimpleNamespace(compute_capability=(7, 0)), "sm_70, and the kernels need sm_75"),
    ],
)
def test_what_does_not_fit_is_one_line(monkeypatch, cuda, place, name, answer, message):
    def ask():
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(attrgetter(place)(cuda) if place else cuda, name, ask)
    why = numba_cuda.reason()
    assert re.search(message, why.replace("(", "")) and "\n" not in why
    assert "sm_75 or newer" in why or "minunet[cuda13]" in why
    with pytest.raises(UserError) as error:
        numba_cuda.asarray(np.ones(3))
    assert why in str(error.value)


@needs_numba_cuda
def test_a_grid_that_the_hardware_does_not_have():
    """70 000 samples of one number: the launchers would put each on the grid's z axis."""
    a = np.broadcast_to(np.float32(1), (70_000, 1, 1))
    with pytest.raises(UserError, match=r"'matmul': the arrays need a grid of \(1, 1, 70000\)"):
        bind("minunet.backends.numba_cuda", Recorder())["matmul"](a, a, a, transpose_a=False, transpose_b=False)


@pytest.mark.parametrize("dtype", (np.float16, np.int64, np.complex64))
def test_a_dtype_that_no_kernel_has(monkeypatch, cuda, dtype):
    """The gate says so before anything is launched; NumPy stands for CuPy here."""
    monkeypatch.setattr(numba_cuda, "kernels", {"relu": lambda *arrays: pytest.fail("was launched")})
    with (
        mu.use_backend("numba_cuda"),
        pytest.raises(TypeError, match=f"{np.dtype(dtype)}; it must be float32 or float64"),
    ):
        backends.call("relu", np.ones((2, 2), dtype))


def test_the_simulator_is_never_used_silently():
    """NUMBA_ENABLE_CUDASIM alone does not make the backend available; neither does asking after Numba has come."""
    ask = "from minunet.backends import numba_cuda as b; b.cupy = lambda: (1, ''); print(b.available(), b.reason())"
    environment = {k: v for k, v in os.environ.items() if k not in (library.SIMULATE, "NUMBA_ENABLE_CUDASIM")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    late = "import numba.cuda, os; os.environ['MINUNET_SIMULATE'] = '1'; " + ask
    for code, more, message in ((ask, {"NUMBA_ENABLE_CUDASIM": "1"}, "is set: unset it"), (late, {}, "came after")):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**environment, **more}, capture_output=True, text=True, check=True
        )
        if library.numba_cuda()[0] is not None:
            assert done.stdout.startswith("False") and message in done.stdout, done.stdout
