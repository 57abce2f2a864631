"""`minunet train --folds K`: K runs, each with another contiguous block of sections held out, and their mean."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minunet.data import Dataset
from minunet.errors import UsageError, UserError
from minunet.files import atomic_write
from minunet.training import job
from minunet.training.config import Config
from minunet.training.folder import CHECKPOINT, new_folder

RECORD = "folds.json"  # what the runs in the folders fold-1 ... fold-K are
COMPUTING = ("backend", "precision")


def run(config: Config, out: str | None, options: job.Options, folds: int) -> int:
    """The command: every fold in a folder of its own, then the table. Returns the exit code, 130 if it was stopped."""
    prepared = job.prepare(config, options)
    configs = plan(config, prepared.data, folds)
    where = new_folder(out, f"{prepared.data.name}-folds")
    write_record(where, configs, prepared.options)
    return resume(where, options)


def resume(where: Path, options: job.Options) -> int:
    """Go on with the folds in a folder: those that are done stay, one that was stopped is resumed."""
    configs, before = read_record(where)
    chosen = {name: getattr(options, name) or before[name] for name in COMPUTING}
    options = options._replace(**chosen, data_dir=options.data_dir or before["data"])
    folders = fold_folders(where, len(configs))
    for k, (config, folder) in enumerate(zip(configs, folders)):
        if (folder / "metrics.json").exists():
            continue
        print(f"fold {k + 1} of {len(folders)}: sections {config.held_out} held out")
        begun = (folder / CHECKPOINT).exists()
        code = job.resume(str(folder), options) if begun else job.start(config, str(folder), options)
        if code:
            print(f"go on with all folds: minunet train --resume {where}")
            return code
    print(summarise(where, folders))
    return 0


def blocks(sections: int, folds: int) -> list[str]:
    """The held-out sections of each fold, as --held-out takes them: contiguous, since neighbours are alike.

    >>> blocks(7, 3)
    ['0-2', '3-4', '5-6']
    """
    if not 2 <= folds <= sections:
        raise UsageError(f"--folds {folds}: must be between 2 and the {sections} sections")
    parts = np.array_split(np.arange(sections), folds)
    return [f"{part[0]}-{part[-1]}" for part in parts]


def plan(config: Config, data: Dataset, folds: int) -> list[Config]:
    """The Config of each fold. Raises UsageError for data with a split of its own, or with --held-out."""
    if data.parts is not None:
        raise UsageError(f"--folds {folds}: {job.parted(config)}; leave it out")
    if config.held_out:
        raise UsageError(f"--folds {folds}: holds out each block in turn, so leave out --held-out {config.held_out}")
    return [replace(config, held_out=held_out) for held_out in blocks(len(data.images), folds)]


def write_record(folder: Path, configs: list[Config], options: job.Options) -> None:
    """folds.json: what `read_record` needs to go on."""
    computing = {name: getattr(options, name) for name in COMPUTING}
    data = None if options.data_dir is None else os.path.abspath(options.data_dir)
    text = json.dumps({"folds": [config.to_json() for config in configs], **computing, "data": data}, indent=2)
    with atomic_write(folder / RECORD) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_record(folder: Path) -> tuple[list[Config], dict[str, str | None]]:
    """(the Config of each fold of a run in this folder, who computes and where the data are). Raises UserError for a
    file that is no such record.
    """
    file = folder / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        before = {name: record[name] for name in COMPUTING} | {"data": record.get("data")}
        if not isinstance(before["data"], str | None):
            raise TypeError("its data is no folder's name")
        return [Config(**settings) for settings in record["folds"]], before
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{file}: is no record of minunet train --folds ({error}); start the folds again") from error


def fold_folders(folder: Path, count: int) -> list[Path]:
    """fold-1, ..., fold-K."""
    return [folder / f"fold-{k + 1}" for k in range(count)]


def summarise(folder: Path, folders: list[Path]) -> str:
    """Write metrics.json and summary.txt of all folds, from each one's metrics.json; returns the summary.

    sd is that of the sample (divisor K - 1). A score that a fold does not have is left out there.
    """
    results = [json.loads((fold / "metrics.json").read_text(encoding="utf-8")) for fold in folders]
    table = [_values(result["scores"]) for result in results]
    names = list(dict.fromkeys(name for row in table for name in row))
    scores: dict[str, Any] = {}
    head = "".join(f"{fold.name:>10s}" for fold in folders)
    lines = [f"{len(folders)} folds", f"  {'score':20s}{head}{'mean':>11s}{'sd':>10s}"]
    for name in names:
        values = [row.get(name) for row in table]
        known = [v for v in values if v is not None]
        if not known:
            continue
        mean, sd = float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
        scores[name] = {"mean": mean, "sd": sd, "folds": values}
        shown = "".join(f"{'-':>10s}" if v is None else f"{v:10.6f}" for v in values)
        lines.append(f"  {name:20s}{shown}{mean:11.6f}{sd:10.6f}")
    record = {"folds": [{"folder": f.name, "held_out": r["held_out"]} for f, r in zip(folders, results)]}
    for file, text in (
        ("metrics.json", json.dumps({**record, "scores": scores}, indent=2)),
        ("summary.txt", "\n".join(lines)),
    ):
        with atomic_write(folder / file) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    return "\n".join(lines)


def _values(scores: dict[str, Any]) -> dict[str, float]:
    """{score: number}, of cells' records and of plain numbers; per-class tables are left out."""
    found = {}
    for name, value in scores.items():
        if isinstance(value, dict) and "value" in value:
            value = value["value"]
        if isinstance(value, float):
            found[name] = value
    return found
