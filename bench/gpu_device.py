"""Where the GPU bench runs: a GPU by CuPy, or for a dry run the host that emulates one, whose times mean nothing."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minunet import backends

FLUSH = 256 << 20  # bytes written between two calls: several times any L2
REPEATS, WARMUP = 12, 3
LEAST, ENOUGH = 3, 2.0  # repeats there are at least; seconds after which there are no more
QUEUED, LONG = 8, 20.0  # calls in a row, as long as they take no more than so many ms together
CLOCK_RATE = 13  # cudaDevAttrClockRate: kHz; the structure of properties lost it in CUDA 13
MOST_FILLS = 64  # writes of zeros queued before a call


class LostError(Exception):
    """The device no longer answers after `name`, and does not in this process any more."""

    def __init__(self, name: str, why: str):
        super().__init__(f"{name}: {why}; the device was lost")
        self.name, self.why = name, why


def said(error: BaseException, most: int = 300) -> str:
    """An error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:most]}"


class Device:
    """A backend to run on, and a clock. `dry`: nothing is timed, `milliseconds` gives None.

    found : what the running section has until now     at : what it is doing
    broke : {name: why} of what lost the device in an earlier attempt, and is left out
    """

    def __init__(self, dry: bool):
        self.dry = dry
        self.backend = "cuda_host" if dry else "cuda"
        self.module = backends.get(self.backend)
        self._flush: Any = None
        self.start({})

    def start(self, broke: dict[str, str]) -> None:
        """A new section begins."""
        self.broke, self.found, self.at = broke, {}, "its start"

    def keep(self, found: dict[str, Any]) -> dict[str, Any]:
        """The dictionary itself, which the section fills as it goes: what is known of it should it hang."""
        self.found = found
        return found

    def attempt(self, name: str, work: Callable[[], Any]) -> tuple[Any, str]:
        """(what work() gives, ""), or (None, what went wrong): one failure must not end the others.

        Raises LostError where the device does not answer afterwards.
        """
        if name in self.broke:
            return None, self.broke[name]
        self.at = name
        try:
            return work(), ""
        except LostError:
            raise
        except Exception as error:
            why = said(error)
        try:
            self.wait()
        except Exception as error:
            raise LostError(name, why) from error
        self.free()
        return None, why

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

    def free(self) -> None:
        """Give back the memory that CuPy and PyTorch keep for later: each is short of what the other holds."""
        if self.dry:
            return
        self._cupy().get_default_memory_pool().free_all_blocks()
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()

    def milliseconds(
        self, calls: dict[str, Callable[[], Any]], whole: bool = False, repeats: int = REPEATS
    ) -> dict[str, dict[str, float]] | None:
        """{name: median_ms, low_ms, high_ms} of calls in turn, a different one first each time; None in a dry run,
        which makes each call once.

        Before each call zeros are written over L2, and over again until the host has made the call, so that the time is
        the device's alone, whoever launches; `whole`: with the host's part, as a program that waits for it sees it.
        Events on the default stream, which is CuPy's and PyTorch's as well.
        """
        if self.dry:
            for call in calls.values():
                call()
            return None
        hosts = {name: self._launching(call) for name, call in calls.items()}
        fill = statistics.median(self._timed(self._zeros, lambda: None) for _ in range(WARMUP))
        names = list(calls)
        found: dict[str, list[float]] = {name: [] for name in names}
        begin = time.monotonic()
        for turn in range(repeats):
            if turn >= LEAST and time.monotonic() - begin > ENOUGH:
                break
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                fills = 1 if whole else min(MOST_FILLS, 2 + int(1.5 * hosts[name] / fill))
                found[name].append(self._timed(calls[name], self._zeros, fills))
        return {name: spread(times) for name, times in found.items()}

    def _launching(self, call: Callable[[], Any]) -> float:
        """Milliseconds that the host spends on a call, once it is warm."""
        for _ in range(WARMUP):
            start = time.perf_counter()
            call()
            host = 1e3 * (time.perf_counter() - start)
            self.wait()
        return host

    def _zeros(self) -> None:
        if self._flush is None:
            self._flush = self._cupy().zeros(FLUSH, np.uint8)
        self._flush.fill(0)

    def _timed(self, work: Callable[[], Any], before: Callable[[], Any], times: int = 1) -> float:
        """Milliseconds between two events around work(), `before` queued so many times ahead of it."""
        cuda = self._cupy().cuda
        start, end = cuda.Event(), cuda.Event()
        for _ in range(times):
            before()
        start.record()
        work()
        end.record()
        end.synchronize()
        return cuda.get_elapsed_time(start, end)

    def apart(self, call: Callable[[], Any]) -> dict[str, float] | None:
        """{"launch_us", "kernel_ms"}: medians of what the host spends on a call, and of what the device does; None in a
        dry run, which makes the call once.

        For the second, calls are queued while the device is still writing zeros, so that none waits for its launch.
        """
        if self.dry:
            call()
            return None
        fastest = [self._timed(call, lambda: None) for _ in range(WARMUP)][-1]
        fill = statistics.median(self._timed(self._zeros, lambda: None) for _ in range(WARMUP))
        n = max(1, min(QUEUED, int(LONG / max(fastest, 1e-3))))
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
        for _ in range(REPEATS):
            kernels.append(self._timed(several, self._zeros, fills) / n)
        return {
            "launch_us": round(1e6 * statistics.median(launches), 1),
            "kernel_ms": round(statistics.median(kernels), 5),
        }

    def captured(self, run: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
        """(a call that replays run() as a CUDA graph, one launch for all its kernels; the array that it writes).

        The graph's memory stays its own: addresses in it are fixed. Raises what CuPy does where run() waits for the
        device or takes memory that the pool does not have.
        """
        cuda = self._cupy().cuda
        stream, pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
        with cuda.using_allocator(pool.malloc), stream:
            for _ in range(2):  # kernels loaded, memory in the pool
                run()
            stream.synchronize()
            stream.begin_capture()
            try:
                result = run()
            finally:
                graph = stream.end_capture()

        def replay() -> Any:
            graph.launch()
            return result

        replay.memory = pool  # lives as long as the call
        return replay, result

    def describe(self) -> dict[str, Any]:
        """Device, versions, clocks, as far as they can be read."""
        if self.dry:
            return {"device": "none: a dry run on this machine's processor", "measured": False}
        cupy = self._cupy()
        runtime, number = cupy.cuda.runtime, cupy.cuda.Device().id
        properties = runtime.getDeviceProperties(number)
        return {
            "device": properties["name"].decode(),
            "measured": True,
            "architecture": f"sm_{self.architecture}",
            "multiprocessors": properties["multiProcessorCount"],
            "clock_mhz": runtime.deviceGetAttribute(CLOCK_RATE, number) // 1000,
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


def clocks() -> str:
    """What nvidia-smi says of clocks, power and temperature now; why not, where it does not."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "not known: there is no nvidia-smi"
    asked = "--query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_throttle_reasons.active"
    try:
        done = subprocess.run([tool, asked, "--format=csv,noheader"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not known: {said(error)}"
    return " ".join((done.stdout or done.stderr).split())


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
