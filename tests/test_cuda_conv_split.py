"""Sums that several blocks share: every step that can split them, in both orders, and how many parts a layer gets."""

from __future__ import annotations

import numpy as np
import pytest
from cases import cases
from checks import check_bounds, compare, exact, run, sample
from rounding import ROUNDED, round_to

from bench import layers
from minunet import backends
from minunet.backends import cuda_host
from minunet.backends.cuda import conv_parts, conv_tiles
from minunet.backends.cuda.choose import LADDER, use_step
from minunet.backends.cuda.conv_parts import Plan, plan
from minunet.backends.cuda.conv_split import MULTIPROCESSORS, WORKSPACE
from minunet.backends.cuda.launch import ceil_div
from minunet.contract import ROWS

needs_host = pytest.mark.skipif(not cuda_host.available(), reason=f"cuda_host: {cuda_host.reason()}")
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
STEPS = ("4_register_tile", "5_double_buffer", "7_tensor_tf32", "8_tensor_half")
LABELS = (  # more parts than chunks, phases without a tap, odd channels, several chunks a tap
    "one pixel",
    "1x1, bias",
    "3x3 valid, odd channels, bias, relu",
    "stride beyond the kernel, bias, relu",
    "2x2 stride 2, bias, relu",
    "3x3 valid, 64 channels, bias",
)


def forced(parts: int):
    return lambda *a: Plan((64, 64), parts)


def results(step: str, row: str, label: str, dtype=F32) -> tuple:
    case = next(c for c in cases(row) if c.label == label)
    precision, inputs = LADDER[step].precisions[0], sample(case, dtype)
    if precision in ROUNDED:
        inputs = (*(round_to(precision, x) for x in inputs[:2]), *inputs[2:])
    with use_step(step), backends.precision(precision):
        result = run("cuda_host", ROWS[row], inputs, case.options)
    compare(ROWS[row], result, exact(ROWS[row], inputs, case.options), dtype)
    return result


@needs_host
@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("row", ("conv2d", "conv2d_grad_x"))
@pytest.mark.parametrize("step", STEPS)
def test_value(step, row, label, monkeypatch):
    """Right, the same bits in both orders of threads and blocks; and with one part the same but for rounding."""
    monkeypatch.setattr(conv_parts, "plan", forced(5))
    found = []
    for order in cuda_host.ORDERS:
        with cuda_host.order(order):
            found.append(results(step, row, label)[0].tobytes())
    assert found[0] == found[1]


@needs_host
@pytest.mark.parametrize("parts", (2, 3, 16))
def test_doubles_and_numbers_of_parts(parts, monkeypatch):
    monkeypatch.setattr(conv_parts, "plan", forced(parts))
    results("4_register_tile", "conv2d", "3x3 valid, odd channels, bias, relu", F64)


@needs_host
@pytest.mark.parametrize("row", ("conv2d", "conv2d_grad_x"))
def test_unaligned_arrays(row, monkeypatch):
    monkeypatch.setattr(conv_parts, "plan", forced(3))
    for label in ("3x3 same, bias, relu", "2x2 stride 2, bias"):
        with use_step("5_double_buffer"):
            check_bounds("cuda_host", ROWS[row], next(c for c in cases(row) if c.label == label), F32)


def test_a_planned_split_runs():
    """What `plan` itself chooses for a long sum of few results has several parts, one of which may be shorter."""
    chosen = plan(63, 64, 576, conv_tiles.BK, 128, F32)
    assert chosen.parts > 1
    each = ceil_div(576, chosen.parts)
    assert (ceil_div(576, each) - 1) * each < 576


def unet_at_batch_1():
    """(name, pixels, channels of the result, taps, channels summed) of every 3 x 3 layer's forward and grad_x."""
    for layer in layers.unet(64, 572):
        if layer.kernel == 3:
            out = layer.size - 2
            yield f"{layer.name} forward", out * out, layer.o, 9, layer.c
            yield f"{layer.name} grad_x", layer.size**2, layer.c, 9, layer.o


@pytest.mark.parametrize(("depth", "rate"), ((16, 128), (16, 600), (32, 1200)), ids=("float", "tf32", "half"))
def test_layers_of_unet_fill_the_device(depth, rate):
    for name, pixels, channels, taps, summed in unet_at_batch_1():
        if min(channels, summed) < 64:
            continue
        chunks = taps * ceil_div(summed, depth)
        (m, n), parts = plan(pixels, channels, chunks, depth, rate, F32)
        blocks = ceil_div(pixels, m) * ceil_div(channels, n) * parts
        assert blocks / (ceil_div(blocks, MULTIPROCESSORS) * MULTIPROCESSORS) >= 0.75, name
        assert parts * pixels * channels * 4 <= WORKSPACE
        assert ceil_div(chunks, parts) >= conv_parts.START


def test_the_deep_layers_are_split_and_large_ones_are_not():
    parts = {
        name: plan(pixels, channels, taps * ceil_div(summed, 16), 16, 128, F32).parts
        for name, pixels, channels, taps, summed in unet_at_batch_1()
    }
    for layer in ("down3.2", "down4.1", "down4.2", "merge3.2", "merge2.1", "merge2.2"):
        assert parts[f"{layer} forward"] > 1
        assert parts[f"{layer} grad_x"] > 1
    for layer in ("down0.2", "down1.2", "merge0.1"):
        assert parts[f"{layer} forward"] == parts[f"{layer} grad_x"] == 1


def test_sizes_at_the_ends():
    assert plan(1, 1, 1, 16, 128, F32) == Plan((64, 64), 1)
    assert plan(1, 1, 0, 16, 128, F32).parts == 1  # a phase without a tap
    assert plan(10**6, 1024, 576, 16, 64, F64).tile == (64, 64)
    assert plan(4, 2**24, 10**4, 16, 128, F32).parts * 4 * 2**24 * 4 <= WORKSPACE
