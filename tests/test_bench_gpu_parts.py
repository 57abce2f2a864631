"""Parts of the GPU bench: limits, memory-bound rows, the sanitizer, and README's tables."""

from __future__ import annotations

import json
import os

import pytest

from bench import gpu, gpu_limits, gpu_memory, gpu_report, gpu_sanitizer, layers, report
from bench.gpu_device import Clock, Device
from minunet.backends import cuda_host
from minunet.backends.cuda import nvrtc
from minunet.backends.cuda.choose import LADDER
from minunet.errors import UserError

pytestmark = pytest.mark.skipif(not cuda_host.available(), reason=f"cuda_host: {cuda_host.reason()}")


# --- Limits
def test_limits_of_u_net_are_those_of_its_shapes():
    found = [gpu_limits.work(layer) for layer in layers.unet(64, 572)]
    assert len(found) == 23
    assert round(sum(w.flops for w in found) / 1e9, 1) == 300.9  # known from the shapes
    assert found[1] == (2 * 9 * 64 * 64 * 568 * 568, 4 * (570 * 570 * 64 + 9 * 64 * 64 + 64 + 568 * 568 * 64))
    eight = gpu_limits.work(layers.unet(64, 572)[10], 8)
    assert eight.flops == 8 * found[10].flops and eight.nbytes < 8 * found[10].nbytes  # the weights count once
    table = gpu_limits.table()
    assert "Computed, not measured" in table
    assert "| down0.2 | 570², 64 → 568², 64 | 23.79 | 165.9 | 143 | 355.0 | 48.1 | 34.6 * |" in table


def test_peaks_are_computed_from_multiprocessors_and_clock():
    about = {"architecture": "sm_90", "multiprocessors": 132, "clock_mhz": 1980}
    assert gpu_limits.of_device(about, 4000.0).tflops == {"fp32": 66.9, "tf32": 535.3, "bf16": 1070.5}
    assert gpu_limits.of_device({**about, "architecture": "sm_75"}, None).tflops["fp32"] == 33.5
    unknown = gpu_limits.of_device({"device": "a dry run"}, None)
    assert set(unknown.tflops.values()) == {None}
    assert unknown.share("fp32", 1, 1, 1.0) == {}


# --- Memory-bound rows, the sanitizer
def test_memory_bound_rows(monkeypatch):
    class Stopwatch(Device):
        def milliseconds(self, calls, whole=False, repeats=0):
            return {name: {"median_ms": 0.5, "low_ms": 0.5, "high_ms": 0.5} for name in calls}

    monkeypatch.setattr(gpu_memory, "copy_rate", lambda device: 100.0)
    found = gpu_memory.measure(Stopwatch(dry=True), Clock(60))
    rows = {row: entry for row, entry in found.items() if isinstance(entry, dict)}
    assert len(rows) > 12 and "relu_grad" in rows and not any(row.startswith("conv") for row in rows)
    assert not any("wrong" in entry for entry in rows.values())
    nbytes = 2 * 4 * 1 * 6 * 6 * 4  # read and written
    assert rows["relu"]["gbytes"] == round(nbytes / 0.5e6, 1)
    late = gpu_memory.measure(Stopwatch(dry=True), Clock(-1))
    assert late["relu"] == "not measured: out of time"


def test_the_sanitizer_is_started_and_its_verdict_kept(tmp_path, monkeypatch):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text('#!/bin/sh\necho "========= ERROR SUMMARY: $2"\n[ "$2" = memcheck ] || exit 9\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    device = Device(dry=True)
    device.dry = False
    found = gpu_sanitizer.measure(device, Clock(60))
    assert found["memcheck"] == "no error; ========= ERROR SUMMARY: memcheck"
    assert found["racecheck"].startswith("failed: exit code 9:")
    assert gpu.failures({"sections": {"sanitizer": {"result": found}}})
    assert gpu_sanitizer.measure(device, Clock(1))["racecheck"] == "left out: out of time"
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    assert gpu_sanitizer.once(str(tool), "memcheck", 0.2) == "did not end within 0 s"
    ran = gpu_sanitizer.exercise(Device(dry=True), Clock(0.5))
    assert "0 gave another result" in ran


# --- README's tables
def results(ratio: float = 1.25) -> dict:
    entry = {
        "step": "5_double_buffer",
        "error": 2e-7,
        "times": {"minunet": {"median_ms": 2.0}},
        "tflops": 50.0,
        "share_of_limit": 0.75,
        "limit": "multiply-adds",
        "ratio": ratio,
    }
    rows = {f"layer{k}": {what: {"fp32": entry} for what in layers.PASSES} for k in range(23)}
    slower = {**entry, "ratio": 0.5}
    return {
        "device": {"device": "NVIDIA H200", "measured": True, "architecture": "sm_90"},
        "commit": "abc",
        "sections": {
            "layers": {"result": {"batch 1": rows, "batch 8": {"layer0": "not measured: out of time"}}},
            "cuDNN plans": {"result": {"batch 1": {"layer3": {**rows["layer3"], "forward": {"fp32": slower}}}}},
            "memory-bound": {"result": {"relu": {"gbytes": 3900.0, "share_of_copy": 0.9, "ratio": 1.1}}},
            "networks": {
                "result": {
                    "inference, batch 1, bf16": {
                        "times": {n: {"median_ms": t} for n, t in (("minunet", 3), ("minunet, graph", 2), ("eager", 4))}
                    }
                }
            },
        },
    }


def test_readme_shows_what_was_measured_and_says_what_was_not(tmp_path):
    assert set(gpu_report.summary(tmp_path).split("|")) >= {" not measured ", " forward, batch 1 "}
    assert "x cuDNN" not in gpu_report.summary(tmp_path)
    (tmp_path / "cpu.json").write_text(json.dumps({"unet": {}}))
    (tmp_path / "dry.json").write_text(json.dumps({**results(), "device": {"device": "none", "measured": False}}))
    assert "H200" not in gpu_report.summary(tmp_path)
    (tmp_path / f"{gpu.slug('NVIDIA H200')}.json").write_text(json.dumps(results()))
    text = gpu_report.summary(tmp_path)
    assert "**NVIDIA H200**, sm_90" in text
    mean = (1.25**22 * 0.5) ** (1 / 23)
    said = f"50.0 TFLOP/s, 75% of the limit, **{mean:.2f}** x cuDNN, least 0.50 (layer3)"
    assert f"| forward, batch 1 | {said} | not measured | not measured | 2e-07 |" in text
    assert "| grad_w, batch 8 | not measured | not measured | not measured | not measured |" in text
    assert "| relu | 3900 | 90% | 1.1 |" in text
    assert (
        "| inference, batch 1 | not measured | not measured | 3.00 ms, as a graph 2.00; PyTorch 4.00 (eager) |" in text
    )
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match=r"broken\.json: is no JSON"):
        gpu_report.summary(tmp_path)


def test_the_computed_tables_of_the_kernels_page():
    page = (report.ROOT / "kernels" / "README.md").read_text(encoding="utf-8")
    limits = {"limits": gpu_limits.table}
    assert report.rewrite(page, "kernels/README.md", limits) == page, "run `python -m bench report`"
    if not nvrtc.available():
        assert list(gpu_report.kernels()) == ["limits"]
        pytest.skip(nvrtc.library()[1])
    assert list(gpu_report.kernels()) == ["limits", "tiles"]
    tuned = [step for step in LADDER.values() if step.tiled]
    table = gpu_report.tiles()
    for step in tuned:
        assert f"| {step.name} | 64 x 64 | " in table and f"| {step.name} | 128 x 128 | " in table
    found = next(line for line in table.splitlines() if line.startswith("| 7_tensor_tf32 | 64 x 64 | conv2d |"))
    assert f"| {3 * 128 * 80} |" in found, "dynamic shared memory counts"


def test_device_names_become_file_names():
    assert gpu.slug("NVIDIA H200") == "nvidia-h200"
    assert gpu.slug("NVIDIA GeForce RTX 4090 / x") == "nvidia-geforce-rtx-4090-x"
