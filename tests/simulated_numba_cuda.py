"""Run by tests/test_numba_cuda.py in processes of their own: the Numba kernels under Numba's simulator.

    MINUNET_SIMULATE=1 python -m pytest tests/simulated_numba_cuda.py

The simulator is chosen when Numba is imported, so it cannot share a process with other tests. It runs a thousand
threads a second, so that only small cases are chosen, some of each row: the same that the other backends see.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from cases import Case, cases
from checks import NAN, check_bounds, check_case, check_in_place, check_nan, compare, exact, nan_cases, run, sample

import minunet as mu
from minunet import backends, nn, ops
from minunet.backends import numba_cuda
from minunet.backends.numba_cuda import conv, library
from minunet.contract import ROWS, Spec

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
WORK, MOST = 1500, 6  # operations and numbers of a case; cases of a row
STEPS = (
    "3x3 valid",
    "one pixel, all padding",
    "1x1 stride 2",
    "asymmetric padding",
    "stride 2 x 3",
    "dilation 1 x 3",
    "3x3 full",
)


@pytest.fixture(autouse=True, scope="module")
def simulator():
    if not library.simulated():
        pytest.skip("runs under Numba's simulator; set MINUNET_SIMULATE=1")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # the simulator's threads wait for one another's turn
    yield
    sys.setswitchinterval(before)


def work(row, case: Case) -> int:
    inputs = sample(case, DTYPES[1])
    specs = (None if a is None else Spec(a.shape, a.dtype) for a in inputs)
    return row.rule(*specs, **case.options).flops + sum(a.size for a in inputs if a is not None)


def small(row) -> list[Case]:
    """Up to MOST cases of a row, from the least to the largest within WORK; at least the least of all."""
    by_work = sorted(cases(row.name), key=lambda case: work(row, case))
    fitting = [case for case in by_work if work(row, case) <= WORK] or by_work[:1]
    places = np.unique(np.linspace(0, len(fitting) - 1, MOST).round().astype(int))
    return [fitting[k] for k in places]


each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_case = pytest.mark.parametrize(
    "row, case",
    [pytest.param(row, case, id=f"{row.name}-{case.label}") for row in ROWS.values() for case in small(row)],
)


def test_the_simulator_is_what_runs():
    assert "simulator" in library.require().jit.__module__
    assert numba_cuda.available(), numba_cuda.reason()
    assert sorted(numba_cuda.kernels) == sorted(ROWS)


@each_dtype
@each_case
def test_value(row, case, dtype):
    check_case("numba_cuda", row, case, dtype)


@each_dtype
@pytest.mark.parametrize("name", ["conv2d", "max_pool2d", "scatter_by_index", "batch_norm_grad", "crop_concat"])
def test_bounds(name, dtype):
    check_bounds("numba_cuda", ROWS[name], small(ROWS[name])[1], dtype)


@each_dtype
@pytest.mark.parametrize("name", [row.name for row in ROWS.values() if row.in_place])
def test_in_place(name, dtype):
    check_in_place("numba_cuda", ROWS[name], small(ROWS[name])[-1], dtype)


@each_dtype
@pytest.mark.parametrize("label", STEPS)
@pytest.mark.parametrize("name, step", [(name, step) for name, steps in conv.LADDER.items() for step in steps])
def test_every_step_of_the_ladder(name, step, label, dtype):
    suffix = "" if name == "conv2d_grad_w" else ", bias, relu"
    case = next(case for case in cases(name) if case.label == label + suffix)
    inputs = sample(case, dtype)
    with conv.use_step(step):
        result = run("numba_cuda", ROWS[name], inputs, case.options)
    compare(ROWS[name], result, exact(ROWS[name], inputs, case.options), dtype)


def test_a_step_that_has_no_room_says_so():
    x, w = np.ones((1, 70, 70, 1)), np.ones((1, 33, 33, 1))
    with backends.use_backend("numba_cuda"), conv.use_step("2_shared_tile"), pytest.raises(ValueError, match="no room"):
        ops.conv2d(mu.Tensor(x), mu.Tensor(w))


def network(backend: str, dtype, prefer=None):
    """Loss, logits and every gradient of a small U-Net, as NumPy arrays."""
    rng = np.random.default_rng(5)
    model = mu.models.build("unet", in_channels=1, n_classes=2, width=2, depth=1, seed=3)
    image = rng.normal(size=(1, 20, 22, 1)).astype(dtype)
    target = rng.integers(0, 2, (1, *model.output_size(20, 22))).astype(np.int32)
    with backends.use_backend(backend, prefer) as module:
        for parameter in model.parameters():
            parameter.data = module.asarray(parameter.data.astype(dtype))
        logits = model(mu.Tensor(module.asarray(image)))
        loss = ops.softmax_cross_entropy(logits, module.asarray(target))
        loss.backward()
        return [module.numpy(a) for a in (loss.data, logits.data, *(p.grad for p in model.parameters()))]


def near(results, truths, tolerance):
    for y, truth in zip(results, truths, strict=True):
        error, size = np.linalg.norm(y - truth), np.linalg.norm(truth)
        assert np.isfinite(y).all() and error <= tolerance * size, f"{error:.1e} of {size:.1e}"


@each_dtype
def test_unet_forward_and_backward(dtype):
    truth = network("reference", np.float64)
    near(network("numba_cuda", dtype), truth, 1e-4 if dtype == np.float32 else 1e-11)


@pytest.mark.skipif("cuda_host" not in backends.available(), reason="no C++ compiler for cuda_host")
@each_dtype
def test_unet_of_raw_and_numba_kernels(dtype, monkeypatch):
    seen = []

    def noted(name, kernel):
        def run(*arrays, **options):
            seen.append(name)
            kernel(*arrays, **options)

        return run

    for name in backends.MIXED:
        monkeypatch.setitem(numba_cuda.kernels, name, noted(name, numba_cuda.kernels[name]))
    results = network("cuda_host", dtype, backends.MIXED)
    near(results, network("reference", np.float64), 1e-4 if dtype == np.float32 else 1e-11)
    assert seen == ["max_pool2d", "softmax_cross_entropy", "softmax_cross_entropy_grad", "scatter_by_index"]


def test_a_preference_that_cannot_be_met():
    for prefer, message in (
        ({"max_pool": "numba_cuda"}, "'max_pool' is no kernel"),
        ({"max_pool2d": "nobody"}, "'nobody' is not known"),
        ({"max_pool2d": "cuda"}, "'cuda' cannot run here"),
    ):
        with pytest.raises(ValueError, match=message), backends.use_backend("numba_cuda", prefer):
            raise AssertionError("was accepted")


def test_a_preference_ends_with_its_block():
    x = np.ones((1, 2, 2, 1), np.float32)
    with backends.use_backend("reference", {"relu": "numba_cuda"}):
        with backends.use_backend("reference"):
            assert not backends._preferred.get()
        assert backends._preferred.get() == {"relu": "numba_cuda"}
        assert np.array_equal(backends.call("relu", x), x)
    assert not backends._preferred.get()


def test_float16_is_refused():
    with backends.use_backend("numba_cuda"), pytest.raises(TypeError, match="must be float32 or float64"):
        ops.relu(mu.Tensor(np.ones((2, 2), np.float16)))


def test_targets_that_are_no_class_give_nan():
    logits, target = np.zeros((2, 3), np.float32), np.array([0, 7], np.int32)
    with backends.use_backend("numba_cuda"):
        loss, factor = backends.call("softmax_cross_entropy", logits, target, ignore_index=255, reduction="mean")
        grad = backends.call("softmax_cross_entropy_grad", logits, target, factor, factor, ignore_index=255)
    assert np.isnan(loss) and np.isfinite(grad[0]).all() and np.isnan(grad[1]).all()


def test_infinite_and_nan_numbers_pass_as_in_the_formula():
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, -3.0, 3.0])
    for name, options in (("relu", {}), ("leaky_relu", {"slope": 0.1}), ("elu", {"alpha": 1.0}), ("tanh", {})):
        result, truth = run("numba_cuda", ROWS[name], (x,), options)[0], exact(ROWS[name], (x,), options)[0]
        np.testing.assert_allclose(result, truth, rtol=1e-14, err_msg=name)
    rows = np.array([[-np.inf, -np.inf, 1.0], [-np.inf, 2.0, 2.0], [1.0, -np.inf, -np.inf]])
    result, truth = run("numba_cuda", ROWS["softmax"], (rows,), {})[0], exact(ROWS["softmax"], (rows,), {})[0]
    np.testing.assert_allclose(result, truth, rtol=1e-14)


@pytest.mark.parametrize("name", NAN)
def test_a_nan_shows(name):
    row = ROWS[name]
    case = min(nan_cases(name), key=lambda c: work(row, c))
    check_nan("numba_cuda", row, case, DTYPES[0])


def test_indices_outside_of_the_plane_are_left_out():
    plane = np.arange(1, 5, dtype=np.float32).reshape(1, 2, 2, 1)
    indices = np.array([-1, 0, 3, 4], np.int32).reshape(1, 2, 2, 1)
    with backends.use_backend("numba_cuda"):
        gathered = backends.call("gather_by_index", plane, indices)
    assert gathered.reshape(-1).tolist() == [0, 1, 4, 0]


def test_batch_norm_in_training(rng):
    x = rng.normal(3.0, 2.0, (2, 5, 4, 3))
    layer = nn.BatchNorm2d(3)
    with backends.use_backend("numba_cuda"):
        y = layer(mu.Tensor(x.astype(np.float32))).numpy()
    truth = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    near([y], [truth], 1e-5)
