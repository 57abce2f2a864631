"""Malformed files through whole commands, in a process of its own that cannot take more than a gigabyte.

`python tests/hostile_commands.py GROUP FOLDER` prints a line of JSON: how many cases and malformed files there were,
how many cases were refused, what went wrong, and the peak of memory. A case goes wrong by an exception that is not the
user's, by anything but one line of error, or by taking longer than SECONDS.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hostile
import numpy as np
import torch_archives
from hostile_lies import distort, liars

import minunet as mu
from minunet import checkpoint, cli, evaluate, predict, train
from minunet.data import synthetic_membranes, write_tiff
from minunet.data.__main__ import main as data_command
from minunet.footprint import highest
from minunet.interop import to_torch
from minunet.models.__main__ import main as models

SECONDS = 5.0  # of this process's time: none takes 3 on a core of 2023
WALL = 600.0  # seconds on the clock after which a loop without end is broken, on a machine that others use
LIMIT = 1 << 30  # bytes of address space, which is more than memory: whoever reserves what a header declares fails here
NET = ("--width", "2", "--depth", "1", "--padding", "same", "--tile", "12", "--backend", "reference", "--quiet")
ONE_STEP = ("--steps", "1", "--validate", "1", "--batch", "1")
VALID = hostile.valid_images()


class Late(BaseException):
    """A case takes too long; no command knows what to do about it."""


class Case(NamedTuple):
    """One command line."""

    what: object
    main: Callable
    argv: list[object]
    files: int = 1  # malformed ones in it, each of which may have its line of error


class Bench:
    """Files that the cases are made from, in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.count = 0

    def new(self, name: str, data: bytes) -> Path:
        """A file under a name of its own, in a folder of its own."""
        self.count += 1
        path = self.folder / f"c{self.count}" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        return path

    def mutants(self, n: int, seed: str, of: dict[str, bytes] = VALID) -> Iterator[tuple[str, bytes]]:
        """n malformed (name, bytes) of all kinds, in turn."""
        rng, names = random.Random(seed), sorted(of)
        for k in range(n):
            name = names[k % len(names)]
            yield name, hostile.mutate(name, of[name], rng)

    def run(self) -> Path:
        """The folder of a finished run on a small stack, whose data lie in `stack`."""
        stack, out = self.folder / "stack", self.folder / "run"
        stack.mkdir()
        images, labels = synthetic_membranes(sections=2, size=24, seed=3)
        write_tiff(stack / "train-volume.tif", images)
        write_tiff(stack / "train-labels.tif", labels * 255)
        argv = ["isbi", "--data", stack, "--held-out", "1", "--out", out, *NET, *ONE_STEP]
        with contextlib.redirect_stdout(io.StringIO()):
            assert cli.run(train.main, [str(a) for a in argv]) == 0
        return out


def trained(bench: Bench) -> Iterator[Case]:
    """`train folder`: two good pairs, and one of which an image, a mask or both are malformed."""
    grey, cells = hostile.grey(0), (hostile.grey(1) > 99).astype(np.uint8)
    rng = random.Random("train")
    for k, (name, data) in enumerate(bench.mutants(250, "train images")):
        folders = [bench.folder / f"t{k}" / kind for kind in ("images", "masks")]
        for folder, array in zip(folders, (grey, cells)):
            folder.mkdir(parents=True)
            for good in "bc":
                np.save(folder / f"{good}.npy", array)
            (folder / f"a.{name}").write_bytes(VALID[name])
        for folder in rng.choice((folders[:1], folders[1:], folders)):
            (folder / f"a.{name}").write_bytes(data)
        argv = ["folder", "--images", folders[0], "--masks", folders[1], "--out", bench.folder / f"t{k}" / "out"]
        yield Case((k, name), train.main, [*argv, "--val", "0.4", *NET, *ONE_STEP, *("--instances",) * (k % 5 == 0)])
        shutil.rmtree(bench.folder / f"t{k}")


def resumed(bench: Bench) -> Iterator[Case]:
    """`train --resume`: checkpoints damaged in bits, whole ones that say what cannot be, records of folds."""
    out = bench.run()
    stack, file = bench.folder / "stack", out / "checkpoint.safetensors"
    whole, rng = file.read_bytes(), random.Random("resume")
    (out / "checkpoint.previous.safetensors").unlink(missing_ok=True)
    for k in range(100):
        bad = bench.new(file.name, hostile.mutate(file.name, whole, rng))
        yield Case(("bits", k), train.main, ["--resume", bad.parent, "--data", stack, "--quiet"])
    for k, bad in enumerate(liars(bench.new, file, 220, rng)):
        yield Case(("said", k), train.main, ["--resume", bad.parent, "--data", stack, "--quiet"])
    config = checkpoint.load(file).extra["config"]
    record = {"folds": [config, config], "backend": "reference", "precision": "default"}
    for k in range(80):
        changed = distort(record, rng)
        text = json.dumps(changed).encode() if k % 2 else hostile.mutate("folds.json", json.dumps(record).encode(), rng)
        bad = bench.new("folds.json", text)
        for fold in (1, 2):
            shutil.copytree(out, bad.parent / f"fold-{fold}")
        yield Case(("folds", k, changed), train.main, ["--resume", bad.parent, "--data", stack, "--quiet"])
        shutil.rmtree(bad.parent)


def predicted(bench: Bench) -> Iterator[Case]:
    """`predict`: malformed images, malformed checkpoints."""
    file = bench.run() / "checkpoint.safetensors"
    for k in range(5):
        paths = [bench.new(f"x{name}", data) for name, data in bench.mutants(50, f"predict {k}")]
        argv = [file, *paths, "--out", bench.folder / f"p{k}", "--backend", "reference", "--overlay"]
        yield Case(k, predict.main, argv, len(paths))
    image, rng = bench.new("grey.npy", VALID["grey.npy"]), random.Random("predict nets")
    nets = [bench.new("net.safetensors", hostile.mutate(file.name, file.read_bytes(), rng)) for _ in range(50)]
    for k, bad in enumerate([*nets, *liars(bench.new, file, 150, rng)]):
        argv = [bad, image, "--out", bad.parent / "out", "--backend", "reference"]
        yield Case(("net", k), predict.main, argv)


def evaluated(bench: Bench) -> Iterator[Case]:
    """`evaluate`: the prediction, the truth or both malformed."""
    other = bench.new("good.npy", VALID["grey.npy"])
    for k, (name, data) in enumerate([*bench.mutants(260, "evaluate"), *hostile.hostile_images().items()]):
        bad = bench.new(name, data)
        pair = [(bad, other), (other, bad), (bad, bad)][k % 3]
        semantic = ["--semantic", "--classes", str(2 + 3 * (k % 100))] if k % 2 else []
        yield Case((k, name), evaluate.main, [*pair, *semantic, "--json", bad.parent / "scores.json"])


def checked(bench: Bench) -> Iterator[Case]:
    """`data check`: folders full of malformed files."""
    for k in range(3):
        folder = bench.folder / f"d{k}"
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True)
            for n, (name, data) in enumerate(bench.mutants(50, f"check {k} {kind}")):
                (folder / kind / f"{n}_{name}").write_bytes(data)
        yield Case(k, data_check, [folder], 100)


def data_check(argv: list[str]) -> int:
    return data_command(["check", *argv])


def informed(bench: Bench) -> Iterator[Case]:
    """`models info` and `models export`."""
    file, rng = bench.run() / "checkpoint.safetensors", random.Random("info")
    (file.parent / "checkpoint.previous.safetensors").unlink(missing_ok=True)
    bits = [bench.new("a.safetensors", hostile.mutate(file.name, file.read_bytes(), rng)) for _ in range(80)]
    for k, bad in enumerate([*bits, *liars(bench.new, file, 170, rng)]):
        yield Case(("info", k), models, ["info", bad])
        if k % 5 == 0:
            yield Case(("export", k), models, ["export", bad, "--onnx", bad.parent / "net.onnx"])


def imported(bench: Bench) -> Iterator[Case]:
    """`models import` of .pth in both formats and .safetensors."""
    names = ("in_channels", "width", "depth")
    model = mu.models.build("unet", in_channels=1, n_classes=2, width=2, depth=1, padding="same")
    _, state = to_torch(model)
    valid = torch_archives.files(bench.folder, state)
    argv = ["import", "--model", "unet", "--arg", "padding=same", "--classes", "2"]
    argv += [part for n in names for part in ("--arg", f"{n}={model.config[n]}")]
    for name, data in valid.items():
        path = bench.new(name, data)
        with contextlib.redirect_stdout(io.StringIO()):
            assert cli.run(models, [*argv, str(path), "--out", str(path.with_name("filled.safetensors"))]) == 0, name
    for k, (name, data) in enumerate(bench.mutants(270, "import", valid)):
        bad = bench.new(name, data)
        yield Case((k, name), models, [*argv, bad, "--out", bad.parent / "filled.safetensors"])


GROUPS = {
    "train folder": trained,
    "train --resume": resumed,
    "predict": predicted,
    "evaluate": evaluated,
    "data check": checked,
    "models info": informed,
    "models import": imported,
}


# ------------------------------------------------------------------------------------------------------------ judging


def judge(case: Case) -> tuple[str, bool]:
    """(what went wrong, or ""; whether the command refused the file)."""

    def late(number: int, frame: Any) -> None:
        raise Late(f"longer than {WALL} s on the wall")

    out, err = io.StringIO(), io.StringIO()
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, WALL)
    start = time.process_time()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.run(case.main, [str(a) for a in case.argv])
    except BaseException:
        return traceback.format_exc()[-1500:], True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    taken, lines = time.process_time() - start, [line for line in err.getvalue().splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    if taken > SECONDS:
        return f"took {taken:.1f} s", bool(code)
    if "Traceback" in out.getvalue() + err.getvalue():
        return err.getvalue()[-1500:], bool(code)
    if code not in (0, 1, 2) or (bool(code) != bool(errors) and case.main is not data_check):
        return f"exit code {code} with {lines}", bool(code)
    if len(errors) > case.files or any(not line.startswith(("error: ", "note: ")) for line in lines):
        return f"more than a line: {lines}", bool(code)
    if any(len(line) > 1200 or "Unable to allocate" in line or not line.isprintable() for line in errors):
        return f"no message for people: {errors}", bool(code)
    return "", bool(code)


def main(group: str, folder: str) -> None:
    import scipy.ndimage  # noqa: F401 (loaded before the limit, as it would have been in a small run)

    bench, found = Bench(Path(folder)), {"cases": 0, "files": 0, "refused": 0, "wrong": []}
    os.fsync = lambda file: None  # a disk takes longer than all the rest; what kills leave is another test's
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    for case in GROUPS[group](bench):
        wrong, refused = judge(case)
        found["cases"] += 1
        found["files"] += case.files
        found["refused"] += refused
        if wrong:
            found["wrong"].append(f"{case.what}: {wrong}")
    found["MiB"] = (highest() or 0) >> 20
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
