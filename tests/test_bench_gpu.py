"""`python -m bench gpu`: the whole command without a GPU, and that it keeps going, tells the truth and finds faults."""

from __future__ import annotations

import contextlib
import json
import re
import time
from functools import partial

import pytest

from bench import __main__ as bench_main
from bench import (
    gpu,
    gpu_checks,
    gpu_device,
    gpu_layers,
    gpu_limits,
    gpu_networks,
    gpu_table,
)
from bench.gpu_device import Clock, Device
from minunet.backends import cuda, cuda_host
from minunet.backends.cuda import choose
from minunet.backends.cuda.choose import LADDER
from minunet.errors import UsageError, UserError

pytestmark = pytest.mark.skipif(not cuda_host.available(), reason=f"cuda_host: {cuda_host.reason()}")


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """The folder that a dry run wrote, and its exit code."""
    folder = tmp_path_factory.mktemp("gpu")
    return folder, bench_main.main(["gpu", "--dry", "--seconds", "1e5", "--out", str(folder)])


def test_a_dry_run_does_everything(dry):
    folder, code = dry
    assert code == 0
    results = json.loads((folder / "results.json").read_text())
    assert list(results["sections"]) == [name for name, _, _ in gpu.SECTIONS]
    for name, entry in results["sections"].items():
        assert "failed" not in entry, f"{name}: {entry}"
    for name in ("conformance", "ladder"):
        found = results["sections"][name]["result"]
        assert found["passed"] > 10
        assert found["failed"] == {}
        assert found["left_out_for_time"] == 0
    for name in ("layers", "networks", "memory-bound"):
        assert "failed: " not in json.dumps(results["sections"][name])
    assert results["sections"]["training run"]["result"]["largest_difference"] < 1e-3


def test_what_was_not_measured_is_no_number(dry):
    folder, _ = dry
    written = (folder / "results.json").read_text()
    for key in ("median_ms", "tflops", "gbytes", "ratio", "share_of_copy", "images_per_second", "launch_us"):
        assert f'"{key}"' not in written
    table = (folder / "results.txt").read_text()
    assert table.count("not measured") > 20
    assert "a dry run on this machine's processor" in table
    assert re.search(r"down0\.2 +forward +bf16 +\w+ +\d\.\de-\d\d +- not measured", table)


def test_without_a_gpu_the_remedy_is_named(tmp_path):
    if cuda.available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=r"bench gpu: .*--dry runs the command without one"):
        gpu.main(["--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def broken(device, clock):
    raise RuntimeError("the driver\nwent away")


def answers(device, clock):
    return {"answer": 42}


def test_a_failing_section_is_written_down_and_the_next_one_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "SECTIONS", (("one", broken, 0.1), ("two", answers, 0.1)))
    assert gpu.main(["--dry", "--out", str(tmp_path)]) == 1
    found = json.loads((tmp_path / "results.json").read_text())["sections"]
    assert found["one"]["failed"] == "RuntimeError: the driver went away"
    assert found["two"]["result"] == {"answer": 42}
    assert "FAILED: RuntimeError: the driver went away" in (tmp_path / "results.txt").read_text()
    assert "error: one: RuntimeError: the driver went away" in capsys.readouterr().err


def test_results_are_kept_after_each_section_and_time_is_honoured(monkeypatch):
    """Without a process of its own: the second section finds no time left."""
    kept = []

    class Here:
        __init__ = lambda self, dry: None  # noqa: E731
        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: None  # noqa: E731

        def run(self, section, seconds):
            if section is answers:
                time.sleep(0.2)
            return {"result": section(Device(dry=True), Clock(seconds))}

    monkeypatch.setattr(gpu, "Worker", Here)
    monkeypatch.setattr(gpu, "SECTIONS", (("one", answers, 0.5), ("two", broken, 0.5)))
    found = gpu.run(True, 0.1, lambda results: kept.append(list(results["sections"])))
    assert kept == [["one"], ["one", "two"], ["one", "two"]]
    assert found["sections"]["two"]["result"] == {"left out": "out of time"}
    assert "left out: out of time" in gpu_table.text(found)


def test_what_is_kept_is_what_readme_shows(tmp_path, monkeypatch, capsys):
    """Without a GPU: the run is made up, README is left alone."""
    results = {"device": {"device": "NVIDIA H200", "measured": True}, "sections": {}}
    monkeypatch.setattr(gpu.backends, "available", lambda: ["cuda"])
    monkeypatch.setattr(gpu, "run", lambda dry, seconds, keep: results)
    monkeypatch.setattr(gpu.report, "RESULTS", tmp_path)
    rewritten = []
    monkeypatch.setattr(gpu.report, "rewrite_readme", lambda: rewritten.append(1))
    assert gpu.main(["--out", str(tmp_path / "out"), "--keep"]) == 0
    assert json.loads((tmp_path / "nvidia-h200.json").read_text()) == results
    assert rewritten == [1]
    results["device"] = {"device": "not known: its process ended", "measured": False}
    assert gpu.main(["--out", str(tmp_path / "out"), "--keep"]) == 1
    assert "nothing is kept" in capsys.readouterr().err
    assert [f.name for f in tmp_path.glob("*.json")] == ["nvidia-h200.json"]


@pytest.mark.parametrize("arguments", [["--dry", "--keep"], ["--seconds", "0"], ["--seconds", "nan"]])
def test_what_makes_no_sense_is_a_usage_error(arguments, tmp_path):
    with pytest.raises(UsageError):
        gpu.main([*arguments, "--out", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_single_failures_are_counted_and_named():
    def fail():
        raise AssertionError("wrong\nby 3")

    jobs = [("good", lambda: None), ("bad", fail), ("good too", lambda: None)]
    found = gpu_checks.tally(iter(jobs), Clock(60))
    assert found == {"passed": 2, "failed": {"bad": "AssertionError: wrong by 3"}, "left_out_for_time": 0}
    assert [name for name, _ in gpu_checks.in_turn([[("a", 1), ("b", 2)], [("c", 3)]])] == ["a", "c", "b"]
    assert gpu_checks.tally(iter(jobs), Clock(-1))["left_out_for_time"] == 3
    assert gpu.failures({"sections": {"a": {"result": found}}}) == ["a, result: bad AssertionError: wrong by 3"]


def test_a_wrong_gradient_and_a_wrong_curve_are_found(monkeypatch):
    device = Device(dry=True)
    monkeypatch.setitem(gpu_checks.GRADIENT, "float32", 0.0)
    rule, steps = choose.rule, set()
    monkeypatch.setattr(choose, "rule", lambda *a: steps.add(rule(*a)) or rule(*a))
    found = gpu_checks.network_gradients(device, Clock(1e5))
    assert {"5_double_buffer", "7_tensor_tf32", "8_tensor_half"} <= steps, (
        "a precision is tried on kernels that have it"
    )
    assert "a gradient in float32 is off by" in found["float32"]
    assert found["float64"] <= 1e-9 and found["bf16"] > 100 * found["float64"]
    assert gpu.failures({"sections": {"g": {"result": found}}}) == [f"g, result, float32: {found['float32']}"]
    monkeypatch.setattr(gpu_checks, "curve", lambda device, steps: [1.0, 0.5 if device else 0.6])
    with pytest.raises(ValueError, match=r"losses differ from the CPU's by 1\.7e-01"):
        gpu_checks.training_run(device, Clock(60))
    monkeypatch.setattr(gpu_checks, "curve", lambda device, steps: [1.0, float("nan") if device else 0.6])
    with pytest.raises(ValueError, match="losses differ"):
        gpu_checks.training_run(device, Clock(60))


LIMITS = gpu_limits.H200


def one_layer(device, peers, layer, batch, ours_of=gpu_layers._ours):
    return gpu_layers.one_layer(device, peers, ours_of, layer, batch, *gpu_layers.exactly(layer), LIMITS)


def test_a_wrong_layer_is_not_timed(monkeypatch):
    device = Device(dry=True)
    monkeypatch.setitem(gpu_layers.WORST, "fp32", 0.0)
    layer = gpu_layers.table(device)[0]
    row = one_layer(device, lambda *_: {}, layer, 1)
    entry = row["forward"]["fp32"]
    assert "not timed" in entry["wrong"]
    assert "times" not in entry
    assert "not timed" in "\n".join(gpu_table.layers({"batch 1": {"x": row}}))


class Stopwatch(Device):
    """A device whose clock runs: makes each call twice."""

    def milliseconds(self, calls, whole=False, repeats=0):
        found = {}
        for name, call in calls.items():
            call()
            start = time.perf_counter()
            call()
            found[name] = gpu_device.spread([1e3 * (time.perf_counter() - start)] * 4)
        return found


@pytest.fixture
def torch_on_the_cpu(monkeypatch):
    """PyTorch as the peer, its GPU calls standing still."""
    torch = pytest.importorskip("torch")
    for owner in (torch.Tensor, torch.nn.Module):
        monkeypatch.setattr(owner, "cuda", lambda self: self)
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: contextlib.nullcontext())
    monkeypatch.setattr(torch, "compile", lambda net: net)
    for module in (gpu_layers, gpu_networks):
        monkeypatch.setattr(module, "torch_gpu", lambda device: (torch, ""))


def test_layers_against_a_peer(torch_on_the_cpu):
    device = Stopwatch(dry=True)
    layer = next(layer for layer in gpu_layers.table(device) if layer.transposed)
    row = one_layer(device, partial(gpu_layers._peers, gpu_layers.torch_gpu(device)[0], layer), layer, 2)
    for what in ("forward", "grad_x", "grad_w"):
        for precision in gpu_layers.PRECISIONS:
            entry = row[what][precision]
            assert entry["step"] in LADDER
            assert entry["error"] <= gpu_layers.WORST[precision]
            assert entry["peer_error"] <= gpu_layers.WORST[precision]
            assert set(entry["times"]) == {"minunet", "cuDNN contiguous", "cuDNN channels_last"}
            assert entry["ratio"] > 0
            assert entry["limit"] in ("memory", gpu_limits.UNITS[precision])
            assert 0 <= entry["share_of_limit"] < 1


def test_networks_against_a_peer(torch_on_the_cpu):
    device = Stopwatch(dry=True)
    for what in ("inference", "training step"):
        entry = gpu_networks.one(device, what, 2, "bf16", Clock(60))
        assert set(entry["times"]) == {"minunet", "eager", "channels_last", "compiled"}
        assert entry["images_per_second"] > 0
        assert what != "inference" or entry["error"] <= gpu_networks.LOGITS["bf16"]
    found = gpu_networks.measure(device, Clock(-1))
    assert set(found.values()) == {"not measured: out of time"}


def test_times_become_rates():
    times = {"minunet": {"median_ms": 2.0}, "cuDNN a": {"median_ms": 3.0}, "cuDNN b": {"median_ms": 1.0}}
    entry = gpu_layers.rate(times, 4 * 10**10, 10**9, LIMITS, "fp32")
    assert entry["tflops"] == 20
    assert entry["gbytes"] == 500
    assert entry["ratio"] == 0.5  # against the faster
    assert (entry["limit"], entry["share_of_limit"]) == ("multiply-adds", round(4e10 / 67e12 / 2e-3, 3))
    assert gpu_layers.rate(times, 10**9, 48 * 10**8, LIMITS, "bf16")["limit"] == "memory"
    assert gpu_layers.rate(times, 10**9, 48 * 10**8, LIMITS, "bf16")["share_of_limit"] == 0.5
    assert "limit" not in gpu_layers.rate(times, 1, 1, LIMITS._replace(gbytes=None), "fp32")
    assert gpu_layers.rate(None, 1, 1, LIMITS, "fp32") == {"times": "not measured"}
    assert gpu_device.spread([4.0, 1.0, 2.0, 3.0]) == {"median_ms": 2.5, "low_ms": 2.0, "high_ms": 3.0}


def test_the_table_shows_measured_numbers():
    times = {"minunet": {"median_ms": 2.0, "low_ms": 1.9, "high_ms": 2.1}, "cuDNN a": {"median_ms": 3.0}}
    rates = gpu_layers.rate(times, 10**11, 10**9, LIMITS, "fp32")
    entry = {"step": "5_double_buffer", "error": 1e-7, "peer_error": 2e-7, **rates}
    row = {what: {"fp32": entry} for what in ("forward", "grad_x", "grad_w")}
    text = "\n".join(
        gpu_table.layers({"peer": "p", "batch 1": {"down0.1": row, "down0.2": "not measured: out of time"}})
    )
    numbers = r"1\.0e-07 +2\.0e-07 +2\.000 +5% +3\.000 +1\.50 +50\.0 +500 +75% multiply-adds"
    assert re.search(rf"down0\.1 +forward +fp32 +5_double_buffer +{numbers}", text)
    assert "down0.2    not measured: out of time" in text


def test_resources_are_reported_for_each_step(dry):
    found = json.loads((dry[0] / "results.json").read_text())["sections"]["resources"]["result"]
    if "skipped" in found:
        pytest.skip(found["skipped"])
    assert list(found) == list(LADDER)
    entry = found["7_tensor_tf32"]["64 x 64"]["conv2d"]["sm_90a"]
    assert entry["shared"] == 3 * 128 * 80  # of dynamic shared memory
    assert entry["spills"] == 0
    assert 0 < entry["occupancy"] <= 1
