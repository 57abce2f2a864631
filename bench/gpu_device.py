"""Where the GPU bench runs: a GPU by CuPy, or for a dry run the host that emulates one, whose times mean nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minunet import backends

FLUSH = 256 << 20  # bytes written between two calls: several times any L2
REPEATS, WARMUP = 12, 3
QUEUED, LONG = 8, 20.0  # calls in a row, as long as they take no more than so many ms together


class Device:
    """A backend to run on, and a clock. `dry`: nothing is timed, `milliseconds` gives None."""

    def __init__(self, dry: bool):
        self.dry = dry
        self.backend = "cuda_host" if dry else "cuda"
        self.module = backends.get(self.backend)
        self._flush: Any = None

    @property
    def architecture(self) -> int:
        return self.module.device.architecture()

    def to(self, array: np.ndarray) -> Any:
        return self.module.asarray(array)

    def numpy(self, array: Any) -> np.ndarray:
        return self.module.numpy(array)

    def wait(self) -> None:
        if not self.dry:
            self._cupy().cuda.Device().synchronize()

    def milliseconds(self, calls: dict[str, Callable[[], Any]]) -> dict[str, dict[str, float]] | None:
        """{name: median_ms, low_ms, high_ms} of calls that run in turn, L2 flushed before each; None in a dry run,
        which makes each call once.

        Events on the default stream, which is CuPy's and PyTorch's as well.
        """
        if self.dry:
            for call in calls.values():
                call()
            return None
        cuda = self._cupy().cuda
        if self._flush is None:
            self._flush = self._cupy().zeros(FLUSH, np.uint8)
        found: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(WARMUP + REPEATS):
            for name, call in calls.items():
                self._flush.fill(turn)
                start, end = cuda.Event(), cuda.Event()
                start.record()
                call()
                end.record()
                end.synchronize()
                if turn >= WARMUP:
                    found[name].append(cuda.get_elapsed_time(start, end))
        return {name: spread(times) for name, times in found.items()}

    def apart(self, call: Callable[[], Any]) -> dict[str, float] | None:
        """{"launch_us", "kernel_ms"}: medians of what the host spends on a call, and of what the device does; None in a
        dry run, which makes the call once.

        For the second, calls are queued while the device is still writing zeros, so that none waits for its launch.
        """
        if self.dry:
            call()
            return None
        cuda = self._cupy().cuda
        if self._flush is None:
            self._flush = self._cupy().zeros(FLUSH, np.uint8)

        def timed(work: Callable[[], Any], before: Callable[[], Any]) -> float:  # ms
            start, end = cuda.Event(), cuda.Event()
            before()
            start.record()
            work()
            end.record()
            end.synchronize()
            return cuda.get_elapsed_time(start, end)

        whole = [timed(call, lambda: None) for _ in range(WARMUP)][-1]
        fill = statistics.median(timed(lambda: self._flush.fill(0), lambda: None) for _ in range(WARMUP))
        n = max(1, min(QUEUED, int(LONG / max(whole, 1e-3))))
        launches, kernels = [], []

        def several() -> None:
            for _ in range(n):
                call()

        for _ in range(REPEATS):
            start = time.perf_counter()
            several()
            launches.append((time.perf_counter() - start) / n)
            self.wait()
        fills = 2 + int(2e3 * n * statistics.median(launches) / fill)

        def busy() -> None:
            for _ in range(fills):
                self._flush.fill(0)

        for _ in range(REPEATS):
            kernels.append(timed(several, busy) / n)
        return {
            "launch_us": round(1e6 * statistics.median(launches), 1),
            "kernel_ms": round(statistics.median(kernels), 5),
        }

    def describe(self) -> dict[str, Any]:
        """Device, versions, clocks, as far as they can be read."""
        if self.dry:
            return {"device": "none: a dry run on this machine's processor", "measured": False}
        cupy = self._cupy()
        runtime, properties = cupy.cuda.runtime, cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        return {
            "device": properties["name"].decode(),
            "measured": True,
            "architecture": f"sm_{self.architecture}",
            "multiprocessors": properties["multiProcessorCount"],
            "clock_mhz": properties.get("clockRate", 0) // 1000 or "unknown",
            "memory_gib": round(properties["totalGlobalMem"] / 2**30, 1),
            "l2_mib": round(properties["l2CacheSize"] / 2**20, 1),
            "driver": runtime.driverGetVersion(),
            "runtime": runtime.runtimeGetVersion(),
            "cupy": cupy.__version__,
        }

    @staticmethod
    def _cupy() -> Any:
        from minunet.backends import cuda

        return cuda.cupy()[0]


def spread(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    quarter = len(ordered) // 4
    return {
        "median_ms": round(statistics.median(ordered), 5),
        "low_ms": round(ordered[quarter], 5),
        "high_ms": round(ordered[-1 - quarter], 5),
    }


class Clock:
    """A budget of seconds: `over()` when it is spent."""

    def __init__(self, seconds: float):
        self.start, self.seconds = time.monotonic(), seconds

    def spent(self) -> float:
        return time.monotonic() - self.start

    def over(self) -> bool:
        return self.spent() > self.seconds
