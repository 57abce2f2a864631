"""Fixtures that every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# On a busy machine threads that spin while they wait take the cores from those they wait for. The tests' arrays are
# small, so that is all their time: measured on two cores with other work, a small convolution of the reference takes
# 280 ms instead of 1.3 ms (BLAS threads), one of the cpu backend 40 ms instead of 0.08 ms (OpenMP threads of Numba).
# Both libraries read this when they are loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["COLUMNS"] = "80"  # help texts break their lines in the same places, however wide the terminal is

from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Property tests draw the same examples in every run, remember nothing of runs before, and are not timed: what passed
# passes again, however slow the machine. `pytest --hypothesis-profile=default` draws others.
settings.register_profile(
    "the same in every run", derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("the same in every run")


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(20150518)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets: $MINUNET_DATA, or shared/data beside the repository. Skips where there is none."""
    given = os.environ.get("MINUNET_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data sets at {folder}; set MINUNET_DATA to their folder")
    return folder


@pytest.fixture(params=("reference", "cpu"))
def backend(request):
    """Runs the test on both backends: ask for it, or mark a module with `usefixtures("backend")`."""
    from minunet import backends

    if request.param not in backends.available():
        pytest.skip(f"backend {request.param!r} is not available here")
    with backends.use_backend(request.param):
        yield request.param


@pytest.fixture
def reference() -> Iterator[None]:
    """The test runs on the reference backend: ask for it, or mark a module with `usefixtures("reference")`."""
    from minunet import backends

    with backends.use_backend("reference"):
        yield


@pytest.fixture(scope="session")
def onnx() -> ModuleType:
    """The package onnx. Skips where it is not installed."""
    return pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture(scope="session")
def runtime(onnx: ModuleType) -> ModuleType:
    """The package onnxruntime. Skips where it is not installed."""
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch, in one thread. Skips where it is not installed."""
    found = pytest.importorskip("torch", reason="PyTorch is not installed")
    found.set_num_threads(1)
    return found
