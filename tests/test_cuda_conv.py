"""Every step of the convolution ladder on awkward sizes, emulated: values, both thread orders, big tiles, the choice.

Steps that round their factors (tf32, bf16, fp16) are judged with inputs rounded the same way beforehand: then their
products are exact, and the tolerance is that of float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases import Case, cases
from checks import check_bounds, compare, exact, run, sample
from rounding import ROUNDED, round_to

from minunet import backends
from minunet.backends import cuda_host
from minunet.backends.cuda import (
    choose,
    conv_parts,
    conv_phases,
    conv_shared_tile,
    conv_split,
    conv_tiles,
    conv_winograd,
    sources,
)
from minunet.backends.cuda.choose import LADDER, use_step
from minunet.backends.cuda.conv_problem import Problem
from minunet.contract import ROWS, Spec

pytestmark = pytest.mark.skipif(not cuda_host.available(), reason=f"cuda_host: {cuda_host.reason()}")
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
CONV = ("conv2d", "conv2d_grad_x", "conv2d_grad_w")
SMALL = 300_000  # FLOPs up to which a case runs in both orders


def problem(row: str, case: Case, dtype: np.dtype = F32) -> Problem:
    """The sizes of a case, as launchers see them."""
    inputs = sample(case, dtype)
    specs = [None if x is None else Spec(x.shape, x.dtype) for x in inputs]
    out = np.empty(ROWS[row].rule(*specs, **case.options).outputs[0].shape, dtype)
    a, b = inputs[:2]
    x, w, y = {"conv2d": (a, b, out), "conv2d_grad_x": (out, b, a), "conv2d_grad_w": (a, out, b)}[row]
    return Problem.of(x, w, y, *(case.options[k] for k in ("stride", "padding", "dilation")))


def flops(row: str, case: Case) -> int:
    p = problem(row, case)
    return 2 * p.y.size * p.KH * p.KW * p.C


def chosen() -> list:
    """(step, row, case, order, dtype): with and without bias in turn, big cases in one order, doubles now and then."""
    found = []
    for step in LADDER.values():
        for row in step.passes():
            listed = cases(row)
            picked = listed if row == "conv2d_grad_w" else listed[0::6] + listed[5::6]
            for k, case in enumerate(picked):
                if not step.can(row, problem(row, case)):
                    continue
                orders = cuda_host.ORDERS if flops(row, case) <= SMALL else cuda_host.ORDERS[k % 2 :][:1]
                for order in orders:
                    found.append((step.name, row, case, order, F32))
                if step.double and k % 4 == 0:
                    found.append((step.name, row, case, orders[0], F64))
    return [pytest.param(*c, id=f"{c[0]}-{c[1]}-{c[2].label}-{c[3]}-{c[4]}") for c in found]


def asked(step: str) -> list[str]:
    return list(LADDER[step].precisions)


@pytest.mark.parametrize("step, row, case, order, dtype", chosen())
def test_value(step, row, case, order, dtype):
    for precision in asked(step)[:1] if dtype == F32 and flops(row, case) > SMALL else asked(step):
        if precision == "strict":
            continue
        inputs = sample(case, dtype)
        if precision in ROUNDED:
            inputs = (*(round_to(precision, x) for x in inputs[:2]), *inputs[2:])  # a bias is added unrounded
        before = [None if x is None else x.copy() for x in inputs]
        with use_step(step), cuda_host.order(order), backends.precision(precision):
            result = run("cuda_host", ROWS[row], inputs, case.options)
        compare(ROWS[row], result, exact(ROWS[row], inputs, case.options), dtype)
        for x, old in zip(inputs, before):
            assert x is None or x.tobytes() == old.tobytes()


@pytest.mark.parametrize("step", LADDER)
def test_unaligned_arrays(step):
    """Arrays that start at any address, and nothing written beyond them."""
    for row in LADDER[step].passes():
        for case in cases(row):
            label = case.label.split(",")[0]
            wanted = label in ("3x3 same", "2x2 stride 2") and "72" not in case.label and "17" not in case.label
            exact_step = set(LADDER[step].precisions) & set(choose.FULL)
            if wanted and exact_step and LADDER[step].can(row, problem(row, case)):
                with use_step(step):
                    check_bounds("cuda_host", ROWS[row], case, F32)


@pytest.mark.parametrize("step", [step.name for step in LADDER.values() if step.tiled])
@pytest.mark.parametrize("tile", [(128, 128), (128, 64), (64, 128)], ids=str)
def test_large_tiles(step, tile, monkeypatch):
    """The tiles of large layers, which no small case would get."""
    monkeypatch.setattr(conv_tiles, "tile", lambda *a, **k: tile)
    monkeypatch.setattr(conv_parts, "plan", lambda *a: conv_parts.Plan(tile, 1))
    precision = LADDER[step].precisions[0]
    for row in LADDER[step].passes():
        case = next(c for c in cases(row) if c.label.startswith("3x3 valid, odd channels"))
        inputs = sample(case, F32)
        if precision in ROUNDED:
            inputs = (*(round_to(precision, x) for x in inputs[:2]), *inputs[2:])
        with use_step(step), cuda_host.order("descending"), backends.precision(precision):
            result = run("cuda_host", ROWS[row], inputs, case.options)
        compare(ROWS[row], result, exact(ROWS[row], inputs, case.options), F32)


@pytest.mark.parametrize("step", [name for name in LADDER if name != "1_naive"])
def test_the_same_bits_in_both_orders(step):
    """Sums have an order of their own: neither that of threads nor of blocks."""
    for row in LADDER[step].passes():
        case = next(c for c in cases(row) if c.label.startswith("3x3 same, bias") or c.label == "3x3 same")
        if not LADDER[step].can(row, problem(row, case)):
            continue
        results = []
        for order in cuda_host.ORDERS:
            with use_step(step), cuda_host.order(order):
                results.append(run("cuda_host", ROWS[row], sample(case, F32), case.options)[0].tobytes())
        assert results[0] == results[1]


@pytest.mark.parametrize("row", ["conv2d", "conv2d_grad_x"])
def test_winograd_in_several_chunks(row, monkeypatch):
    """What one workspace does not hold goes in parts, the last of them shorter; the same numbers."""
    case = next(c for c in cases(row) if c.label == "3x3 same, 72 to 96 channels, bias, relu")
    inputs = sample(case, F32)
    results = []
    for nbytes in (conv_winograd.WORKSPACE, 1):  # 84 tiles of 4 x 4 at once, or 64 and 20
        monkeypatch.setattr(conv_winograd, "WORKSPACE", nbytes)
        with use_step("6_winograd"):
            results.append(run("cuda_host", ROWS[row], inputs, case.options))
    compare(ROWS[row], results[1], exact(ROWS[row], inputs, case.options), F32)
    assert results[0][0].tobytes() == results[1][0].tobytes()


def test_a_precision_is_asked_for_by_name():
    """tf32 and the 16-bit kinds round, each in its way; strict and default do not; the CPU does not know them."""
    case = next(c for c in cases("conv2d") if c.label == "3x3 valid, 64 channels")
    inputs = sample(case, F32)
    truth = exact(ROWS["conv2d"], inputs, case.options)[0]
    errors = {}
    for precision in backends.PRECISIONS:
        with backends.precision(precision):
            assert backends.asked_precision() == precision
            assert backends.strict() is (precision == "strict")
            found = run("cuda_host", ROWS["conv2d"], inputs, case.options)[0]
            cpu = run("cpu", ROWS["conv2d"], inputs, case.options)[0]
        errors[precision] = np.linalg.norm(found - truth) / np.linalg.norm(truth)
        assert np.linalg.norm(cpu - truth) <= 2e-5 * np.linalg.norm(truth)
    assert errors["strict"] < errors["default"] < 2e-5 < errors["tf32"] < 1e-3
    assert 2e-5 < errors["fp16"] < 1e-3 < errors["bf16"] < 1e-2


FAULTS = {  # file of the ladder, what is replaced (once) and by what
    "a barrier before the tile is read": (
        "3_shared_tile",
        "        __syncthreads();\n        if (o < O)",
        "        if (o < O)",
    ),
    "a barrier before the tile is overwritten": (
        "3_shared_tile",
        "                }\n        __syncthreads();",
        "                }",
    ),
    "the halo's last row": (
        "3_shared_tile",
        "rows = (TILE - 1) * sh + (KH - 1) * dh + 1",
        "rows = (TILE - 1) * sh + (KH - 1) * dh",
    ),
    "the last column of the image": ("3_shared_tile", "k < W && c < C", "k < W - 1 && c < C"),
    "a copy is not waited for": ("5_double_buffer", "wait_copies<0>();", ""),
    "a barrier between two buffers": ("5_double_buffer", "        __syncthreads();  // chunk", "        // chunk"),
    "results of the last pixel": ("5_double_buffer", "if (p >= pixels) continue;", "if (p >= pixels - 1) continue;"),
    "the tap's column": (
        "4_register_tile",
        "v = chunk.v * dw, c0",
        "v = (KW - 1 - chunk.v) * dw, c0",
    ),
}


def complaints(step: str, text: str, folder: Path) -> int:
    """In how many thread orders a forward kernel of this text gives wrong numbers or an error."""
    file = folder / f"{step}.cu"
    file.write_text(text)
    case = next(c for c in cases("conv2d") if c.label == "3x3 valid, odd channels")
    truth, caught = exact(ROWS["conv2d"], sample(case, F32), case.options), 0
    for order in cuda_host.ORDERS:
        p = problem("conv2d", case)
        p.y.fill(np.nan)
        phase = conv_phases.forward(p)[0]
        with cuda_host.order(order), pytest.MonkeyPatch.context() as patch:
            patch.setattr(conv_shared_tile, "FILE", str(file))
            try:
                if step == "3_shared_tile":
                    conv_shared_tile.convolve(cuda_host.device, phase)
                else:
                    conv_tiles.convolve(str(file), cuda_host.device, phase)
                compare(ROWS["conv2d"], (p.y,), truth, F32)
            except (AssertionError, cuda_host.KernelError):
                caught += 1
    return caught


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault, tmp_path):
    step, old, new = FAULTS[fault]
    text = sources.text(f"conv/{step}.cu")
    assert old in text, f"{step} has no {old!r} any more"
    assert complaints(step, text.replace(old, new, 1), tmp_path) >= 1


@pytest.mark.parametrize("step", sorted({step for step, _, _ in FAULTS.values()}))
def test_without_a_fault_nothing_is_caught(step, tmp_path):
    assert complaints(step, sources.text(f"conv/{step}.cu"), tmp_path) == 0


def test_every_source_of_a_gradient_is_in_one_phase():
    """Phases of an axis, unrolled: each (h, u, i) with i stride + u dilation - before = h occurs once."""
    for size, kernel, stride, before, dilation in ((9, 3, 2, 1, 1), (11, 4, 3, 0, 2), (7, 3, 4, 2, 2), (5, 2, 3, 1, 3)):
        found = []
        for axis in conv_phases.turned(size, kernel, stride, before, dilation):
            for k in range(axis.count):
                for t in range(axis.taps):
                    source = k * axis.stride + t * axis.step - axis.before
                    found.append((k * axis.target + axis.first, axis.filter + t * axis.direction, source))
        wanted = [
            (h, u, (h + before - u * dilation) // stride)
            for h in range(size)
            for u in range(kernel)
            if (h + before - u * dilation) % stride == 0
        ]
        assert sorted(found) == sorted(wanted)
        assert len(set(found)) == len(found)


def test_splits_cover_the_sum():
    for blocks, units, least, nbytes in (
        (1, 100, 1, 8),
        (9, 1187, 256, 4),
        (4000, 10**6, 256, 2**20),
        (2, 5, 16, 2**30),
    ):
        count, each = conv_split.splits(blocks, units, least, nbytes)
        assert count >= 1
        assert (count - 1) * each < units <= count * each
        assert each % least == 0
        assert count == 1 or count * nbytes <= conv_split.WORKSPACE


def sized(n, h, c, o, kernel=3, stride=1, dtype=F32) -> Problem:
    """A layer without its memory."""
    oh = (h - kernel) // stride + 1
    x, w, y = (np.broadcast_to(dtype.type(0), s) for s in ((n, h, h, c), (o, kernel, kernel, c), (n, oh, oh, o)))
    return Problem.of(x, w, y, (stride, stride), (0, 0, 0, 0), (1, 1))


def test_the_rule_always_finds_a_step_that_can():
    for row in CONV:
        for case in cases(row)[::3]:
            for dtype in (F32, F64):
                for precision in backends.PRECISIONS:
                    for architecture in (75, 80, 86, 90, 120):
                        p = problem(row, case, dtype)
                        step = LADDER[choose.rule(row, p, precision, architecture)]
                        assert step.can(row, p, architecture)
                        assert dtype == F32 or step.double
                        assert precision in step.precisions or set(step.precisions) & set(choose.FULL)
                        if precision == "strict":
                            assert "strict" in step.precisions


def test_the_rule_on_layers():
    p = sized(1, 284, 64, 128)
    assert choose.rule("conv2d", p, "default", 80) == choose.rule("conv2d_grad_x", p, "default", 90) == "6_winograd"
    assert choose.rule("conv2d_grad_w", p, "default", 80) == "5_double_buffer"
    assert choose.rule("conv2d", sized(1, 284, 64, 128, stride=2), "default", 80) == "5_double_buffer"
    assert choose.rule("conv2d", sized(1, 284, 16, 16), "default", 80) == "5_double_buffer"
    assert choose.rule("conv2d", p, "strict", 75) == "4_register_tile"
    assert choose.rule("conv2d", p, "strict", 80) == "5_double_buffer"
    assert choose.rule("conv2d", p, "tf32", 75) == "4_register_tile"  # no mma.sync of these types
    for row in CONV:
        assert choose.rule(row, p, "tf32", 80) == "7_tensor_tf32"
        assert choose.rule(row, p, "bf16", 90) == choose.rule(row, p, "fp16", 86) == "8_tensor_half"
    assert choose.rule("conv2d", sized(1, 284, 64, 128, dtype=F64), "bf16", 90) == "4_register_tile"


def test_the_rule_at_the_ends_of_a_network():
    for precision, architecture in (("default", 75), ("strict", 90), ("tf32", 80), ("bf16", 90)):
        for first in (sized(1, 572, 1, 64), sized(1, 224, 3, 64), sized(1, 224, 3, 64, kernel=7, stride=2)):
            assert choose.rule("conv2d", first, precision, architecture) == "9_few_in"
            assert choose.rule("conv2d_grad_w", first, precision, architecture) == "9_few_in"
            assert choose.rule("conv2d_grad_x", first, precision, architecture) == "10_few_out"
        for classes in (1, 2, 8):
            head = sized(1, 388, 64, classes, kernel=1)
            assert choose.rule("conv2d", head, precision, architecture) == "10_few_out"
            assert choose.rule("conv2d_grad_w", head, precision, architecture) == "10_few_out"
            assert choose.rule("conv2d_grad_x", head, precision, architecture) == "9_few_in"
    assert choose.rule("conv2d", sized(1, 388, 64, 9, kernel=1), "default", 90) == "5_double_buffer"
    assert choose.rule("conv2d", sized(1, 284, 8, 64), "default", 90) == "5_double_buffer"  # 72 terms
    assert choose.rule("conv2d", sized(1, 572, 3, 64, kernel=31), "default", 90) == "2_coalesced"  # no room for a halo
    assert choose.rule("conv2d_grad_w", sized(1, 572, 3, 64, kernel=61), "default", 90) == "5_double_buffer"


def test_a_step_that_does_not_exist_or_cannot():
    with pytest.raises(ValueError, match=r"'9_magic' is unknown; it is one of 1_naive, 2_"), use_step("9_magic"):
        pass
    inputs, options = sample(cases("conv2d")[0], F64), cases("conv2d")[0].options
    refused = pytest.raises(ValueError, match=r"5_double_buffer cannot do x \(2, 7, 5, 3\).*float64")
    with use_step("5_double_buffer"), refused:
        run("cuda_host", ROWS["conv2d"], inputs, options)
