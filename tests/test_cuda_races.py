"""No two threads meet in memory without a barrier between: every row and every step, watched access by access.

The emulation runs the threads of a block one after the other, and many a missing barrier shows in neither order. Here
it keeps beside each byte who touched it (kernels/host/races.h), so that what is not ordered is reported whatever the
order gave: checked on kernels that are wrong on purpose, and on those whose barriers nothing else would miss.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases import Case, cases
from checks import run, sample

from minunet import backends
from minunet.backends import cuda_host
from minunet.backends.cuda import conv_tensor, sources
from minunet.backends.cuda.choose import LADDER, use_step
from minunet.backends.cuda.conv_problem import Problem
from minunet.backends.cuda.launch import launch
from minunet.contract import ROWS, Spec

pytestmark = pytest.mark.skipif(not cuda_host.available(), reason=f"cuda_host: {cuda_host.reason()}")
PLANTED = str(Path(__file__).parent / "cuda" / "planted.cu")
BLOCK, F32 = 64, np.dtype(np.float32)
WORK, MOST = 60_000, 3  # operations and numbers of a case; cases of a row or a step


def planted(kernel: str, *numbers: int, grid: int = 1, out: int = 3 * BLOCK, size: int = 4 * BLOCK) -> None:
    memory = np.arange(size + 4, dtype=F32)
    x = memory[-memory.ctypes.data % 16 // 4 :][:size]
    with cuda_host.races():
        launch(cuda_host.device, PLANTED, kernel, F32, grid, BLOCK, np.zeros(out, F32), x, *numbers)


@pytest.mark.parametrize(
    ("kernel", "numbers", "grid", "message"),
    [
        ("reverse_without_barrier", (), 1, r"of fixed shared memory, which thread \(\d+, 0, 0\) touched"),
        ("shift_one_barrier", (3,), 1, "writes byte .* of fixed shared memory"),
        (
            "add_up",
            (),
            1,
            r"thread \(1, 0, 0\): (reads|writes) byte .* of fixed shared memory, which thread \(0, 0, 0\)",
        ),
        (
            "both_write",
            (),
            2,
            r"block \(1, 0, 0\), thread \(0, 0, 0\): writes byte 0 of y, which another block's thread",
        ),
        ("passes_on", (), 2, r"reads byte 0 of y, which another block's thread \(0, 0, 0\)"),
        ("neighbours_copy", (0,), 1, r"thread \(1, 0, 0\): writes byte .* of fixed shared memory|reads byte .* fixed"),
    ],
)
@pytest.mark.parametrize("order", cuda_host.ORDERS)
def test_planted_races_are_reported(kernel, numbers, grid, message, order):
    """Some of them in an order of threads in which the numbers come out right."""
    if kernel in ("add_up", "both_write") or order == "ascending":
        with cuda_host.order(order), pytest.raises(cuda_host.KernelError, match=f"{kernel}: block .* a race"):
            planted(kernel, *numbers, grid=grid)
    if order == "ascending":
        with pytest.raises(cuda_host.KernelError, match=message):
            planted(kernel, *numbers, grid=grid)


@pytest.mark.parametrize(
    ("kernel", "numbers", "grid"),
    [("reverse", (), 1), ("shift", (3,), 1), ("both_write", (), 1), ("neighbours_copy", (1,), 1), ("passes_on", (), 1)],
)
@pytest.mark.parametrize("order", cuda_host.ORDERS)
def test_what_a_barrier_separates_is_no_race(kernel, numbers, grid, order):
    with cuda_host.order(order):
        for _ in range(2):  # what the first launch touched is no matter of the second's
            planted(kernel, *numbers, grid=grid)


def small(row: str) -> list[Case]:
    """The cases of a row that are not too long, a few that are spread over its list."""

    def work(case: Case) -> int:
        inputs = sample(case, F32)
        specs = (None if a is None else Spec(a.shape, a.dtype) for a in inputs)
        return ROWS[row].rule(*specs, **case.options).flops + sum(a.size for a in inputs if a is not None)

    listed = [case for case in cases(row) if work(case) <= WORK]
    return listed[:: max(1, len(listed) // MOST)][:MOST]


@pytest.mark.parametrize("row", ROWS)
def test_rows(row):
    for case in small(row):
        with cuda_host.races():
            run("cuda_host", ROWS[row], sample(case, F32), case.options)


def problem(row: str, case: Case) -> Problem:
    inputs = sample(case, F32)
    specs = [None if x is None else Spec(x.shape, x.dtype) for x in inputs]
    out = np.empty(ROWS[row].rule(*specs, **case.options).outputs[0].shape, F32)
    a, b = inputs[:2]
    x, w, y = {"conv2d": (a, b, out), "conv2d_grad_x": (out, b, a), "conv2d_grad_w": (a, out, b)}[row]
    return Problem.of(x, w, y, *(case.options[k] for k in ("stride", "padding", "dilation")))


@pytest.mark.parametrize("step", LADDER)
def test_steps_of_the_ladder(step):
    for row in LADDER[step].passes():
        done = 0
        for case in [case for case in cases(row) if LADDER[step].can(row, problem(row, case))]:
            p = problem(row, case)
            if done < MOST and 2 * p.y.size * p.KH * p.KW * p.C <= WORK:
                with cuda_host.races(), use_step(step), backends.precision(LADDER[step].precisions[0]):
                    run("cuda_host", ROWS[row], sample(case, F32), case.options)
                done += 1
        assert done, f"{step} has no small case of {row}"


# Barriers whose loss changes no number, in neither order of threads.

SUMS = """#include "reduce.cuh"
extern "C" __global__ void sums(Out<REAL> y, In<REAL> x, int columns) {
    __shared__ REAL scratch[64];
    const int t = int(threadIdx.y * blockDim.x + threadIdx.x);
    for (int k = 0; k < 3; k++) {
        const REAL a = columns ? column_sum(x[t], scratch) : block_sum(x[t], scratch);
        if (t == 0) y[k] = a;
    }
}
"""
BARRIER = "__syncthreads();"


def without(text: str, number: int) -> str:
    """A file's text without one of its barriers."""
    parts = text.split(BARRIER)
    assert number < len(parts) - 1, f"there are {len(parts) - 1} barriers"
    return BARRIER.join(parts[: number + 1]) + BARRIER.join(parts[number + 1 :])


@pytest.mark.parametrize("number", range(5))
def test_each_barrier_of_a_sum_is_needed(number, tmp_path):
    (tmp_path / "reduce.cuh").write_text(without(sources.text("reduce.cuh"), number))
    (tmp_path / "sums.cu").write_text(SUMS)
    columns = int(number >= 2)  # the first two are those of block_sum
    with cuda_host.races(), pytest.raises(cuda_host.KernelError, match="a race"):
        launch(
            cuda_host.device,
            str(tmp_path / "sums.cu"),
            "sums",
            F32,
            1,
            (8, 8),
            np.zeros(3, F32),
            np.ones(64, F32),
            columns,
        )


def test_sums_with_all_barriers(tmp_path):
    (tmp_path / "sums.cu").write_text(SUMS)
    for columns, total in ((0, 64), (1, 8)):
        y = np.zeros(3, F32)
        with cuda_host.races():
            launch(cuda_host.device, str(tmp_path / "sums.cu"), "sums", F32, 1, (8, 8), y, np.ones(64, F32), columns)
        assert y.tolist() == [total] * 3


@pytest.mark.parametrize("row, number", [("conv2d", 0), ("conv2d_grad_w", 1)])
@pytest.mark.parametrize("step", ["7_tensor_tf32", "8_tensor_half"])
def test_each_barrier_between_stages_is_needed(step, row, number, tmp_path, monkeypatch):
    """Three stages: fibers, which run from barrier to barrier, never get so far ahead that one overwrites another."""
    file = tmp_path / f"{step}.cu"
    file.write_text(without(sources.text(LADDER[step].file), number))

    def redirected(device, name, *arguments, **options):
        launch(device, str(file) if name == LADDER[step].file else name, *arguments, **options)

    monkeypatch.setattr(conv_tensor, "launch", redirected)
    case = next(case for case in cases(row) if case.label.startswith("3x3 valid, odd channels"))
    inputs, precision = sample(case, F32), LADDER[step].precisions[0]
    with (
        cuda_host.races(),
        use_step(step),
        backends.precision(precision),
        pytest.raises(cuda_host.KernelError) as caught,
    ):
        run("cuda_host", ROWS[row], inputs, case.options)
    assert "a race" in str(caught.value)
