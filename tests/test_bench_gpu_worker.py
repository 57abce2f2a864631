"""The GPU bench's worker, which may be lost, and its clock: what a dry run does not reach."""

from __future__ import annotations

import math
import os
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from bench import gpu_device
from bench import gpu_worker as workers
from bench.gpu_device import Device, LostError
from minunet.backends import cuda_host

pytestmark = pytest.mark.skipif(not cuda_host.available(), reason=f"cuda_host: {cuda_host.reason()}")

AMPLE = 600.0  # seconds: for a worker that begins on a busy machine as well


# --- The worker's process. These run in it, found by their names.
def finds(device, clock):
    return {"process": os.getpid(), "seconds": clock.seconds}


def fails(device, clock):
    raise RuntimeError("one\nkernel is wrong")


def leaves(device, clock):
    os._exit(3)


def hangs(device, clock):
    device.keep({"layer 1": 0.5})
    device.attempt("layer 2", threading.Event().wait)


def loses(device, clock):
    """The third of four jobs breaks the device, whenever it runs."""

    def kernel():
        device.wait = gone
        raise RuntimeError("illegal address")

    jobs = {"a": int, "b": int, "c": kernel, "d": int}
    return {name: device.attempt(name, job) for name, job in jobs.items()}


def loses_always(device, clock):
    device.wait = gone
    return {"until": "here"}


def gone():
    raise OSError("the context is gone")


@pytest.fixture(scope="module")
def worker():
    with workers.Worker(dry=True) as worker:
        yield worker


def test_a_worker_goes_on_after_a_failure(worker):
    first = worker.run(finds, AMPLE)["result"]
    assert first["process"] != os.getpid()
    assert first["seconds"] <= AMPLE
    assert worker.run(fails, AMPLE) == {"failed": "RuntimeError: one kernel is wrong"}
    assert worker.run(finds, AMPLE)["result"]["process"] == first["process"], "an error costs no new process"


def test_what_loses_the_device_is_left_out_the_next_time(worker):
    found = worker.run(loses, AMPLE)["result"]
    assert found["a"] == found["d"] == (0, "")
    assert found["c"] == (None, "RuntimeError: illegal address; the device was lost")
    entry = worker.run(loses_always, AMPLE)
    assert entry["result"] == {"until": "here"}
    assert entry["failed"] == "at its end; the device was lost (OSError: the context is gone)"
    assert "exit code 3" in worker.run(leaves, AMPLE)["failed"]
    assert worker.run(finds, AMPLE)["result"]["process"] > 0, "a new process takes over"


def test_what_hangs_says_where(monkeypatch):
    """In a process of its own, since the times are made short; what it started ends with it."""
    monkeypatch.setattr(workers, "GRACE", 0.0)
    with workers.Worker(dry=True) as worker:
        worker.run(finds, AMPLE)
        process = worker.process
        monkeypatch.setattr(workers, "ANSWER", 1.0)
        entry = worker.run(hangs, 1.0)
        assert worker.connection is None
    assert not process.is_alive()
    # The worker has the module's own grace; the command gives up before it, or hears where it was.
    assert entry["failed"].startswith("did not end")


def test_a_late_section_gives_what_it_has(monkeypatch):
    """The answer that a worker's timer sends, without its exit."""
    sent = []
    device = Device(dry=True)
    device.keep({"layer 1": 0.5})
    device.at = "layer 2"
    connection = SimpleNamespace(send=sent.append)
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    workers._late(connection, threading.Lock(), device)
    assert sent == [("gone", {"failed": "did not end in time, at: layer 2", "result": {"layer 1": 0.5}})]
    assert ended == [1]


def test_attempts():
    device = Device(dry=True)
    assert device.attempt("good", lambda: 7) == (7, "")
    assert device.attempt("bad", lambda: 1 // 0)[1].startswith("ZeroDivisionError")
    device.start({"bad": "it broke the device"})
    assert device.attempt("bad", lambda: 7) == (None, "it broke the device")
    device.wait = gone
    with pytest.raises(LostError, match=r"worse: ZeroDivisionError.*the device was lost") as caught:
        device.attempt("outer", lambda: device.attempt("worse", lambda: 1 // 0))
    assert caught.value.name == "worse"


# --- A stand-in for CuPy whose device works on its own time
class Cupy:
    """Zeros take 0.1 ms; what calls take they add to `now` themselves. Events see the device's time only."""

    def __init__(self):
        self.now, self.fills, self.log = 0.0, 0, []
        outer = self

        class Event:
            def record(self):
                self.at = outer.now

            def synchronize(self):
                pass

        class Stream:
            def __init__(self, non_blocking):
                assert non_blocking, "the default stream cannot be captured"

            __enter__ = lambda self: self  # noqa: E731
            __exit__ = lambda self, *_: None  # noqa: E731

            def synchronize(self):
                outer.log.append("synchronize")

            def begin_capture(self):
                outer.log.append("begin")

            def end_capture(self):
                outer.log.append("end")
                return SimpleNamespace(launch=lambda: outer.log.append("launch"))

        class Pool:
            malloc = None

        class Using(Stream):
            def __init__(self, malloc):
                pass

        self.cuda = SimpleNamespace(
            Event=Event,
            Stream=Stream,
            MemoryPool=Pool,
            using_allocator=Using,
            get_elapsed_time=lambda a, b: b.at - a.at,
            Device=lambda: SimpleNamespace(synchronize=lambda: None),
        )

    def zeros(self, size, dtype):
        return SimpleNamespace(fill=self._fill)

    def _fill(self, value):
        self.fills += 1
        self.now += 0.1


@pytest.fixture
def timed(monkeypatch):
    """(device, CuPy's stand-in)"""
    cupy = Cupy()
    monkeypatch.setattr(Device, "_cupy", staticmethod(lambda: cupy))
    monkeypatch.setattr(gpu_device, "ENOUGH", math.inf)  # all repeats, however long the host sleeps
    device = Device(dry=True)
    device.dry = False
    return device, cupy


def test_times_are_the_devices_own(timed):
    device, cupy = timed

    def slow_to_launch():
        time.sleep(2e-3)
        cupy.now += 3.0

    def fast():
        cupy.now += 1.0

    found = device.milliseconds({"a": slow_to_launch, "b": fast})
    assert found["a"] == {"median_ms": 3.0, "low_ms": 3.0, "high_ms": 3.0}
    assert found["b"]["median_ms"] == 1.0
    assert cupy.fills >= gpu_device.REPEATS * 30, "zeros must outlast a launch of 2 ms"
    before = cupy.fills
    device.milliseconds({"a": slow_to_launch}, whole=True, repeats=5)
    assert cupy.fills == before + gpu_device.WARMUP + 5, "with the host's part: L2 is flushed, and no more"


def test_long_calls_are_repeated_less(timed, monkeypatch):
    device, _ = timed
    monkeypatch.setattr(gpu_device, "ENOUGH", -1.0)
    calls = []
    device.milliseconds({"a": lambda: calls.append(1)})
    assert len(calls) == gpu_device.WARMUP + gpu_device.LEAST


def test_a_graph_is_captured_when_all_is_warm(timed):
    device, cupy = timed
    array = np.zeros(3)

    def run():
        cupy.log.append("run")
        return array

    replay, result = device.captured(run)
    assert result is array
    assert cupy.log == ["run", "run", "synchronize", "begin", "run", "end"]
    assert replay() is array
    assert cupy.log[-1] == "launch"

    def waits():
        if "begin" in cupy.log[6:]:
            raise RuntimeError("not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="capturing"):
        device.captured(waits)
    assert cupy.log[-1] == "end", "a capture that failed is ended"


def test_clocks_where_there_is_no_tool(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "no nvidia-smi" in gpu_device.clocks()
