"""Fair timing: everybody warmed up, rounds interleaved, median and spread."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any


def interleaved(contestants: dict[str, Callable[[], Any]], rounds: int, warmup: int = 3) -> dict[str, list[float]]:
    """Seconds of each call, {name: [one a round]}; in every round each contestant runs once, in a rotating order.

    A machine whose speed drifts slows all contestants alike, and a different one goes first each time.
    """
    names = list(contestants)
    for name in names:
        for _ in range(warmup):
            contestants[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            start = time.perf_counter()
            contestants[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds."""
    low, middle, high = (1e3 * q for q in statistics.quantiles(seconds, n=4, method="inclusive"))
    return {"median_ms": round(middle, 3), "quartile1_ms": round(low, 3), "quartile3_ms": round(high, 3)}


def ratio(peer: list[float], ours: list[float]) -> dict[str, float]:
    """peer / ours round by round: how many times faster we are. Median and quartiles."""
    low, middle, high = statistics.quantiles([p / o for p, o in zip(peer, ours)], n=4, method="inclusive")
    return {"median": round(middle, 3), "quartile1": round(low, 3), "quartile3": round(high, 3)}
