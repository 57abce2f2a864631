"""The GPU bench's comparison of Numba's kernels with CUDA C++: checked first, launching told apart."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from bench import gpu, gpu_numba, gpu_table
from bench.gpu_device import Clock, Device
from minunet import backends
from minunet.backends import cuda_host

pytestmark = pytest.mark.skipif(not cuda_host.available(), reason=f"cuda_host: {cuda_host.reason()}")


class Apart(Device):
    """Makes each call once and says that it took a microsecond to launch."""

    def apart(self, call):
        call()
        return {"launch_us": 1.0, "kernel_ms": 2.5}


def test_numba_is_compared_with_cuda(monkeypatch):
    """With the reference in Numba's place, whose arrays are a dry run's."""
    monkeypatch.setattr(gpu_numba, "NUMBA", "reference")
    monkeypatch.setattr(gpu_numba, "CASES", 1)
    found = gpu_numba.measure(Apart(dry=True), Clock(60))
    assert found["conformance"]["failed"] == {} and found["conformance"]["passed"] > 50
    rows = {row: entry for row, entry in found.items() if isinstance(entry, dict) and row != "conformance"}
    assert len(rows) > 15
    for row, entry in rows.items():
        assert entry["error"] <= gpu_numba.WORST, row
        assert entry["times"] == {kind: {"launch_us": 1.0, "kernel_ms": 2.5} for kind in ("cuda", "numba")}
    lines = gpu_table.numba(found)
    assert any(re.search(r"max_pool2d +\S+ +1\.0 +2\.5000 +1\.0 +2\.5000 +- +-$", line) for line in lines), lines
    assert gpu.failures({"sections": {"numba": {"result": found}}}) == []


def test_launching_and_the_kernel_are_told_apart(monkeypatch):
    """With a stand-in for CuPy whose device works on its own time: a call takes it 3 ms, zeros 0.1 ms."""
    now, queued = [0.0], []

    class Event:
        def record(self):
            self.at = now[0]

        def synchronize(self):
            queued.clear()

    def spend(ms):
        now[0] += ms
        queued.append(ms)

    cuda_module = SimpleNamespace(
        Event=Event,
        get_elapsed_time=lambda a, b: b.at - a.at,
        Device=lambda: SimpleNamespace(synchronize=queued.clear),
    )
    zeros = SimpleNamespace(fill=lambda value: spend(0.1))
    cupy = SimpleNamespace(cuda=cuda_module, zeros=lambda size, dtype: zeros)
    monkeypatch.setattr(Device, "_cupy", staticmethod(lambda: cupy))
    device = Device(dry=True)
    assert device.apart(lambda: spend(3.0)) is None
    device.dry = False
    found = device.apart(lambda: spend(3.0))
    assert found["kernel_ms"] == 3.0
    assert 0 < found["launch_us"] < 1e4


def test_wrong_numba_kernels_are_not_timed(monkeypatch):
    monkeypatch.setattr(gpu_numba, "NUMBA", "reference")
    monkeypatch.setattr(gpu_numba, "WORST", -1.0)
    device = Apart(dry=True)
    operation = next(gpu_numba.operations(device, None, (1, 4, 4, 4)))
    entry = gpu_numba.one(device, operation, with_numba=True)
    assert "not timed" in entry["wrong"] and "times" not in entry
    found = {"numba": "reference", operation.row: entry}
    assert any("not timed" in line for line in gpu_table.numba(found))
    assert gpu.failures({"sections": {"numba": {"result": found}}})


def test_peers_of_numba():
    """PyTorch's calls are the same operations as the rows of the same name: their results have the same shapes."""
    torch, shape = pytest.importorskip("torch"), (2, 6, 8, 4)
    peers = gpu_numba._peers(torch, shape, where="cpu")
    device, seen = Device(dry=True), set()
    for operation in gpu_numba.operations(device, None, shape):
        if operation.row in peers:
            with backends.use_backend("reference"):
                y = backends.call(operation.row, *operation.arrays, **operation.options)
            theirs = peers[operation.row]()
            ours, theirs = (a[0] if isinstance(a, tuple) else a for a in (y, theirs))
            assert theirs.numel() == ours.size, operation.row
            seen.add(operation.row)
    assert seen == set(peers)
