"""SIGKILL at any moment: a run that is killed and resumed again and again ends with the bits of an undisturbed one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nursery import Nursery

from minunet import checkpoint, files, models
from minunet.data import synthetic_membranes, write_tiff
from minunet.errors import UserError
from minunet.files import atomic_write

pytestmark = pytest.mark.skipif(
    not (hasattr(os, "fork") and hasattr(signal, "SIGKILL")), reason="this system has neither fork nor SIGKILL"
)

KILLS, STEPS = 20, 130
RECIPE = f"--depth 1 --width 2 --tile 44 --steps {STEPS} --validate 3 --quiet --threads 1"
RECIPE += " --weights paper --elastic 4 --dropout 0.5 --noise 0.1"  # all that is random
STAGES = ("opened", "half written", "written", "synced", "linked", "kept", "replaced")


@pytest.fixture
def nursery(tmp_path) -> Iterator[Nursery]:
    found = Nursery(tmp_path / "stderr.txt")
    yield found
    found.end()


@pytest.fixture
def stack(tmp_path) -> Path:
    folder = tmp_path / "stack"
    folder.mkdir()
    images, labels = synthetic_membranes(sections=6, size=72, seed=3)
    write_tiff(folder / "train-volume.tif", images)
    write_tiff(folder / "train-labels.tif", labels * 255)
    return folder


def everything(file: Path) -> dict[str, Any]:
    """What a checkpoint holds, but for times."""
    ours, tensors = checkpoint.read(file)
    state = ours["extra"]["state"]
    for row in (state, *state["log"]):
        row.pop("seconds")
    state.pop("waiting")
    return {"ours": ours | {"sha256": ""}, **{name: a.tobytes() for name, a in tensors.items()}}


def test_killed_and_resumed_ends_with_the_bits_of_an_undisturbed_run(nursery, stack, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    recipe = ["isbi", "--data", stack, *RECIPE.split()]
    nursery.start([*recipe, "--out", whole], every=1e9)
    assert nursery.wait() == 0, nursery.log.read_text()

    rng = np.random.default_rng(7)
    begin, resume = [*recipe, "--out", out], ["--resume", out, "--data", stack, "--quiet"]
    file, reached = out / "checkpoint.safetensors", 0
    for kill in range(KILLS):  # the moment within a step or a write is left to chance
        starting, steps = kill % 5 == 4, int(rng.integers(2, 6))
        process = nursery.start(resume if kill else begin, most=steps)
        nursery.steps(0 if starting else steps)  # all but the last are saved
        time.sleep(rng.uniform(0, 0.5 if starting else 0.03))
        os.kill(process, signal.SIGKILL)
        assert nursery.wait() == -signal.SIGKILL, nursery.log.read_text()
        step = checkpoint.load(file).extra["state"]["step"]
        assert reached + (0 if starting else steps - 1) <= step <= reached + steps
        reached = step

    for stage in STAGES:  # each moment of a write
        nursery.start(resume, stage=stage)
        assert nursery.wait() == -signal.SIGKILL, (stage, nursery.log.read_text())
        assert checkpoint.is_whole(file), stage
        assert bool(list(out.glob(".*.tmp"))) == (stage not in ("kept", "replaced"))
        assert checkpoint.is_whole(checkpoint.previous(file))
        step = checkpoint.load(file).extra["state"]["step"]
        assert reached < step < STEPS
        reached = step

    damaged = bytearray(file.read_bytes())
    damaged[-5] ^= 1
    file.write_bytes(damaged)
    nursery.start(resume)
    kept = checkpoint.previous(file)
    assert nursery.wait() == 1 and f"the checkpoint before it is whole: {kept}" in nursery.log.read_text()
    nursery.start(["--resume", kept, *resume[2:]], every=1e9)
    assert nursery.wait() == 0, nursery.log.read_text()
    assert everything(file) == everything(whole / "checkpoint.safetensors")
    assert (out / "held_out_probability.tif").read_bytes() == (whole / "held_out_probability.tif").read_bytes()
    assert not list(out.glob(".*"))  # nothing is left over


# ------------------------------------------------------------------------------------------ what is kept, what is not


def net(step: int) -> tuple[models.Network, dict[str, int]]:
    return models.build("unet", width=1, depth=1, seed=step), {"step": step}


def save(path: Path, step: int, **options: bool) -> None:
    model, extra = net(step)
    checkpoint.save(path, model, extra=extra, **options)


def step_of(path: Path) -> int:
    return checkpoint.load(path).extra["step"]


def test_the_checkpoint_before_is_kept_and_offered(tmp_path):
    file = tmp_path / "a run.v1.safetensors"
    kept = checkpoint.previous(file)
    assert kept == tmp_path / "a run.v1.previous.safetensors"
    save(file, 1)
    assert not kept.exists()
    for step in 2, 3:
        save(file, step)
        assert step_of(file) == step and step_of(kept) == step - 1
    save(file, 4, keep_previous=False)
    assert step_of(file) == 4 and step_of(kept) == 2
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert not checkpoint.is_whole(file) and checkpoint.is_whole(kept)
    for load in checkpoint.load, lambda path: checkpoint.load_into(net(0)[0], path):
        with pytest.raises(UserError, match=f"cut short .*; the checkpoint before it is whole: {kept}$") as error:
            load(file)
        assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)
    save(file, 5)  # what is damaged takes no one's place
    assert step_of(file) == 5 and step_of(kept) == 2
    file.unlink()
    with pytest.raises(UserError, match=r"no such checkpoint.*before it is whole"):
        checkpoint.load(file)
    kept.write_bytes(b"")
    with pytest.raises(UserError, match=r"folder$"):
        checkpoint.load(file)
    assert [p.name for p in tmp_path.iterdir()] == [kept.name]


def test_links_to_a_checkpoint_and_disks_without_second_names(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    link, file = tmp_path / "newest", tmp_path / "runs" / "net.safetensors"
    link.symlink_to(file)
    save(link, 1)
    save(link, 2)
    assert link.is_symlink() and step_of(file) == 2 and step_of(tmp_path / "runs" / "net.previous.safetensors") == 1

    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    save(file, 3)
    assert step_of(file) == 3 and step_of(checkpoint.previous(file)) == 2
    assert sorted(p.name for p in file.parent.iterdir()) == ["net.previous.safetensors", "net.safetensors"]


def test_a_second_name(tmp_path):
    file, best = tmp_path / "last", tmp_path / "best"
    file.write_text("1")
    files.second_name(file, best)
    files.second_name(file, best)  # it is that already
    with atomic_write(file) as tmp:
        tmp.write_text("2")
    assert best.read_text() == "1" and file.read_text() == "2"
    (tmp_path / ".best.0123abcd.tmp").write_text("left by a kill")
    files.second_name(file, best)
    assert best.read_text() == "2" and sorted(p.name for p in tmp_path.iterdir()) == ["best", "last"]
    with pytest.raises(UserError, match="make the folder first"):
        files.second_name(file, tmp_path / "no" / "best")


def test_what_a_dead_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    target, near = tmp_path / "log.csv", tmp_path / ".log.csv.note.tmp"
    dead, alive = tmp_path / ".log.csv.0123abcd.tmp", tmp_path / ".log.csv.4567cdef.tmp"
    other = tmp_path / ".metrics.csv.0123abcd.tmp"
    for path in dead, near, other:
        path.write_text("half")
    with files._held(alive):
        with atomic_write(target) as tmp:
            assert not dead.exists() and alive.exists() and near.exists() and other.exists()
            with atomic_write(target) as second:  # two writers of one file: the last one wins, none breaks
                second.write_text("second")
            tmp.write_text("first")
        assert target.read_text() == "first" and alive.exists()
    with pytest.raises(UserError, match="cannot be written"), atomic_write(target) as tmp:
        tmp.unlink()
        raise OSError(28, "No space left on device")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([near.name, other.name, target.name])
