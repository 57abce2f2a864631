"""Tables from bench/results/*.json, written into README.md between two markers. No number is typed by hand."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from minunet.errors import UserError
from minunet.files import atomic_write

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def machine() -> dict[str, Any]:
    """Processor, cores and system."""
    from minunet.training.folder import processor

    return {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "system": platform.system()}


def table(results: dict[str, Any]) -> str:
    """A Markdown table of one results file."""
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
    m, v = results["machine"], results["versions"]
    rows.append("")
    rows.append(
        f"float32, batch 1, {m['cores']} cores of {m['processor']}, PyTorch {v['torch']}, Numba {v['numba']}; medians"
        " of interleaved repeats in one process, after the gradients were found equal (`python -m bench`)."
    )
    return "\n".join(rows)


def rewrite_readme(readme: Path = ROOT / "README.md") -> None:
    """Put the table of bench/results/cpu.json between README's markers."""
    file = RESULTS / "cpu.json"
    if not file.is_file():
        raise UserError(f"{file}: is missing; run `python -m bench --cases all --out bench/results` first")
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(f"{readme}: needs the lines {BEGIN} and {END} once each; put them where the table belongs")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    with atomic_write(readme) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{table(json.loads(file.read_text()))}\n{END}{after}", encoding="utf-8")
