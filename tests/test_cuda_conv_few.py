"""The ends of a network, 9_few_in and 10_few_out: more tiles, channels and splits than the conformance cases have,
faults planted in their text and in split.cu, and what the compiler reports for every number of channels."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from cases.sample import Case, make, normal
from checks import check_bounds, compare, exact, run, sample

from minunet.backends import cuda_host
from minunet.backends.cuda import conv_few, conv_parts, conv_split, nvrtc, sources
from minunet.backends.cuda.choose import use_step
from minunet.backends.cuda.sources import Program
from minunet.contract import ROWS
from minunet.contract.row import Spec

needs_host = pytest.mark.skipif(not cuda_host.available(), reason=f"cuda_host: {cuda_host.reason()}")
needs_nvrtc = pytest.mark.skipif(not nvrtc.available(), reason=f"NVRTC: {nvrtc.library()[1]}")
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
ROW = {"forward": "conv2d", "grad_x": "conv2d_grad_x", "grad_w": "conv2d_grad_w"}
SIZES = {  # label: (N, H, W, C), (O, KH, KW), stride, padding, dilation
    "first layer": ((2, 9, 69, 1), (68, 3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
    "three channels, same": ((1, 6, 35, 3), (17, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "7x7 stride 2": ((1, 19, 75, 3), (34, 7, 7), (2, 2), (3, 3, 3, 3), (1, 1)),
    "dilated": ((1, 9, 41, 2), (5, 3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    "head": ((2, 11, 13, 64), (2, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "head of eight": ((1, 5, 31, 130), (8, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "one class, 3x3": ((1, 7, 9, 70), (1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "stride beyond the kernel": ((1, 12, 14, 65), (3, 2, 2), (3, 3), (1, 0, 0, 1), (1, 1)),
}
IN, OUT = "9_few_in", "10_few_out"
RUNS = [  # step, pass, label
    *((IN, what, label) for what in ("forward", "grad_w") for label in list(SIZES)[:4]),
    *((IN, "grad_x", label) for label in list(SIZES)[4:]),
    *((OUT, what, label) for what in ("forward", "grad_w") for label in list(SIZES)[4:]),
    *((OUT, "grad_x", label) for label in list(SIZES)[:4]),
]


def case(what: str, label: str) -> Case:
    """With bias and relu where the pass has them."""
    x, (o, kh, kw), stride, padding, dilation = SIZES[label]
    w, options = (o, kh, kw, x[3]), {"stride": stride, "padding": padding, "dilation": dilation}
    y = ROWS["conv2d"].rule(Spec(x, F64), Spec(w, F64), **options, activation=None).outputs[0].shape
    if what == "grad_w":
        return Case(label, make(normal(*x), normal(*y)), options | {"size": (kh, kw)})
    inputs, bias = (x, o) if what == "forward" else (y, x[3])
    options |= {"activation": "relu"} | ({} if what == "forward" else {"size": x[1:3]})
    return Case(label, make(normal(*inputs), normal(*w), normal(bias, mean=0.5)), options, linear=False)


@needs_host
@pytest.mark.parametrize(("step", "what", "label"), RUNS)
def test_value(step, what, label):
    """Right in both orders, and the same bits; inputs stay as they are."""
    row, chosen, bits = ROWS[ROW[what]], case(what, label), set()
    inputs = sample(chosen, F32)
    before = [x.copy() for x in inputs]
    for order in cuda_host.ORDERS:
        with use_step(step), cuda_host.order(order):
            result = run("cuda_host", row, inputs, chosen.options)
        compare(row, result, exact(row, inputs, chosen.options), F32)
        bits.add(result[0].tobytes())
    assert len(bits) == 1
    assert all(x.tobytes() == old.tobytes() for x, old in zip(inputs, before))


@needs_host
@pytest.mark.parametrize(("step", "what", "label"), [r for r in RUNS if r[1] == "grad_w"])
def test_gradients_in_one_split(step, what, label, monkeypatch):
    """Blocks with several tiles, or long runs of pixels, that write dw themselves."""
    monkeypatch.setattr(conv_split, "BLOCKS", 1)
    inputs, options = sample(case(what, label), F32), case(what, label).options
    with use_step(step):
        result = run("cuda_host", ROWS[ROW[what]], inputs, options)
    compare(ROWS[ROW[what]], result, exact(ROWS[ROW[what]], inputs, options), F32)


@needs_host
@pytest.mark.parametrize(("step", "what", "label"), RUNS[::3])
def test_doubles_and_unaligned_arrays(step, what, label):
    with use_step(step):
        for dtype in (F64, F32):
            check_bounds("cuda_host", ROWS[ROW[what]], case(what, label), dtype)


FAULTS = {  # kernel file, pass, label, what is replaced (once) and by what
    "the tile is read before it is there": (
        *(IN, "forward", "first layer"),
        "    __syncthreads();\n\n    const int di",
        "    const int di",
    ),
    "the halo lacks a row": (
        *(IN, "forward", "first layer"),
        "(KH - 1) * dh + 1, columns",
        "(KH - 1) * dh, columns",
    ),
    "a run of results is one short": (
        *(IN, "forward", "first layer"),
        "if (j >= OW) continue;",
        "if (j >= OW - 1) continue;",
    ),
    "the window of a row": (IN, "forward", "first layer", "a[i + v], g", "a[i + 2 - v], g"),
    "the next tile comes too early": (
        *(IN, "grad_w", "first layer"),
        "        __syncthreads();  // the last tile",
        "        // the last tile",
    ),
    "a barrier before the warps' sums of terms": (
        *(IN, "grad_w", "first layer"),
        "    __syncthreads();\n    for (int k = thread",
        "    for (int k = thread",
    ),
    "a warp's sums are missing": (IN, "grad_w", "first layer", "w < WARPS; w +=", "w < WARPS - 1; w +="),
    "lanes keep the wrong half": (OUT, "forward", "head", "upper ? high : low)", "upper ? low : high)"),
    "a pixel of the next row": (OUT, "forward", "head", "i = p / OW % OH, j = p % OW;", "i = 0, j = 0;"),
    "channels behind the last": (OUT, "forward", "one class, 3x3", "? C - c : 0;", "? 4 : 0;"),
    "a barrier before the warps' sums": (OUT, "grad_w", "head", "    __syncthreads();\n", ""),
    "the last pixel of a run": (OUT, "grad_w", "head", "p < end; p++", "p < end - 1; p++"),
    "the first part twice": ("split", "forward", "head", "int s = 1; s < parts", "int s = 0; s < parts"),
    "parts lie too close": ("split", "forward", "head", "s * results + k", "s * (results - 1) + k"),
    "no bias": ("split", "forward", "head", "b ? sum.e[e] + b[o + e] : sum.e[e]", "sum.e[e]"),
}


def complaints(step: str, what: str, label: str, text: str, folder, monkeypatch) -> int:
    """In how many thread orders this text gives wrong numbers or an error."""
    file = folder / f"{step}.cu"
    file.write_text(text)
    module, name = {IN: (conv_few, "IN"), OUT: (conv_few, "OUT"), "split": (conv_parts, "SPLIT")}[step]
    monkeypatch.setattr(module, name, str(file))
    monkeypatch.setattr(conv_parts, "plan", lambda *a: conv_parts.Plan((64, 64), 3))
    monkeypatch.setattr(conv_split, "BLOCKS", 1)  # several tiles a block
    row, chosen, caught = ROWS[ROW[what]], case(what, label), 0
    inputs = sample(chosen, F32)
    for order in cuda_host.ORDERS:
        with use_step("4_register_tile" if step == "split" else step), cuda_host.order(order):
            try:
                compare(row, run("cuda_host", row, inputs, chosen.options), exact(row, inputs, chosen.options), F32)
            except (AssertionError, cuda_host.KernelError):
                caught += 1
    return caught


@needs_host
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault, tmp_path, monkeypatch):
    step, what, label, old, new = FAULTS[fault]
    text = sources.text(f"conv/{step}.cu")
    assert text.count(old) >= 1, f"{step} has no {old!r} any more"
    assert complaints(step, what, label, text.replace(old, new, 1), tmp_path, monkeypatch) >= 1


@needs_host
@pytest.mark.parametrize(("step", "what", "label"), sorted({fault[:3] for fault in FAULTS.values()}))
def test_without_a_fault_nothing_is_caught(step, what, label, tmp_path, monkeypatch):
    assert complaints(step, what, label, sources.text(f"conv/{step}.cu"), tmp_path, monkeypatch) == 0


@needs_nvrtc
@pytest.mark.parametrize("few", (4, 8))  # 2 is what tests/test_cuda_sources.py compiles
@pytest.mark.parametrize("real", ("float", "double"))
def test_no_spills(few, real):
    for architecture in ("sm_75", "sm_80", "sm_90a", "sm_100") if real == "float" else ("sm_90a",):
        path = nvrtc.cubin(Program(f"conv/{OUT}.cu", real, (("FEW", few),)), architecture)
        for kernel, used in nvrtc.resources(path.with_suffix(".log").read_text()).items():
            assert used.spills == used.stack == 0, f"{kernel}, {few} channels, {architecture}: {used}"
            assert real == "double" or used.registers <= 128  # two blocks on a multiprocessor


def test_channels_and_lanes_are_rounded_up():
    assert [conv_few.lanes(n) for n in (1, 16, 17, 32, 33, 64, 65, 1000)] == [4, 4, 8, 8, 16, 16, 16, 16]
    assert [conv_few.few(n) for n in range(1, 9)] == [2, 2, 4, 4, 8, 8, 8, 8]
    tile = partial(conv_few.halo, 4, (3, 3), (1, 1), (1, 1))
    assert tile(1) == 6 * 34
    assert tile(3) == 6 * 34 * 3
    assert conv_few.halo(4, (0, 1), (1, 1), (1, 1), 1) == 0  # a phase without a tap reads nothing
