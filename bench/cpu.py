"""Everything measured on a CPU in one go: `python -m bench cpu`. Progress goes to the terminal line by line."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from bench import layers, load, networks, peers, report, roofline

# Seconds of each part on the machine where they were noted, whose sgemm reached REFERENCE GFLOP/s.
REFERENCE = 200.0
FULL = {"layers": 150, "networks": 260, "family": 120}
QUICK = {"layers": 40, "networks": 35, "family": 15}
LARGE = {"least": 3, "most": 7, "seconds": 20.0}  # rounds of the wide network
BRIEF_WIDE = {"least": 3, "most": 5, "seconds": 10.0}  # of other wide networks
SMALL = {"least": 10, "most": 60, "seconds": 4.0}
BRIEF = {"least": 3, "most": 7, "seconds": 0.1, "turn": 0.004, "pause": 0.002}  # --quick's rounds of a layer


class Progress:
    """Prints lines with the time since the beginning, and keeps what went wrong."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.wrong: list[str] = []

    def line(self, text: str) -> None:
        print(f"[{time.perf_counter() - self.begin:4.0f} s] {text}", flush=True)

    def bad(self, text: str) -> None:
        self.wrong.append(text)
        self.line(f"NOT TIMED, {text}")


def measure(quick: bool = False) -> tuple[dict[str, Any], list[str]]:
    """(results as bench/results/cpu.json has them, what was not timed because a result of ours was wrong)."""
    progress, others, threads = Progress(), load.Others(), report.cores()
    versions = peers.versions()
    absent = [f"{name} ({why})" for name in peers.PEERS if (why := peers.missing(name))]
    if absent:
        progress.line(f"without {', '.join(absent)}")
    roof = roofline.measure(threads)
    parts = QUICK if quick else FULL
    minutes = sum(parts.values()) / 60 * max(1.0, REFERENCE / roof.gflops)
    progress.line(f"sgemm {roof.gflops} GFLOP/s, copy {roof.gbytes} GB/s; all will take about {minutes:.0f} minutes")
    results: dict[str, Any] = {
        "machine": report.machine(),
        "versions": versions,
        "quick": quick,
        "roof": {"sgemm_gflops": roof.gflops, "copy_gbytes": roof.gbytes},
        "layers": _layers(quick, roof, progress),
        "unet": {},
        "networks": {},
    }
    for name, (width, size) in networks.CASES.items():
        if not (quick and width > 16):
            results["unet"][name] = _unet(name, width, size, threads, quick, progress)
    for case in networks.FAMILY:
        if not (quick and case.width > 16):
            results["networks"][case.title()] = _other(case, threads, quick, progress)
    results["others_share"] = share = others.share()
    if share is not None and share > load.BUSY:
        progress.line(f"other programs took {share:.0%} of the processors: measure again when they are done")
    progress.line("done")
    return results, progress.wrong


def _layers(quick: bool, roof: roofline.Roof, progress: Progress) -> dict[str, dict[str, Any]]:
    """{set of layers: {layer: row}}; the first call of all compiles, which the check takes on itself."""
    sets = {"other kinds": list(layers.OTHERS)}
    for name, (width, size) in networks.CASES.items():
        if not (quick and width > 16):
            sets[name] = layers.unet(width, size)
    found: dict[str, dict[str, Any]] = {}
    for title, members in sets.items():
        found[title] = {}
        for layer in members:
            row = layers.measure(layer, roof, BRIEF if quick else None)
            found[title][layer.name] = row
            progress.line(f"{title}: {layer.name:15} {row['shape']:39} {_passes(row)}")
            for what in layers.PASSES:
                if "wrong" in row[what]:
                    progress.bad(f"{title}: {layer.name} {what}: {row[what]['wrong']}")
    return found


def _passes(row: dict[str, Any]) -> str:
    """GFLOP/s, times as fast as PyTorch, error; of each pass."""
    texts = []
    for what in layers.PASSES:
        entry = row[what]
        if "times" in entry:
            faster = f" x {entry['ratio']['median']:.2f}" if "ratio" in entry else ""
            texts.append(f"{what} {entry['gflops']:.0f}{faster} ({entry['error']:.0e})")
    return "; ".join(texts)


def _rounds(wide: bool, quick: bool) -> dict[str, Any]:
    return LARGE if wide else SMALL | ({"seconds": 1.0, "least": min(5, SMALL["least"])} if quick else {})


def _unet(name: str, width: int, size: int, threads: int, quick: bool, progress: Progress) -> dict[str, Any]:
    """All rows of one U-Net. With one thread as well, to see what the second brings."""
    model, wide = networks.network(width), width > 16
    rounds = _rounds(wide, quick)
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "inference": lambda: networks.inference(model, size, threads, rounds),
        "training_step": lambda: networks.training(model, size, threads, rounds | ({"seconds": 30.0} if wide else {})),
    }
    if threads > 1:
        runs["inference, 1 thread"] = lambda: networks.inference(model, size, 1, rounds)
        if not wide:
            runs["training_step, 1 thread"] = lambda: networks.training(model, size, 1, rounds)
    if wide:
        runs["predict"] = lambda: networks.predict(model, threads, rounds)
    found = _each(f"U-Net {name}", runs, progress)
    found["step_peak_mib"] = networks.peak_memory(width, size)
    progress.line(f"U-Net {name}: peak memory of a training step: {found['step_peak_mib']} MiB")
    return found


def _other(case: networks.Case, threads: int, quick: bool, progress: Progress) -> dict[str, Any]:
    """The rows of one case of another network."""
    model, measures = case.build(), {"inference": networks.inference, "training_step": networks.training}
    rounds = BRIEF_WIDE if case.width > 16 else _rounds(False, quick)
    runs = {w: partial(measures[w], model, case.size, threads, rounds, batch=case.batch) for w in case.runs}
    return _each(case.title(), runs, progress)


def _each(title: str, runs: dict[str, Callable[[], dict[str, Any]]], progress: Progress) -> dict[str, Any]:
    """{what: entry} of those whose result was right."""
    found: dict[str, Any] = {}
    for what, run in runs.items():
        try:
            found[what] = run()
        except networks.WrongResultError as error:
            progress.bad(f"{title}: {what}: {error}")
            continue
        progress.line(f"{title}: {what}: {_times(found[what])}")
    return found


def _times(entry: dict[str, Any]) -> str:
    texts = [f"{name} {t['median_ms']:.1f} ms" for name, t in entry["times"].items()]
    texts += [f"{name} NOT TIMED, {why}" for name, why in entry.get("wrong", {}).items()]
    return ", ".join(texts)
