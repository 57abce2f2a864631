"""README's tables, written between markers from measured files and from the code. No number is typed by hand."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from bench.load import BUSY
from bench.peers import NOT_INSTALLED, PEERS, of
from minunet.errors import UserError
from minunet.files import atomic_write

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
LAYERS_PICTURE = "docs/cpu_layers.png"
LAYER_TOLERANCE = 2e-5  # error of a layer's result above which it is not timed: norm over norm, against float64
RUNS = {  # what is measured of a network, and how README calls it
    "inference": "inference",
    "inference, 1 thread": "inference, 1 thread",
    "predict": "512 x 512 image, mirrored context",
    "training_step": "training step",
    "training_step, 1 thread": "training step, 1 thread",
}
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

    return {"processor": processor(), "cores": cores(), "system": platform.system()}


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def speed(results: dict[str, Any] | None = None) -> str:
    """Whole networks, and single layers, against the peers: from bench/results/cpu.json or the results given."""
    stored = results is None
    results = results or load("cpu.json")
    if results is None:
        return "not measured"
    rows = [
        f"| U-Net | what | minunet | {' | '.join(PEERS)} | times as fast as the best | quartiles |",
        f"|---|---|---|{'---|' * len(PEERS)}---|---|",
    ]
    for name, case in results["unet"].items():
        for what, label in RUNS.items():
            if what in case:
                rows.append(f"| {name} | {label} | {_network_cells(case[what], results['versions'], what)} |")
        if "step_peak_mib" in case:
            peak = {k: f"{v / 1024:.2f} GiB" for k, v in case["step_peak_mib"].items()}
            cells = [peak["minunet"], peak.get("torch", "not measured"), *[""] * len(PEERS)]
            rows.append(f"| {name} | training step, peak memory | {' | '.join(cells)} | |")
    m, v = results["machine"], results["versions"]
    packages = {peer: v.get(needs[0]) for peer, (_, needs) in PEERS.items()}
    names = [f"{peer} {number}" for peer, number in packages.items() if number not in (None, NOT_INSTALLED)]
    rows.append(
        f"\nfloat32, batch 1, {m['cores']} cores of {m['processor']}; {', '.join(names)}, Numba {v['numba']}. Medians"
        " of interleaved repeats in one process, each peer in its best configuration; inference with weights that stand"
        " still on all sides, as `minunet predict` has them. Timed only after a check:"
        f" {_checks(results)}.{_busy(results)}"
    )
    return "\n".join([*rows, *network_lines(results), *layer_lines(results, stored)])


def _checks(results: dict[str, Any]) -> str:
    """What was looked at before timing, as far as the results tell."""
    said = ["gradients within 1e-3 (cosine distance) of PyTorch's"]
    if all("errors" in case[what] for case in results["unet"].values() for what in case if what.startswith("infer")):
        said.insert(0, "logits within 1e-3 of the direct algorithm's")
    return ", ".join(said)


def _busy(results: dict[str, Any]) -> str:
    share = results.get("others_share")
    return f" Other programs took {share:.0%} of the processors meanwhile." if share and share > BUSY else ""


def _network_cells(entry: dict[str, Any], versions: dict[str, str], what: str) -> str:
    """Ours, each peer's best configuration or why there is none, and the ratio."""
    cells = [f"{entry['times']['minunet']['median_ms']:.1f} ms"]
    for peer, (_, packages) in PEERS.items():
        times = [t["median_ms"] for name, t in entry["times"].items() if of(name) == peer]
        if times:
            cells.append(f"{min(times):.1f} ms")
        elif what.startswith("training_step") and peer != "PyTorch":
            cells.append("")  # it does not train
        elif any(of(name) == peer for name in entry.get("wrong", {})):
            cells.append("wrong result")
        else:
            absent = any(versions.get(p) == NOT_INSTALLED for p in packages)
            cells.append(NOT_INSTALLED if absent else "not measured")
    r = entry.get("ratio")
    cells += [f"**{r['median']:.2f}**", f"{r['quartile1']:.2f} - {r['quartile3']:.2f}"] if r else ["", ""]
    return " | ".join(cells)


def network_lines(results: dict[str, Any]) -> list[str]:
    """A table of the other networks, against PyTorch."""
    cases = {title: case for title, case in results.get("networks", {}).items() if case}
    if not cases:
        return ["\nOther networks: not measured."]
    lines = ["\n| network | what | minunet | PyTorch | times as fast | quartiles |", "|---|---|---|---|---|---|"]
    for title, case in cases.items():
        for what, label in RUNS.items():
            if what in case:
                times = {of(name): t["median_ms"] for name, t in _best_last(case[what]["times"])}
                cells = [f"{times[who]:.1f} ms" if who in times else "not measured" for who in ("minunet", "PyTorch")]
                r = case[what].get("ratio")
                cells += [f"**{r['median']:.2f}**", f"{r['quartile1']:.2f} - {r['quartile3']:.2f}"] if r else ["", ""]
                lines.append(f"| {title} | {label} | {' | '.join(cells)} |")
    lines.append(
        "\nWith batch-norm, which both sides fold into the convolutions for inference. Where rounding decides (places"
        " of maxima) and whole results part, each convolution was held to a layer's tolerance instead."
    )
    return lines


def _best_last(times: dict[str, dict[str, float]]) -> list[tuple[str, dict[str, float]]]:
    """The contestants, the fastest last."""
    return sorted(times.items(), key=lambda item: -item[1]["median_ms"])


def layer_lines(results: dict[str, Any], picture: bool) -> list[str]:
    """A table with a line for each set of layers, its picture if there is one, and what the numbers mean."""
    sets = {title: rows for title, rows in results.get("layers", {}).items() if rows}
    if not sets:
        return ["\nSingle layers: not measured."]
    lines = [
        "\n| layers | pass | times as fast as PyTorch's best: median | least | at least as fast in | largest error |"
        " median share of the roof |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, rows in sets.items():
        for what in ("forward", "grad_x", "grad_w"):
            entries = {name: row[what] for name, row in rows.items() if "times" in row[what]}
            ratios = {name: e["ratio"]["median"] for name, e in entries.items() if "ratio" in e}
            compared = ["not measured"] * 3
            if ratios:
                least = min(ratios, key=ratios.get)
                ahead = sum(r >= 1 for r in ratios.values())
                compared = [f"**{median(ratios.values()):.2f}**", f"{ratios[least]:.2f} ({least})"]
                compared.append(f"{ahead} of {len(rows)}")
            error = max((row[what]["error"] for row in rows.values()), default=0.0)
            share = f"{median(e['share_of_roof'] for e in entries.values()):.0%}" if entries else "not measured"
            lines.append(f"| {title} | {what} | {' | '.join(compared)} | {error:.1e} | {share} |")
    roof = results["roof"]
    lines.append(
        f"\nError: norm against float64 over norm, at most {LAYER_TOLERANCE:.0e} or nothing is timed. Roof: the larger"
        f" of the plain sum's operations at sgemm's {roof['sgemm_gflops']:.0f} GFLOP/s and each array's bytes once at"
        f" a copy's {roof['copy_gbytes']:.0f} GB/s; Winograd needs fewer operations, and so goes above 100 %."
    )
    if picture and (ROOT / LAYERS_PICTURE).is_file():
        lines.append(f"\n![GFLOP/s of each layer of U-Net]({LAYERS_PICTURE})")
    return lines


def draw_layers() -> None:
    """docs/cpu_layers.png from bench/results/cpu.json: the widest U-Net measured. Nothing where there is none."""
    results = load("cpu.json") or {}
    sets = {title: rows for title, rows in results.get("layers", {}).items() if title.startswith("width") and rows}
    if not sets:
        return
    from bench import plot

    title = max(sets, key=lambda t: sum(row["gflop"] for row in sets[t].values()))
    sgemm = results["roof"]["sgemm_gflops"]
    (ROOT / LAYERS_PICTURE).parent.mkdir(exist_ok=True)
    plot.layers(ROOT / LAYERS_PICTURE, sets[title], sgemm, f"U-Net, {title}, {results['machine']['cores']} cores")


def isbi() -> str:
    """What the default run reached on the real stack, from bench/results/isbi.json (the run's metrics.json)."""
    run = load("isbi.json")
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


def _later(module: str, name: str) -> Callable[[], str]:
    """A function of another module of bench, imported when it is called, as those import this one."""
    return lambda: getattr(import_module(f"bench.{module}"), name)()


SECTIONS: dict[str, Callable[[], str]] = {
    "printed": printed,
    "isbi": isbi,
    "membranes": _later("trained", "membranes"),
    "streets": _later("trained", "streets"),
    "speed": speed,
    "start": _later("start", "table"),
    "reading": reading,
    "coverage": coverage,
    "gpu": _later("gpu_report", "summary"),
}


def rewrite(text: str, name: str = "README.md", sections: dict[str, Callable[[], str]] = SECTIONS) -> str:
    """`text` with every section between its markers made anew. Raises UserError where a marker is missing."""
    for section, make in sections.items():
        begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise UserError(f"{name}: needs the lines {begin} and {end} once each; put them where the table belongs")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{make()}\n\n{end}{rest.split(end)[1]}"
    return text


def rewrite_readme(readme: Path = ROOT / "README.md") -> None:
    """Bring the tables of README, docs/recipes.md and kernels/README.md, and the pictures, up to date."""
    draw_layers()
    from bench import trained

    trained.draw()
    _rewrite_file(readme, SECTIONS)
    from bench import gpu_report, recipes

    _rewrite_file(ROOT / "docs" / "recipes.md", recipes.SECTIONS)
    _rewrite_file(ROOT / "kernels" / "README.md", gpu_report.kernels())


def _rewrite_file(file: Path, sections: dict[str, Callable[[], str]]) -> None:
    text = rewrite(file.read_text(encoding="utf-8"), file.name, sections)
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load(name: str) -> dict[str, Any] | None:
    """A file of bench/results; None where nobody has measured it."""
    file = RESULTS / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def store(name: str, results: dict[str, Any]) -> None:
    """Keep results as a file of bench/results."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with atomic_write(RESULTS / name) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
