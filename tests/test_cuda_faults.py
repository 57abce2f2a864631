"""The emulation reports what a GPU leaves undefined: kernels that are wrong on purpose, and right ones beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minunet.backends import cuda_host
from minunet.backends.cuda.launch import launch
from minunet.backends.cuda_host import compiler

pytestmark = pytest.mark.skipif(not cuda_host.available(), reason=cuda_host.reason())
PLANTED = str(Path(__file__).parent / "cuda" / "planted.cu")
BLOCK = 64
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def run(kernel: str, *args, grid: int = 1, shared: int = 0, dtype: np.dtype = F32) -> None:
    launch(cuda_host.device, PLANTED, kernel, dtype, grid, BLOCK, *args, shared=shared)


def values(n: int, dtype: np.dtype = F32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=n).astype(dtype)


def output(n: int, dtype: np.dtype = F32) -> np.ndarray:
    return np.full(n, np.nan, dtype)


def in_both_orders(kernel: str, expected: np.ndarray, *inputs) -> list[bool]:
    """Whether the kernel's output is finite and equal to `expected`, in ascending and in descending order."""
    fine = []
    for order in cuda_host.ORDERS:
        y = output(expected.size, expected.dtype)
        with cuda_host.order(order):
            run(kernel, y, *inputs, dtype=expected.dtype)
        fine.append(bool(np.isfinite(y).all() and np.array_equal(y, expected)))
    return fine


@pytest.mark.parametrize("dtype", (F32, F64), ids=str)
def test_a_missing_barrier_shows_in_one_order_or_the_other(dtype):
    x = values(BLOCK, dtype)
    assert in_both_orders("reverse", x[::-1].copy(), x) == [True, True]
    assert not all(in_both_orders("reverse_without_barrier", x[::-1].copy(), x))


def test_a_missing_second_barrier_shows_in_one_order_or_the_other():
    x = values(3 * BLOCK)
    expected = np.roll(x.reshape(3, BLOCK), -1, axis=1).reshape(-1)
    assert in_both_orders("shift", expected, x, 3) == [True, True]
    assert not all(in_both_orders("shift_one_barrier", expected, x, 3))


def test_a_halo_that_is_one_short_shows():
    n = 3 * BLOCK - 5
    x = values(n)
    around = np.pad(x, 1)
    expected = (around[:-2] + around[1:-1] + around[2:]) / np.float32(3)
    for kernel, right in (("mean3", True), ("mean3_short_halo", False)):
        y = output(n)
        run(kernel, y, x, n, grid=3)
        assert bool(np.isfinite(y).all() and np.allclose(y, expected, rtol=1e-6)) is right


def test_an_unwritten_output_shows():
    y = output(BLOCK)
    run("all_but_one", y, BLOCK)
    assert np.isnan(y).sum() == 1


@pytest.mark.skipif(compiler.FILLED not in compiler.options(), reason="the compiler cannot fill registers")
def test_an_unwritten_register_shows():
    x = values(2 * BLOCK)
    for n, right in ((2, True), (1, False)):
        y = output(BLOCK)
        run("unwritten_register", y, x, n)
        assert np.allclose(y, x.reshape(-1, 2).sum(axis=1), rtol=1e-6) is right


DIVERGENT = {
    "half_at_barrier": ((), r"thread \(0, 0, 0\) waits at __syncthreads .* thread \(32, 0, 0\) has left the kernel"),
    "two_barriers": (
        (),
        r"thread \(0, 0, 0\) waits at __syncthreads in line \d+, and thread \(1, 0, 0\) waits in line",
    ),
    "leave_early": ((BLOCK - 1,), r"waits at __syncthreads in line \d+, and thread \(63, 0, 0\) has left the kernel"),
    "half_a_warp_shuffles": (
        (),
        r"waits at a warp operation in line \d+, and thread \(\d+, 0, 0\) has left the kernel",
    ),
}


@pytest.mark.parametrize("kernel", DIVERGENT)
@pytest.mark.parametrize("order", cuda_host.ORDERS)
def test_divergence_is_reported(kernel, order):
    numbers, message = DIVERGENT[kernel]
    said = f"{kernel}: divergence in block .*{message}"
    with cuda_host.order(order), pytest.raises(cuda_host.KernelError, match=said):
        run(kernel, output(BLOCK), *numbers)


OUTSIDE = {
    "write_behind": (lambda y, x: (y, BLOCK), r"y\[64\] lies outside of its 64 elements"),
    "read_before": (lambda y, x: (y, x), r"thread \(0, 0, 0\): x\[-1\] lies outside of its 64 elements"),
    "read_missing": (lambda y, x: (y, None), r"x is missing \(a null pointer\)"),
    "vector_behind": (lambda y, x: (y, x, BLOCK), r"x\[63\] to \[66\] lie outside of its 64 elements"),
    "vector_misaligned": (lambda y, x: (y, x), r"x\[1\] is not aligned to 16 bytes"),
    "beyond_fixed_array": (lambda y, x: (y, 1), r"planted.cu:\d+: an index lies outside of its array"),
    "overflow": (lambda y, x: (y.view(np.int32), 2**31 - 10), r"planted.cu:\d+: an integer sum overflows"),
    "divide": (lambda y, x: (y.view(np.int32), 1), r"planted.cu:\d+: an integer is divided by zero"),
}


@pytest.mark.parametrize("kernel", OUTSIDE)
def test_what_lies_outside_is_reported_with_name_and_index(kernel):
    arguments, message = OUTSIDE[kernel]
    memory = np.zeros(2 * BLOCK + 8, np.float32)
    y, x = (aligned(memory[half * (BLOCK + 4) :], BLOCK) for half in (0, 1))
    with pytest.raises(cuda_host.KernelError, match=message):
        run(kernel, *arguments(y, x))


def aligned(memory: np.ndarray, n: int) -> np.ndarray:
    """n elements of `memory` that start at a multiple of 16 bytes."""
    start = -memory.ctypes.data % 16 // 4
    return memory[start : start + n]


def test_a_write_behind_dynamic_shared_memory_is_reported():
    run("beyond_dynamic_array", output(BLOCK), 0, shared=BLOCK * 4)
    with pytest.raises(cuda_host.KernelError, match="wrote behind its 256 bytes of dynamic shared memory"):
        run("beyond_dynamic_array", output(BLOCK), 1, shared=BLOCK * 4)


def test_after_a_fault_the_next_launch_is_sound():
    x = values(BLOCK)
    with pytest.raises(cuda_host.KernelError):
        run("half_at_barrier", output(BLOCK))
    assert in_both_orders("reverse", x[::-1].copy(), x) == [True, True]


@pytest.mark.parametrize("dtype", (F32, F64), ids=str)
def test_asynchronous_copies_arrive_when_they_are_waited_for(dtype):
    each = 16 // dtype.itemsize
    x = aligned_copy(values(BLOCK * each, dtype))
    expected = np.where(np.arange(x.size) // each % 2 == 0, x, 0).astype(dtype)
    assert in_both_orders("copy", expected, x) == [True, True]
    y = output(x.size, dtype)
    run("copy_without_wait", y, x, dtype=dtype)
    assert np.isnan(y).all()
    older, newer = output(1, dtype), output(1, dtype)
    run("copy_two_groups", older, newer, x, dtype=dtype)
    assert older[0] == x[0]
    assert np.isnan(newer[0])


def aligned_copy(x: np.ndarray) -> np.ndarray:
    memory = np.empty(x.size + 16 // x.itemsize, x.dtype)
    start = -memory.ctypes.data % 16 // x.itemsize
    memory[start : start + x.size] = x
    return memory[start : start + x.size]


@pytest.mark.parametrize("order", cuda_host.ORDERS)
def test_warps_shuffle_and_vote(order):
    x = np.arange(1, BLOCK + 1, dtype=np.float64)
    odd = np.random.default_rng(1).integers(0, 9, BLOCK, dtype=np.int32)
    sums, votes, half, whole = output(2, F64), np.zeros(2, np.uint32), output(2, F64), output(1, F64)
    with cuda_host.order(order):
        run("warps", sums, votes, half, whole, x, odd, dtype=F64)
    assert sums.tolist() == [x[:32].sum(), x[32:].sum()]
    assert half.tolist() == [x[:16].sum(), x[32:48].sum()]
    assert whole[0] == x.sum()
    assert votes.tolist() == [sum(int(v % 2) << lane for lane, v in enumerate(odd[w : w + 32])) for w in (0, 32)]


def test_integer_atomics_count():
    v = np.random.default_rng(2).integers(0, 5, 3 * BLOCK - 7, dtype=np.int32)
    histogram = np.zeros(5, np.int32)
    run("count", histogram, v, v.size, grid=3)
    assert np.array_equal(histogram, np.bincount(v, minlength=5))


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="'upwards' is unknown"), cuda_host.order("upwards"):
        pass
