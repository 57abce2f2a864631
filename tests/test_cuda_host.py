"""The CUDA C++ kernels on the emulation beyond the conformance suite: the other thread order, networks, the files.

Conformance runs every row in ascending order; here the same cases give the same bits in descending order. A
difference is a missing barrier, or a result that depends on which thread comes first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import cases
from checks import NAN, check_nan, nan_cases, run, sample

import minunet as mu
from minunet import backends
from minunet.backends import cuda_host
from minunet.backends.cuda import disk, sources
from minunet.backends.cuda.launch import launch
from minunet.backends.cuda.sources import Program
from minunet.backends.cuda_host import compiler
from minunet.contract import ROWS
from minunet.errors import UserError

needs_compiler = pytest.mark.skipif(not cuda_host.available(), reason=cuda_host.reason())
ROOT = Path(__file__).resolve().parent.parent
PLANTED = str(Path(__file__).parent / "cuda" / "planted.cu")


@needs_compiler
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("dtype", (np.float32, np.float64), ids=("float32", "float64"))
def test_descending_order_gives_the_same_bits(name, dtype):
    for case in cases(name):
        inputs = sample(case, np.dtype(dtype))
        with cuda_host.order("ascending"):
            first = run("cuda_host", ROWS[name], inputs, case.options)
        with cuda_host.order("descending"):
            second = run("cuda_host", ROWS[name], inputs, case.options)
        for a, b in zip(first, second):
            assert a.tobytes() == b.tobytes(), f"{name}, {case.label}"


@needs_compiler
@pytest.mark.parametrize("name", NAN)
def test_a_nan_shows(name):
    for case in nan_cases(name)[:4]:
        check_nan("cuda_host", ROWS[name], case, np.dtype(np.float32))


@needs_compiler
def test_a_maximum_is_cudas():
    """max and min of a NaN and a number are the number, which is why kernels compare where a NaN must stay."""
    numbers = [(np.nan, 1.0), (1.0, np.nan), (2.0, 1.0), (-1.0, 3.0)]
    a, b = (np.array(column, np.float32) for column in zip(*numbers))
    high, low = np.full(4, np.nan, np.float32), np.full(4, np.nan, np.float32)
    launch(cuda_host.device, PLANTED, "extremes", np.dtype(np.float32), 1, 32, high, low, a, b, 4)
    assert high.tolist() == [1, 1, 2, 3]
    assert low.tolist() == [1, 1, 1, -1]


@needs_compiler
def test_indices_outside_of_the_plane_are_left_out():
    """Nobody looks at a device's indices: the gather leaves out what the scatter drops."""
    plane = np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4, 1)
    indices = np.array([-1, 0, 11, 12, 2**31 - 1, -(2**31), 5, 4], np.int32).reshape(1, 2, 4, 1)
    with backends.use_backend("cuda_host"):
        gathered = backends.call("gather_by_index", plane, indices)
    assert gathered.reshape(-1).tolist() == [0, 1, 12, 0, 0, 0, 6, 5]


@needs_compiler
@pytest.mark.parametrize("kernel, stride, padding", [(2, 2, 0), (3, 3, 0), (3, 2, 1), (2, 3, 0)])
@pytest.mark.parametrize("shape", [(2, 12, 10, 5), (1, 13, 139, 40), (1, 7, 6, 1)])
def test_scatter_of_a_poolings_own_indices(kernel, stride, padding, shape):
    """Windows that keep to themselves are gathered, others added: both as the reference does it."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=shape)
    results = []
    for backend in ("reference", "cuda_host"):
        with backends.use_backend(backend), backends.poison():
            options = {"kernel": (kernel,) * 2, "stride": (stride,) * 2, "padding": (padding,) * 2, "ceil_mode": False}
            y, indices = backends.call("max_pool2d", x, **options)
            results.append(backends.call("scatter_by_index", np.cos(y), indices, size=shape[1:3]))
    assert np.allclose(*results, rtol=1e-14, atol=0)


def loss_of(model: mu.nn.Module, x: np.ndarray, target: np.ndarray) -> mu.Tensor:
    return mu.ops.softmax_cross_entropy(model(mu.Tensor(x)), target)


@needs_compiler
def test_gradients_of_a_small_u_net_by_finite_differences():
    """All parameters moved along one random direction, in float64: the loss changes as the gradients say."""
    rng = np.random.default_rng(3)
    with mu.use_backend("cuda_host"):
        model = mu.models.build("unet", in_channels=1, n_classes=2, width=1, seed=1)
        model.eval()  # no dropout: its mask changes from pass to pass
        parameters = list(model.parameters())
        for p in parameters:
            p.data = p.data.astype(np.float64)
        x = rng.normal(size=(1, 188, 188, 1))
        target = rng.integers(0, 2, (1, 4, 4))
        loss_of(model, x, target).backward()
        direction = [rng.normal(size=p.shape) * np.abs(p.data).mean() for p in parameters]
        slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction))
        home, step, losses = [p.data for p in parameters], 1e-6, []
        for sign in (1, -1):
            for p, at, d in zip(parameters, home, direction):
                p.data = at + sign * step * d
            with mu.no_grad():
                losses.append(loss_of(model, x, target).item())
    measured = (losses[0] - losses[1]) / (2 * step)
    assert np.isfinite(slope)
    assert abs(slope) > 1e-4
    assert abs(slope - measured) <= 1e-6 * abs(slope)


@needs_compiler
def test_a_training_step_is_the_references():
    """Forward, backward and Adam of a network with batch-norm, pooling by index and dropout, in float32."""
    rng = np.random.default_rng(4)
    x, target = rng.normal(size=(2, 32, 32, 3)).astype(np.float32), rng.integers(0, 3, (2, 32, 32))
    after = {}
    for backend in ("reference", "cuda_host"):
        with mu.use_backend(backend):
            model = mu.models.build("segnet", in_channels=3, n_classes=3, width=2, seed=1)
            optimiser = mu.optim.Adam(model.parameters(), lr=1e-3)
            loss = loss_of(model, x, target)
            loss.backward()
            grads = [p.grad.copy() for p in model.parameters() if p.grad is not None]
            optimiser.step()
            after[backend] = (loss.item(), grads)
    (loss, grads), (expected, exact) = after["cuda_host"], after["reference"]
    assert abs(loss - expected) <= 1e-5 * abs(expected)
    total = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in exact))
    error = np.sqrt(sum(np.sum((g.astype(np.float64) - e) ** 2) for g, e in zip(grads, exact)))
    assert np.isfinite(error)
    assert error <= 1e-4 * total


@needs_compiler
def test_the_hosts_error_names_kernel_line_and_options(tmp_path):
    file = tmp_path / "broken_host.cu"
    file.write_text('#include "common.cuh"\nextern "C" __global__ void wrong(Out<REAL> y) {\n    y[0] = one;\n}\n')
    with pytest.raises(UserError) as caught:
        compiler.library(Program(str(file), "double"))
    text = str(caught.value)
    assert "\n" not in text
    assert "broken_host.cu, line 3 (wrong): 'one' was not declared" in text or "undeclared identifier 'one'" in text
    assert "-DREAL=double" in text


@needs_compiler
def test_a_failed_compilation_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "folder", lambda: tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    file = tmp_path / "broken_too.cu"
    file.write_text('#include "missing.cuh"\nextern "C" __global__ void f(Out<REAL> y) {}\n')
    with pytest.raises(UserError, match=r"missing\.cuh"):
        compiler.library(Program(str(file), "float"))
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setattr(compiler, "find", lambda: (None, "no C++17 compiler was found"))
    assert not cuda_host.available()
    assert "cuda_host" not in backends.available()
    assert cuda_host.reason() == "no C++17 compiler was found"
    with pytest.raises(UserError, match=r"cuda_host: no C\+\+17 compiler was found"):
        compiler.library(Program("pool.cu", "float"))


def test_a_named_compiler_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiler.find.cache_clear()
    try:
        path, why = compiler.find()
    finally:
        compiler.find.cache_clear()
    assert path is None
    assert "no-such-compiler" in why
    assert "CXX" in why


def test_an_installation_has_the_kernel_files():
    """The packages and data files that setup.py names are all there are; nothing is installed as `kernels`."""
    code = (
        "import setuptools, json\n"
        "def setup(**k): print(json.dumps({n: k[n] for n in ('packages', 'package_dir', 'package_data')}))\n"
        "setuptools.setup = setup\n"
        "exec(compile(open('setup.py').read(), 'setup.py', 'exec'), {'__file__': 'setup.py', '__name__': '__main__'})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    given = json.loads(done.stdout)
    assert not any(name.split(".")[0] == "kernels" for name in given["packages"])
    shipped = set()
    for package, patterns in given["package_data"].items():
        assert package in given["packages"]
        for pattern in patterns:
            shipped.update((ROOT / given["package_dir"][package]).glob(pattern))
    wanted = {p for p in sources.folder().rglob("*") if p.suffix in (".cu", ".cuh", ".h")}
    assert wanted
    assert {p.resolve() for p in wanted} <= {p.resolve() for p in shipped}
