"""The output folder of a run: what is in it, and how it is written, found and read again."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import numba
import numpy as np
import scipy

import minunet
from minunet import backends, checkpoint, record
from minunet.errors import UserError
from minunet.files import atomic_write, remove_left_over, second_name
from minunet.training.config import Config
from minunet.training.events import write_events
from minunet.training.judges import Verdict
from minunet.training.loop import DivergedError, State, Trainer
from minunet.training.pictures import curve
from minunet.training.report import report

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"  # the checkpoint of the validation with the highest main score
COLUMNS = ("step", "seconds", "learning_rate", "loss")  # of the log; after them the judge's, and the data's name


def new_folder(asked: str | None, name: str) -> Path:
    """The folder for a new run, made: `asked`, which must be empty or new, or the first free runs/NAME, NAME-2, ...

    What a write that was killed left behind (.NAME.tmp) does not count.
    """
    if asked is None:
        return _next_folder(name)
    folder = Path(asked)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; choose another --out")
    if folder.is_dir() and not all(f.name.startswith(".") and f.suffix == ".tmp" for f in folder.iterdir()):
        raise UserError(f"{folder}: is not empty; choose another --out, or continue its run with --resume {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _next_folder(name: str) -> Path:
    """runs/NAME, NAME-2, ...: the first that is not there, made. Of two runs that start at once each gets its own."""
    k = 1
    while True:
        folder = Path("runs") / (name if k == 1 else f"{name}-{k}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            k += 1


def versions() -> dict[str, str]:
    """Versions of minunet and of what computes with it."""
    own = {"minunet": minunet.__version__, "python": platform.python_version(), "numpy": np.__version__}
    return {**own, "numba": numba.__version__, "scipy": scipy.__version__}


def save(folder: Path, trainer: Trainer, data_dir: str | None = None) -> None:
    """Write checkpoint and log; after a validation also the best checkpoint, if this is it, and the report. Raises
    DivergedError, leaving the last good checkpoint, if a weight is not finite.

    data_dir : of the data, where the user named one: the run is resumed from there
    """
    for name, p in trainer.model.named_parameters():
        if not np.isfinite(p.numpy()).all():
            raise DivergedError(f"weights {name} are no longer finite at step {trainer.state.step}")
    size = trainer.config.image_size()
    extra = {
        "config": trainer.config.to_json(),
        "state": vars(trainer.state),
        "normalise": trainer.normalise,
        "displaced": None if trainer.displacement is None else list(trainer.displacement),
        "size": None if size is None else list(size),
        "classes": list(trainer.data.classes),
        **({} if trainer.data.table is None else {"labels": trainer.data.table}),
        "colours": [list(c) for c in trainer.data.colours],
        "synthetic": trainer.data.synthetic,
        "data": {
            "name": trainer.data.name,
            "source": trainer.data.source,
            "sha256": trainer.data.sha256,
            **({} if data_dir is None else {"folder": os.path.abspath(data_dir)}),
        },
        "held_out": trainer.held_out.tolist(),
        "threads": numba.get_num_threads(),
        "backend": backends.get().name,
        "precision": backends.asked_precision(),
        "versions": versions(),
    }
    checkpoint.save(folder / CHECKPOINT, trainer.model, optimizer=trainer.optimizer, extra=extra)
    keep_best(folder / CHECKPOINT, trainer.state)
    with atomic_write(folder / "log.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        columns = [*COLUMNS, *trainer.judge.columns, "data"]
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        label = "SYNTHETIC" if trainer.data.synthetic else trainer.data.name
        writer.writerows({**row, "data": label} for row in trainer.state.log)
    second_name(folder / "log.csv", folder / "metrics.csv")
    if trainer.seen is not None and trainer.seen.step == trainer.state.step:
        write_report(folder, trainer, None)
        write_events(folder, trainer.state.log)


def keep_best(file: Path, state: State) -> None:
    """Let best.safetensors be this checkpoint, if its state is that of the best validation. Also called when a run is
    resumed: a kill may have come between the two.
    """
    remove_left_over(file.with_name(BEST))
    if state.best is not None and state.best["step"] == state.step:
        second_name(file, file.with_name(BEST))


def best_of(folder: Path, state: State) -> Path:
    """The checkpoint to predict with: the best one's file, where the last is not the best."""
    last_is_best = state.best is None or state.best["step"] == state.step
    return folder / (CHECKPOINT if last_is_best or not (folder / BEST).exists() else BEST)


def find_checkpoint(where: str) -> Path:
    """The checkpoint file that `--resume WHERE` means: a run's folder or the file itself."""
    path = Path(where)
    file = path / CHECKPOINT if path.is_dir() else path
    if not file.is_file():
        what = f"has no {CHECKPOINT}" if path.is_dir() else "does not exist"
        raise UserError(f"{where}: {what}; name the output folder of an earlier run")
    return file


def resume(file: Path) -> tuple[Config, State, checkpoint.Checkpoint]:
    """Config, State and weights of a run that was stopped. Raises UserError for a checkpoint of something else."""
    saved = checkpoint.load(file)
    record.check(file, saved.extra, saved.model)
    try:
        config, told = Config(**saved.extra["config"]), saved.extra["state"]
        record.check_state(file, told)
        state = State(**told)
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: is no checkpoint of `minunet train` ({error}); it cannot be resumed") from error
    except UserError as error:
        raise error if str(error).startswith(f"{file}: ") else UserError(f"{file}: {error}") from error
    if saved.optimizer_state is None:
        raise UserError(f"{file}: has weights but no optimiser state; it can predict, but not resume")
    network = saved.model.config
    wanted = {"model": config.model, **config.model_arguments()}
    differs = [k for k, v in network.items() if k in wanted and _json(v) != _json(wanted[k])]
    if differs:
        k = differs[0]
        raise UserError(
            f"{file}: its network has {k} {record.brief(network[k])}, and its settings say {record.brief(wanted[k])};"
            f" {record.REMEDY}"
        )
    return config, state, saved


def _json(value: Any) -> str:
    """A value as JSON has it: tuples are lists."""
    return json.dumps(value, sort_keys=True)


def write_results(folder: Path, trainer: Trainer, verdict: Verdict, threads: int) -> dict[str, Any]:
    """metrics.json, summary.txt, report.html, curve.png, held_out.png, held-out predictions. Returns the metrics."""
    data, state, config = trainer.data, trainer.state, trainer.config
    metrics = {
        "data": {"name": data.name, "source": data.source, "synthetic": data.synthetic, "sha256": data.sha256},
        "held_out": trainer.held_out.tolist(),
        "scores": verdict.scores,
        "best": state.best,
        "warnings": state.notes,
        "average": config.average,
        "steps": state.step,
        "seconds": round(state.seconds, 1),
        "steps_per_second": round(state.step / max(state.seconds, 1e-9), 2),
        "share_waiting_for_tiles": round(state.waiting / max(state.seconds, 1e-9), 4),
        "parameters": sum(p.data.size for p in trainer.model.parameters()),
        "config": config.to_json(),
        "threads": threads,
        "backend": backends.get().name,
        "precision": backends.asked_precision(),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": versions(),
    }
    _write_text(folder / "summary.txt", summary(trainer, verdict))
    judge = trainer.judge
    losses = [(row["step"], row["loss"]) for row in state.log if "loss" in row]
    held_out = [(row["step"], row[judge.columns[0]]) for row in state.log if judge.columns[0] in row]
    note = f"{data.name}{' (SYNTHETIC)' if data.synthetic else ''}"
    curve(folder / "curve.png", losses, held_out, note, judge.score, judge.least)
    judge.write(folder, verdict, note, "_SYNTHETIC" if data.synthetic else "")
    write_report(folder, trainer, verdict)
    write_events(folder, state.log)
    _write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")  # the last: --folds takes it as the end
    return metrics


def write_report(folder: Path, trainer: Trainer, verdict: Verdict | None) -> None:
    """report.html of the last validation, or of the end of the run, which has a verdict."""
    with (folder / CHECKPOINT).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    cores = f"{os.cpu_count()} cores, {numba.get_num_threads()} threads"
    facts = {
        "processor": f"{processor()}, {cores}",
        "system": platform.platform(),
        "backend": backends.get().name,
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "network": network(trainer),
        "sha256 of the data's pixels": trainer.data.sha256,
        f"sha256 of {CHECKPOINT} at step {trainer.state.step}": digest,
    }
    hints = [
        f"minunet predict {best_of(folder, trainer.state)} IMAGE... --out DIR",
        f"minunet train --resume {folder}",
    ]
    seen = trainer.seen
    _write_text(folder / "report.html", report(trainer, seen, verdict, facts, hints[: 1 if verdict else 2]))


def summary(trainer: Trainer, verdict: Verdict) -> str:
    """The result in plain words."""
    state, data = trainer.state, trainer.data
    held_out = f"sections {', '.join(map(str, trainer.held_out.tolist()))}"
    if data.parts is not None:
        held_out = f"{len(trainer.held_out)} val images"
    rows = [
        f"data       {data.source}",
        f"held out   {held_out}",
        f"network    {network(trainer)}",
        f"training   {state.step} steps in {state.seconds / 60:.1f} min,"
        f" {state.step / max(state.seconds, 1e-9):.1f} steps/s",
    ]
    if trainer.config.average > 1:
        rows.append(f"averaged   the scores below are of the mean over {trainer.config.average} orientations")
    if state.best is not None and state.best["step"] != state.step:
        best = f"{trainer.judge.score} {state.best['score']:.4f} at step {state.best['step']}"
        rows.append(f"best       {best}, kept as {BEST}; the scores below are of step {state.step}")
    rows += ["", *verdict.lines]
    return "\n".join(rows) + "\n"


def network(trainer: Trainer) -> str:
    """The network in plain words: name, width where it has one, other arguments, parameters."""
    config = trainer.config
    width = "" if config.width is None else f", width {config.width}"
    others = "".join(f", {k} {v}" for k, v in config.model_args.items())
    return f"{config.model}{width}{others}, {sum(p.data.size for p in trainer.model.parameters()):,} parameters"


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def processor() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
