"""How long scores and weight maps take: `python -m bench scores`, on the real ISBI stack where it is found.

The table shows processor time, of all threads together: sections are shared among the cores, so that two free cores
take half of it by the clock, which other work on the machine stretches. The clock's best is kept in the file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from bench.report import load, machine, store

FILE = "scores.json"
REPEATS = 3


def keep() -> None:
    """Measure, print, and keep the result in bench/results."""
    results = measure()
    store(FILE, results)
    print(table(results))


def measure() -> dict[str, Any]:
    """Seconds of all ISBI scores of a stack, for two predictions, and of the weight map of its first section."""
    from scipy.ndimage import gaussian_filter

    from minunet.data import instances_from_labels, load_isbi, weight_map
    from minunet.metrics import isbi_scores

    where, data = machine(), load_isbi(None)
    blurred = np.stack([gaussian_filter(s.astype(np.float32), 2) for s in data.images]) / 255
    smooth = np.stack([gaussian_filter(s.astype(np.float32), 1.5) for s in data.labels])
    cells = instances_from_labels(data.labels[0])
    sections, h, w = data.labels.shape
    cases: dict[str, Callable[[], object]] = {
        "all ISBI scores, a prediction close to the truth": lambda: isbi_scores(data.labels, (smooth + blurred) / 2),
        "all ISBI scores, the blurred image as prediction": lambda: isbi_scores(data.labels, blurred),
        f"weight map, one section with {cells.max()} cells": lambda: weight_map(cells),
    }
    isbi_scores(data.labels[:1], blurred[:1])  # compiles
    weight_map(cells)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(REPEATS):  # in turn, so that other work on the machine meets all of them
        for name, run in cases.items():
            clock, processor = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.process_time() - processor, time.perf_counter() - clock))
    rows = {
        name: {"cpu_seconds": round(median(c for c, _ in t), 4), "best_seconds": round(min(s for _, s in t), 4)}
        for name, t in times.items()
    }
    return {
        "stack": f"{sections} x {h} x {w}",
        "synthetic": data.synthetic,
        "machine": where,
        "repeats": REPEATS,
        "rows": rows,
    }


def table(results: dict[str, Any] | None = None) -> str:
    """The result as a table: that in bench/results, or the one given."""
    results = results or load(FILE)
    if results is None:
        return "not measured"
    lines = ["| what | processor time |", "|---|---|"]
    for name, r in results["rows"].items():
        lines.append(f"| {name} | {r['cpu_seconds']:.3g} s |")
    of = "drawn sections" if results["synthetic"] else "ISBI 2012's training stack"
    m, n = results["machine"], results["repeats"]
    where = f"{m['cores']} cores of {m['processor']}, all threads' time added, median of {n}."
    return "\n".join([*lines, f"\n{of}, {results['stack']}; {where}"])
