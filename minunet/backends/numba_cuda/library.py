"""Numba's CUDA target and the kernels: at hand or not, and why not. Nothing is imported before it is asked for."""

from __future__ import annotations

import os
import re
import sys
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from minunet.backends.numba_cuda import simulator
from minunet.errors import UserError

SIMULATE = "MINUNET_SIMULATE"  # =1 asks for Numba's simulator; NUMBA_ENABLE_CUDASIM=1 alone does not
OLDEST = (0, 30)  # numba-cuda that the tests run with, as pyproject.toml asks for
REMEDY = "install the extra for your driver: pip install 'minunet[cuda13]', or cuda12 for a driver before 580"
STEMS = (
    "augment",
    "border",
    "channel_sum",
    "conv_1_naive",
    "conv_2_shared_tile",
    "conv_3_register_gemm",
    "depthwise",
    "join",
    "loss",
    "loss_sums",
    "matmul",
    "norm",
    "norm_local",
    "optim",
    "pointwise",
    "pool",
    "relight",
    "resample",
    "scatter",
)


def simulated() -> bool:
    """Whether Numba's simulator was asked for, by MINUNET_SIMULATE=1. Nothing else turns it on."""
    return os.environ.get(SIMULATE) == "1"


@lru_cache(maxsize=1)
def numba_cuda() -> tuple[Any, str]:
    """`numba.cuda`, or (None, why not)."""
    try:
        found = version("numba-cuda")
    except PackageNotFoundError:
        return None, f"the package numba-cuda is missing; {REMEDY}"
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < OLDEST:
        return None, f"numba-cuda {found} is too old, it must be {'.'.join(map(str, OLDEST))} or newer; {REMEDY}"
    try:
        if simulated():  # read when numba.cuda is imported, from one or the other
            os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
            import_module("numba.core.config").ENABLE_CUDASIM = 1
        cuda = import_module("numba.cuda")
        settings = import_module("numba.cuda.core.config")
    except ImportError as error:
        return None, f"numba-cuda {found} does not fit to numba {version('numba')} ({error}); {REMEDY}"
    settings.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # small arrays make small grids
    emulates = "simulator" in cuda.jit.__module__
    if emulates and not simulated():
        return None, f"NUMBA_ENABLE_CUDASIM is set: unset it to use the GPU, or set {SIMULATE}=1 to simulate on purpose"
    if simulated() and not emulates:
        return None, f"{SIMULATE}=1 came after Numba's CUDA target was imported; set it before Python starts"
    if emulates:
        simulator.correct()
    return cuda, ""


def compiler(cuda: Any) -> tuple[tuple[int, int] | None, str]:
    """The version of CUDA that Numba compiles kernels with (NVVM, NVRTC), or (None, why it cannot)."""
    nvvm = import_module("numba.cuda.cudadrv.nvvm")
    try:
        nvvm.NVVM()
        toolkit = cuda.runtime.get_version()
    except (ImportError, OSError, RuntimeError, nvvm.NvvmSupportError) as error:
        return None, f"Numba's compilers NVVM and NVRTC cannot be loaded ({' '.join(str(error).split())}); {REMEDY}"
    if not cuda.is_supported_version():
        return None, "Numba does not support CUDA {}.{}; {}".format(*toolkit, REMEDY)
    return toolkit, ""


def require() -> Any:
    """`numba.cuda`. Raises UserError where it cannot be used."""
    cuda, why = numba_cuda()
    if cuda is None:
        raise UserError(f"backend 'numba_cuda': {why}")
    return cuda


@lru_cache(maxsize=1)
def _package() -> None:
    """Make `minunet.kernels` importable where minunet runs from a checkout: the folder lies beside the package."""
    if find_spec("minunet.kernels") is not None:
        return
    folder = Path(__file__).resolve().parents[3] / "kernels"
    if not (folder / "numba_cuda" / "sizes.py").is_file():
        raise UserError(f"{folder / 'numba_cuda'}: the Numba kernels are missing; install minunet again")
    spec = spec_from_file_location("minunet.kernels", folder / "__init__.py", submodule_search_locations=[str(folder)])
    module = module_from_spec(spec)
    sys.modules["minunet.kernels"] = module
    spec.loader.exec_module(module)


@lru_cache
def load(stem: str) -> ModuleType:
    """The module kernels/numba_cuda/<stem>.py. Raises UserError where Numba's CUDA target cannot be used."""
    require()
    _package()
    return import_module(f"minunet.kernels.numba_cuda.{stem}")


def sizes() -> ModuleType:
    """kernels/numba_cuda/sizes.py."""
    return load("sizes")
