"""Fair timing: everybody warmed up, rounds interleaved, median and spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def interleaved(
    contestants: dict[str, Callable[[], Any]],
    least: int,
    most: int | None = None,
    seconds: float = 0.0,
    warmup: int = 1,
    turn: float = 0.0,
    pause: float = 0.0,
) -> dict[str, list[float]]:
    """Seconds of a call, {name: [one a round]}; in every round each contestant has a turn, in a rotating order.

    least, most, seconds : at least `least` rounds (`least` alone: exactly so many), then more, up to `most`, while
                           fewer than `seconds` have passed
    turn  : a turn calls until so many seconds have passed, and counts the mean of its calls: short calls find the
            caches as they themselves leave them, not as the one before did
    pause : seconds of rest before a turn, until the threads of the contestant before have gone to sleep

    A machine whose speed drifts slows all contestants alike, and a different one goes first each time.
    """
    names = list(contestants)
    for name in names:
        for _ in range(warmup):
            contestants[name]()
    found: dict[str, list[float]] = {name: [] for name in names}
    begin, k = time.perf_counter(), 0
    while k < least or (k < (most or least) and time.perf_counter() - begin < seconds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            time.sleep(pause)
            found[name].append(_turn(contestants[name], turn))
        k += 1
    return found


def _turn(call: Callable[[], Any], least: float) -> float:
    start, calls = time.perf_counter(), 0
    while True:
        call()
        calls += 1
        passed = time.perf_counter() - start
        if passed >= least:
            return passed / calls


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds."""
    low, middle, high = (1e3 * q for q in _quartiles(seconds))
    return {"median_ms": round(middle, 4), "quartile1_ms": round(low, 4), "quartile3_ms": round(high, 4)}


def ratio(peer: list[float], ours: list[float]) -> dict[str, float]:
    """peer / ours round by round: how many times faster we are. Median and quartiles."""
    low, middle, high = _quartiles([p / o for p, o in zip(peer, ours)])
    return {"median": round(middle, 3), "quartile1": round(low, 3), "quartile3": round(high, 3)}


def table(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Times of all, and against the fastest peer, if there is one, how many times faster "minunet" is."""
    times = {name: summary(s) for name, s in seconds.items()}
    peers = [name for name in times if name != "minunet"]
    if not peers:
        return {"times": times}
    best = min(peers, key=lambda name: times[name]["median_ms"])
    return {"times": times, "best_peer": best, "ratio": ratio(seconds[best], seconds["minunet"])}


def _quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
