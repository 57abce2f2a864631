"""`minunet predict`: which files, which results under which names, and what is said of a run."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from minunet import __version__, backends, checkpoint, cli, record
from minunet.data.listing import list_images, unreadable
from minunet.errors import UsageError, UserError
from minunet.files import atomic_write
from minunet.predict import RECORD
from minunet.prediction.results import read_palette, spoken
from minunet.prediction.stores import ENDINGS
from minunet.prediction.work import Job, predict_file
from minunet.tiled import fixed_weights

PIPE = "-"
STDIN = "stdin"  # what results of standard input are called


def run(args: argparse.Namespace) -> int:
    """Predict all files. Returns 0, or 1 when a file failed."""
    classes = _check_usage(args)
    files = _expanded(args.files)
    piped = args.out == PIPE
    with ExitStack() as stack:
        # What goes to stdout is made in a folder of its own first; what comes from stdin is read into one.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()) if piped else args.out)
        outputs = _outputs(args, files, folder, classes)
        stack.enter_context(backends.use_backend(backends.require(cli.backend(vars(args)) or backends.get().name)))
        stack.enter_context(backends.precision(args.precision or backends.asked_precision()))
        job = _job(args, classes)
        stack.enter_context(fixed_weights(job.saved.model))
        if piped:
            job.tell, job.result = _on_stderr, args.result
        folder.mkdir(parents=True, exist_ok=True)
        done, failed = _predict_all(args, files, outputs, job, stack)
        if piped:
            _to_stdout(args.result, done)
        else:
            _record(args, job, folder, done, failed)
    return 1 if failed else 0


def _check_usage(args: argparse.Namespace) -> list[int]:
    """The classes asked for. Raises UsageError for options that no checkpoint could make sense of."""
    if args.tile is not None and args.tile < 1:
        raise UsageError(f"--tile {args.tile}: must be at least 1")
    if not 1 <= args.average <= 8:
        raise UsageError(f"--average {args.average}: there are 8 orientations; give 1 to 8")
    if args.memory is not None and not 0 < args.memory < float("inf"):
        raise UsageError(f"--memory {args.memory}: must be above 0, in GiB, such as 2 or 0.5")
    if args.out == PIPE and (len(args.files) > 1 or Path(args.files[0]).is_dir()):
        raise UsageError("--out -: takes one image; name a folder for the results of several")
    if args.out == PIPE and (args.resume or args.out_format == "zarr"):
        given = "--resume" if args.resume else "--out-format zarr"
        raise UsageError(f"--out -: goes without {given}; name a folder for the results")
    if args.files.count(PIPE) > 1:
        raise UsageError("-: standard input can be read once only")
    if args.out != PIPE and Path(args.out).exists() and not Path(args.out).is_dir():
        raise UsageError(f"--out {args.out}: is a file; name a folder")
    parts = args.classes.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f'--classes {args.classes}: cannot be read; write class numbers like "1" or "0,2"')
    return sorted({int(part) for part in parts})


def _expanded(files: Sequence[str]) -> list[str]:
    """The files, with the images of a folder in its place. Raises UserError for a folder without images."""
    found: list[str] = []
    for file in files:
        if file == PIPE or not Path(file).is_dir():
            found.append(file)
            continue
        inside, others = [str(path) for path in list_images(file)], unreadable(file)
        if not inside:
            remedy = others or "name another one"
            raise UserError(f"{file}: this folder holds no images (PNG, JPEG, BMP, TIFF, .npy); {remedy}")
        if others:
            _on_stderr(f"note: {others}")
        found += inside
    return found


def _outputs(
    args: argparse.Namespace, files: Sequence[str], folder: Path, classes: Sequence[int]
) -> list[dict[str, Path]]:
    """For each input: {kind of result: path without ending}. Raises UsageError where results would collide with each
    other or with an input.
    """
    kinds = {kind: kind for kind in ("mask", "classes", "colours", "labels", "overlay")}
    kinds |= {f"probability {c}": "probability" if c == 1 else f"probability_class{c}" for c in classes}
    inputs = {_identity(Path(file)) for file in [*files, args.checkpoint]}
    taken: dict[str, str] = {}
    outputs = []
    for file in files:
        stem = STDIN if file == PIPE else Path(file).stem
        paths = {kind: folder / f"{stem}_{suffix}" for kind, suffix in kinds.items()}
        name = os.path.normcase(paths["mask"])
        if name in taken:
            raise UsageError(
                f"{file}: its results would overwrite those of {taken[name]}, {name}...; rename one, or predict them "
                "into different folders"
            )
        taken[name] = file
        for path in (
            Path(f"{p}{more}{end}") for p in paths.values() for more in ("", ".partial") for end in ENDINGS.values()
        ):
            if path.exists() and _identity(path) in inputs:
                raise UsageError(f"--out {args.out}: results would overwrite the input {path}; choose another folder")
        outputs.append(paths | {"progress": folder / f"{stem}_progress.json"})
    if _identity(folder / RECORD) in inputs:
        raise UsageError(f"--out {args.out}: {RECORD} would overwrite an input; choose another folder")
    return outputs


def _identity(path: Path) -> Any:
    """Equal for two names of one file."""
    return (path.stat().st_dev, path.stat().st_ino) if path.exists() else os.path.realpath(path)


def _job(args: argparse.Namespace, classes: list[int]) -> Job:
    """What to do, as the checkpoint allows it. Raises UsageError for options that do not fit it."""
    saved = checkpoint.load(args.checkpoint)
    record.check(args.checkpoint, saved.extra, saved.model)
    n_classes = max(2, saved.model.config["n_classes"])  # one output is P(class 1)
    if max(classes) >= n_classes:
        raise UsageError(f"--classes {args.classes}: {args.checkpoint} has the classes 0 to {n_classes - 1}")
    colours = [tuple(c) for c in saved.extra.get("colours") or ()]
    if args.palette is not None:
        colours = read_palette(args.palette, n_classes)
    return Job(
        saved=saved, classes=classes, tile=args.tile, average=args.average, memory=args.memory,
        format=(args.out_format or "tiff") if args.out == PIPE else args.out_format, overlay=args.overlay,
        colours=colours, painted=args.palette is not None, resume=args.resume,
    )  # fmt: skip


def _predict_all(
    args: argparse.Namespace, files: Sequence[str], outputs: Sequence[dict[str, Path]], job: Job, stack: ExitStack
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The entries of the files that were predicted, and of those that failed."""
    from tqdm import tqdm

    source, synthetic = _origin(job)
    if synthetic:
        job.tell(f"note: {args.checkpoint} was trained on SYNTHETIC images, not on real ones: {source}")
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for file, paths in zip(files, outputs):
        name = "standard input" if file == PIPE else file
        try:
            with tqdm(desc=Path(name).name, unit="tile", leave=False, disable=None) as bar:
                done.append(predict_file(job, _received(stack) if file == PIPE else file, paths, bar, name))
        except (UserError, OSError, MemoryError) as error:
            if args.debug or isinstance(error, UsageError):
                raise
            text = cli.one_line(error)
            failed.append({"input": name, "error": text})
            print(f"error: {text if name in text else f'{name}: {text}'}", file=sys.stderr)
    return done, failed


def _origin(job: Job) -> tuple[Any, bool]:
    """What the network was trained on, and whether that was drawn."""
    return job.saved.extra.get("data", {}).get("source"), bool(job.saved.extra.get("synthetic"))


def _record(args: argparse.Namespace, job: Job, folder: Path, done: list, failed: list) -> None:
    source, synthetic = _origin(job)
    record = {
        "checkpoint": args.checkpoint,
        "network": job.saved.model.config,
        "classes": job.saved.extra.get("classes"),
        "trained_on": {"synthetic": synthetic, "source": source},
        "tile": args.tile,
        "average": args.average,
        "backend": backends.get().name,
        "precision": backends.asked_precision(),
        "versions": {"minunet": __version__, "checkpoint": job.saved.version},
        "files": done,
        "failed": failed,
    }
    with atomic_write(folder / RECORD) as tmp:
        tmp.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _received(stack: ExitStack) -> str:
    """A file with all of standard input."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    path = Path(folder) / STDIN
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    if path.stat().st_size == 0:
        raise UserError('standard input: is empty; pipe an image into it, as in "minunet predict NET - < a.png"')
    return str(path)


def _to_stdout(kind: str, done: Sequence[dict[str, Any]]) -> None:
    """The bytes of one result."""
    for entry in done:
        names = {spoken(k): path for k, path in entry["written"].items()}
        with open(names[kind], "rb") as file:
            try:
                shutil.copyfileobj(file, sys.stdout.buffer)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise OSError(error.errno, error.strerror, "standard output") from error


def _on_stderr(line: str) -> None:
    print(line, file=sys.stderr)
