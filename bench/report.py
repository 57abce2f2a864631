"""README's tables, written between markers from measured files and from the code. No number is typed by hand."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minunet.errors import UserError
from minunet.files import atomic_write

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
READING = (  # the order in which a newcomer reads, and what each place holds
    ("minunet/tensor.py", "Tensor and tape: what a gradient is here"),
    ("minunet/ops", "the operations: formula, derivative, policy, once"),
    ("minunet/contract", "one row a kernel: shapes, FLOPs, tolerance"),
    ("minunet/backends/__init__.py", "the gate that every kernel call passes"),
    ("minunet/backends/reference", "every kernel as its formula, float64"),
    ("minunet/backends/cpu", "every kernel fast: LLVM vectors, Winograd, threads"),
    ("minunet/nn", "layers, initialisers, optimisers"),
    ("minunet/models", "the networks, as their figures"),
    ("minunet/data", "image files, ISBI 2012, augmentation, weight maps, tiles"),
    ("minunet/metrics", "the challenge's scores, exactly"),
    ("minunet/training", "batches, loop, output folder"),
)


def machine() -> dict[str, Any]:
    """Processor, cores and system."""
    from minunet.training.folder import processor

    return {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "system": platform.system()}


def speed(results: dict[str, Any] | None = None) -> str:
    """Whole networks against PyTorch, from bench/results/cpu.json or the results given."""
    results = results or _read("cpu.json")
    if results is None:
        return "not measured"
    rows = [
        "| U-Net | what | minunet | PyTorch (its best) | times as fast | quartiles |",
        "|---|---|---|---|---|---|",
    ]
    for name, case in results["unet"].items():
        for what in ("training_step", "inference"):
            entry = case[what]
            ours, theirs = entry["times"]["minunet"]["median_ms"], entry["times"][entry["best_peer"]]["median_ms"]
            r = entry["ratio"]
            rows.append(
                f"| {name} | {what.replace('_', ' ')} | {ours:.1f} ms | {theirs:.1f} ms"
                f" ({entry['best_peer'].removeprefix('PyTorch ')}) | **{r['median']:.2f}** |"
                f" {r['quartile1']:.2f} - {r['quartile3']:.2f} |"
            )
        ours, theirs = (case["step_peak_mib"][k] / 1024 for k in ("minunet", "torch"))
        rows.append(f"| {name} | training step, peak memory | {ours:.2f} GiB | {theirs:.2f} GiB | | |")
    m, v = results["machine"], results["versions"]
    rows.append(
        f"\nfloat32, batch 1, {m['cores']} cores of {m['processor']}, PyTorch {v['torch']}, Numba {v['numba']}. Medians"
        " of interleaved repeats in one process, after both gradients were found equal."
    )
    return "\n".join(rows)


def isbi() -> str:
    """What the default run reached on the real stack, from bench/results/isbi.json (the run's metrics.json)."""
    run = _read("isbi.json")
    if run is None or run["data"]["synthetic"]:
        return "not measured"
    names = ("v_rand", "v_info", "rand_error", "pixel_error", "warping_error")
    s = {k: v["value"] for k, v in run["scores"].items()}
    cells = [f"{s[n]:.6f}" if n == "warping_error" else f"{s[n]:.4f}" for n in names]
    rows = [
        "| held-out V_Rand | V_Info | Rand error | pixel error | warping error | wrong pixels at 0.5 | steps | time |",
        "|---|---|---|---|---|---|---|---|",
        f"| {' | '.join(cells)} | {s['pixel_disagreement']:.2%} | {run['steps']:,} | {run['seconds'] / 60:.1f} min |",
        f"\nThe default run, width {run['config']['width']}, seed {run['config']['seed']}, {run['threads']} threads of"
        f" {run['machine']['processor']}; sections {run['held_out'][0]} to {run['held_out'][-1]} held out.",
    ]
    return "\n".join(rows)


def printed() -> str:
    """What the default run on the real stack printed at its end (the run's summary.txt)."""
    file = RESULTS / "isbi.txt"
    if not file.is_file():
        return "not measured"
    return "".join(f"    {line}\n" if line else "\n" for line in file.read_text(encoding="utf-8").splitlines()).rstrip()


def reading() -> str:
    """The reading order, with the lines each place has."""
    rows = ["| read | lines | what |", "|---|---|---|"]
    for place, what in READING:
        path = ROOT / place
        files = sorted(path.glob("**/*.py")) if path.is_dir() else [path]
        lines = sum(len(f.read_text(encoding="utf-8").splitlines()) for f in files)
        rows.append(f"| [{place}]({place}) | {lines} | {what} |")
    return "\n".join(rows)


def coverage() -> str:
    """Which backend has which kernel."""
    from minunet import backends
    from minunet.contract import ROWS

    names = backends.installed()
    rows = [f"| stem | kernels | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for stem in dict.fromkeys(row.stem for row in ROWS.values()):
        kernels = [row.name for row in ROWS.values() if row.stem == stem]
        has = [f"{sum(k in backends.get(n).kernels for k in kernels)} of {len(kernels)}" for n in names]
        rows.append(f"| {stem} | {', '.join(kernels)} | {' | '.join(has)} |")
    return "\n".join(rows)


SECTIONS: dict[str, Callable[[], str]] = {
    "printed": printed,
    "isbi": isbi,
    "speed": speed,
    "reading": reading,
    "coverage": coverage,
}


def rewrite(text: str, name: str = "README.md") -> str:
    """`text` with every section between its markers made anew. Raises UserError where a marker is missing."""
    for section, make in SECTIONS.items():
        begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise UserError(f"{name}: needs the lines {begin} and {end} once each; put them where the table belongs")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{make()}\n\n{end}{rest.split(end)[1]}"
    return text


def rewrite_readme(readme: Path = ROOT / "README.md") -> None:
    """Bring README's tables up to date."""
    text = rewrite(readme.read_text(encoding="utf-8"), readme.name)
    with atomic_write(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _read(name: str) -> dict[str, Any] | None:
    file = RESULTS / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
