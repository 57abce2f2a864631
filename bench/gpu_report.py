"""What README and kernels/README.md say of GPUs: tables from bench/results/DEVICE.json, limits computed from shapes.

A file there is what `python -m bench gpu --keep` wrote on a real device. What nobody measured stays "not measured".
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from bench import gpu_limits, gpu_resources, report
from bench.layers import PASSES
from minunet.backends.cuda import nvrtc
from minunet.backends.cuda.choose import LADDER
from minunet.errors import UserError

NOT = "not measured"
PRECISIONS = ("fp32", "tf32", "bf16")


def measured(folder: Path) -> list[dict[str, Any]]:
    """The results of all devices, in the order of their names. Raises UserError for a file that is damaged."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            results = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{file}: is no JSON ({error}); measure again, or remove it") from error
        if isinstance(results, dict) and "sections" in results and results.get("device", {}).get("measured"):
            found.append(results)
    return found


def summary(folder: Path | None = None) -> str:
    """README's part: for each device how our kernels compare, or that none was measured."""
    devices = measured(report.RESULTS if folder is None else folder)
    lines = []
    for results in devices:
        about = results["device"]
        lines += [f"**{about['device']}**, {about.get('architecture')}, CuPy {about.get('cupy')}, driver"
                  f" {about.get('driver')}, commit {results.get('commit')}:", ""]  # fmt: skip
        lines += [*layers(results), "", *memory(results), "", *networks(results), ""]
    if devices:
        return "\n".join(lines).rstrip()
    return "\n".join([*layers({"sections": {}}), "", *memory({"sections": {}}), "", *networks({"sections": {}})])


def _found(results: dict[str, Any], section: str) -> dict[str, Any]:
    result = results["sections"].get(section, {}).get("result")
    return result if isinstance(result, dict) else {}


def entries(results: dict[str, Any], batch: int, what: str, precision: str) -> dict[str, dict[str, Any]]:
    """{layer: entry with times}; of the two comparisons with cuDNN the one in which cuDNN was ahead by more."""
    best: dict[str, dict[str, Any]] = {}
    for section in ("layers", "cuDNN plans"):
        for name, row in _found(results, section).get(f"batch {batch}", {}).items():
            entry = row[what].get(precision, {}) if isinstance(row, dict) else {}
            if not isinstance(entry.get("times"), dict):
                continue
            if name not in best or entry.get("ratio", 9e9) < best[name].get("ratio", 9e9):
                best[name] = entry
    return best


def layers(results: dict[str, Any]) -> list[str]:
    """U-Net's 23 layers: a line for each batch and pass, a cell for each precision."""
    lines = [
        f"| U-Net's 23 layers | {' | '.join(PRECISIONS)} | largest error |",
        f"|---|{'---|' * len(PRECISIONS)}---|",
    ]
    for batch in (1, 8):
        for what in PASSES:
            found = {precision: entries(results, batch, what, precision) for precision in PRECISIONS}
            errors = [f"{max(e['error'] for e in rows.values()):.0e}" for rows in found.values() if rows]
            cells = [*map(_layers_cell, found.values()), ", ".join(errors) or NOT]
            lines.append(f"| {what}, batch {batch} | {' | '.join(cells)} |")
    return lines


def _layers_cell(rows: dict[str, dict[str, Any]]) -> str:
    """TFLOP/s over all layers, the share of the limit, how many times as fast as cuDNN."""
    if not rows:
        return NOT
    ms = {name: e["times"]["minunet"]["median_ms"] for name, e in rows.items()}
    said = [f"{sum(e['tflops'] * ms[name] for name, e in rows.items()) / sum(ms.values()):.1f} TFLOP/s"]
    if all("share_of_limit" in e for e in rows.values()):
        least = sum(e["share_of_limit"] * ms[name] for name, e in rows.items())
        said.append(f"{least / sum(ms.values()):.0%} of the limit")
    ratios = {name: e["ratio"] for name, e in rows.items() if "ratio" in e}
    if ratios:
        slow = min(ratios, key=ratios.get)
        said.append(f"**{geometric_mean(ratios.values()):.2f}** x cuDNN, least {ratios[slow]:.2f} ({slow})")
    else:
        said.append(f"x cuDNN {NOT}")
    return ", ".join(said) + ("" if len(rows) == 23 else f"; {len(rows)} layers")


def memory(results: dict[str, Any]) -> list[str]:
    """Rows that only move memory."""
    found = {k: v for k, v in _found(results, "memory-bound").items() if isinstance(v, dict) and "gbytes" in v}
    lines = ["| memory-bound | GB/s | share of a copy | times as fast as PyTorch |", "|---|---|---|---|"]
    for row, entry in found.items():
        share = f"{entry['share_of_copy']:.0%}" if "share_of_copy" in entry else NOT
        lines.append(f"| {row} | {entry['gbytes']:.0f} | {share} | {entry.get('ratio', NOT)} |")
    return lines if found else [*lines, f"| all | {NOT} | {NOT} | {NOT} |"]


def networks(results: dict[str, Any]) -> list[str]:
    """Whole U-Net: a line for each batch and kind of run."""
    lines = [f"| U-Net, 572 x 572 | {' | '.join(PRECISIONS)} |", f"|---|{'---|' * len(PRECISIONS)}"]
    found = _found(results, "networks")
    for batch in (1, 8):
        for what in ("inference", "training step"):
            cells = [_network_cell(found.get(f"{what}, batch {batch}, {precision}")) for precision in PRECISIONS]
            lines.append(f"| {what}, batch {batch} | {' | '.join(cells)} |")
    return lines


def _network_cell(entry: Any) -> str:
    """Our time, with a graph too where there is one, and PyTorch's best."""
    times = entry.get("times") if isinstance(entry, dict) else None
    if not isinstance(times, dict):
        return NOT
    cell = f"{times['minunet']['median_ms']:.2f} ms"
    if "minunet, graph" in times:
        cell += f", as a graph {times['minunet, graph']['median_ms']:.2f}"
    peers = {name: t["median_ms"] for name, t in times.items() if not name.startswith("minunet")}
    best = min(peers, key=peers.get, default=None)
    return f"{cell}; PyTorch {f'{peers[best]:.2f} ({best})' if best else NOT}"


def tiles(architecture: str = "sm_90a") -> str:
    """The tuned steps of the ladder with each of their tiles: registers, spills, all shared memory, occupancy. A kernel
    that no tile changes stands with the first."""
    heads = ("step", "tile", "kernel", "registers", "spills, bytes", "shared, bytes", "occupancy")
    rows, seen = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"], set()
    for step in LADDER.values():
        for tile in gpu_resources.tiles(step) if step.tiled else ():
            for kernel, entry in sorted(gpu_resources.report(step, tile, architecture).items()):
                if kernel == "failed":
                    raise UserError(f"{step.file}: {entry}")
                numbers = (entry["registers"], entry["spills"], entry["shared"])
                if (step.name, kernel, numbers) not in seen:
                    cells = (step.name, gpu_resources.label(tile), kernel, *numbers, f"{entry['occupancy']:.0%}")
                    rows.append(f"| {' | '.join(map(str, cells))} |")
                    seen.add((step.name, kernel, numbers))
    note = f"Computed for {architecture}, float, shared memory of both kinds, not measured:"
    return "\n".join([note, "", *rows])


def kernels() -> dict[str, Callable[[], str]]:
    """The sections of kernels/README.md that are made here: what needs the compiler only where it is at hand."""
    return {"limits": gpu_limits.table} | ({"tiles": tiles} if nvrtc.available() else {})
