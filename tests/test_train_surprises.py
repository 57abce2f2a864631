"""What people do to a run that lasts a week: start it twice, move its data, forget options, ask for the impossible."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small import SMALL

from minunet import checkpoint, cli, footprint, models, train
from minunet.data import read_image, synthetic_membranes, write_png, write_tiff
from minunet.errors import UserError
from minunet.training import folder as run_folder
from minunet.training import job, judges, loop, memory, pictures, report, schedule
from minunet.training.config import Config

TINY = ["--depth", "1", "--width", "2", "--tile", "44", "--steps", "2", "--validate", "1", "--quiet"]
TINY += ["--backend", "reference"]  # nothing to compile


def stack_in(folder: Path, labels=None) -> Path:
    images, drawn = synthetic_membranes(sections=5, size=60, seed=3)
    folder.mkdir()
    write_tiff(folder / "train-volume.tif", images)
    write_tiff(folder / "train-labels.tif", drawn * 255 if labels is None else np.full_like(drawn, labels))
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return stack_in(tmp_path_factory.mktemp("data") / "stack")


def run(*arguments) -> int:
    return cli.run(train.main, [str(a) for a in arguments])


def one_error(capsys, *words: str) -> None:
    """The command wrote exactly one line of error, with these words."""
    err = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(err) == 1 and err[0].startswith("error: "), err
    for word in words:
        assert word in err[0], (word, err[0])


# ----------------------------------------------------------------------------------------------------- one run a folder


def test_a_second_run_in_a_folder_is_refused_and_a_later_one_is_not(stack, tmp_path, capsys):
    fcntl = pytest.importorskip("fcntl")
    out = tmp_path / "out"
    out.mkdir()
    handle = os.open(out, os.O_RDONLY)  # as a run holds it
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert run("isbi", "--data", stack, "--out", out, *TINY) == 1
    one_error(capsys, str(out), "another run is writing there")
    assert not list(out.iterdir())
    os.close(handle)
    assert run("isbi", "--data", stack, "--out", out, *TINY) == 0
    handle = os.open(out, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    before = (out / "checkpoint.safetensors").read_bytes()
    assert run("--resume", out, "--quiet") == 1
    one_error(capsys, "another run is writing there")
    assert (out / "checkpoint.safetensors").read_bytes() == before
    os.close(handle)


def test_two_runs_that_start_at_once_get_two_folders(tmp_path, monkeypatch):
    """Both have seen that runs/x is free."""
    monkeypatch.chdir(tmp_path)
    assert run_folder.new_folder(None, "x") == Path("runs/x")
    monkeypatch.setattr(Path, "exists", lambda self, **options: False)
    assert run_folder.new_folder(None, "x") == Path("runs/x-2")


# --------------------------------------------------------------------------------------------------- where the data are


def test_a_run_is_resumed_from_where_its_data_were(stack, tmp_path, monkeypatch, capsys):
    """As the command itself says to go on: without --data, from another folder."""
    monkeypatch.delenv("MINUNET_DATA", raising=False)
    moving = stack_in(tmp_path / "mine")
    out, asked, load = tmp_path / "out", [], job.load_isbi

    def noted(data_dir, **options):
        asked.append(data_dir)
        return load(data_dir, **options)

    monkeypatch.setattr(job, "load_isbi", noted)
    monkeypatch.chdir(tmp_path)
    assert run("isbi", "--data", "mine", "--out", out, *TINY) == 0
    monkeypatch.chdir("/")
    assert run("--resume", out, "--quiet") == 0
    assert asked == ["mine", str(moving)]
    moved = moving.rename(tmp_path / "theirs")
    capsys.readouterr()
    assert run("--resume", out, "--quiet") == 1
    one_error(capsys, str(out), str(moving), "--data")
    assert run("--resume", out, "--data", moved, "--quiet") == 0
    assert checkpoint.load(out / "checkpoint.safetensors").extra["data"]["folder"] == str(moved)


def test_folds_know_where_their_data_are(stack, tmp_path, monkeypatch, capsys):
    out, final = tmp_path / "out", loop.Trainer.final
    monkeypatch.setattr(loop.Trainer, "final", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run("isbi", "--data", stack, "--out", out, *TINY, "--folds", 2) == 130
    assert f"go on with: minunet train --resume {out / 'fold-1'}" in capsys.readouterr().err
    monkeypatch.setattr(loop.Trainer, "final", final)
    monkeypatch.delenv("MINUNET_DATA", raising=False)
    monkeypatch.setattr(job, "load_isbi", lambda data_dir, right=job.load_isbi, **k: right(data_dir or "nowhere", **k))
    assert run("--resume", out, "--quiet") == 0
    assert len(json.loads((out / "metrics.json").read_text())["folds"]) == 2
    record = json.loads((out / "folds.json").read_text())
    (out / "folds.json").write_text(json.dumps({**record, "data": 3}))
    capsys.readouterr()
    assert run("--resume", out, "--quiet") == 1
    one_error(capsys, "folds.json")
    del record["data"]  # as older ones are
    (out / "folds.json").write_text(json.dumps(record))
    assert run("--resume", out, "--quiet") == 0


@pytest.mark.parametrize("name", ("synthetic", "streets"))
def test_data_that_is_drawn_is_not_read_from_a_folder(stack, capsys, name):
    assert run(name, "--data", stack, "--steps", 1, "--out", stack.parent / name) == 2
    one_error(capsys, f"--data {stack}", name)
    assert not (stack.parent / name).exists()


def test_labels_of_one_class(tmp_path, capsys):
    """Without a cell nothing can be scored: that shows before the training. All cell: it can, and is warned of."""
    none = stack_in(tmp_path / "none", labels=0)
    assert run("isbi", "--data", none, "--out", tmp_path / "a", *TINY) == 1
    one_error(capsys, "held-out sections 4", "cell interior", "--held-out")
    assert not list((tmp_path / "a").iterdir())
    every = stack_in(tmp_path / "every", labels=255)
    assert run("isbi", "--data", every, "--out", tmp_path / "b", *TINY) == 0
    assert "warning: all labels of the training sections are cell interior" in capsys.readouterr().out


def test_own_images_without_a_cell_to_score(tmp_path, capsys):
    """The last of five images is held out, and is empty: it trains, and says what is missing."""
    rng = np.random.default_rng(0)
    for k in range(5):
        for kind, image in (("images", rng.integers(0, 256, (40, 44))), ("masks", rng.integers(0, 2, (40, 44)) * 255)):
            (tmp_path / kind).mkdir(exist_ok=True)
            write_png(tmp_path / kind / f"{k}.png", (image * (kind == "images" or k < 4)).astype(np.uint8))
    own = ["folder", "--images", tmp_path / "images", "--masks", tmp_path / "masks", *TINY]
    assert run(*own, "--instances", "--out", tmp_path / "out") == 0
    assert "warning: the held-out images have no cell" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["scores"]["seg"] is None
    assert run("--resume", tmp_path / "out", "--quiet") == 0
    for option in ("--folds", "--held-out"):
        capsys.readouterr()
        assert run(*own, option, 2, "--out", tmp_path / "more") == 2
        one_error(capsys, f"{option} 2", "--val")


def test_what_computes_otherwise_than_before_is_said(stack, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert run("isbi", "--data", stack, "--out", out, *TINY, "--threads", 1) == 0
    assert run("--resume", out, "--quiet") == 0
    assert "note:" not in capsys.readouterr().out
    now = run_folder.versions()
    monkeypatch.setattr(run_folder, "versions", lambda: now | {"numpy": "9.9"})
    assert run("--resume", out, "--quiet", "--precision", "strict") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note:")]
    assert len(said) == 1 and f"numpy was '{now['numpy']}' and is 9.9" in said[0]
    assert "precision was 'default' and is strict" in said[0] and "threads" not in said[0]


# ------------------------------------------------------------------------------------------------ to the end, and after


def test_ctrl_c_while_scoring_says_how_to_go_on(stack, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop.Trainer, "final", stop)
        assert run("isbi", "--data", stack, "--out", out, *TINY) == 130
    err = capsys.readouterr().err
    assert f"minunet train --resume {out}" in err and "Traceback" not in err
    assert run("--resume", out, "--quiet") == 0 and (out / "metrics.json").exists()


def test_metrics_are_written_last(stack, tmp_path, monkeypatch):
    """--folds takes a fold with metrics.json as done, so that all else must be there by then."""
    out, write = tmp_path / "out", run_folder.write_report

    def full(folder, trainer, verdict):
        if verdict is not None:
            raise OSError(28, "No space left on device", str(folder / "report.html"))
        write(folder, trainer, verdict)

    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "write_report", full)
        assert run("isbi", "--data", stack, "--out", out, *TINY) == 1
    assert not (out / "metrics.json").exists()
    assert run("--resume", out, "--quiet") == 0
    assert (out / "metrics.json").exists() and (out / "report.html").exists()


def test_the_log_of_a_week_stays_small(stack, tmp_path, monkeypatch):
    step = rows = 0
    ends = []
    while step < 11_000_000:
        step += loop.LOG_EVERY * schedule.thinning(step)
        rows += 1
        ends.append(step)
    assert rows <= 11_000 and ends[:2000] == [*range(20, 40_001, 20)]
    assert 80_000 in ends and 10_240_000 in ends  # a row ends where they grow
    monkeypatch.setattr(schedule, "DENSE", 2)
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    assert run("isbi", "--data", stack, "--out", tmp_path / "out", *TINY, "--steps", 25) == 0
    state = checkpoint.load(tmp_path / "out" / "checkpoint.safetensors").extra["state"]
    assert [row["step"] for row in state["log"] if "loss" in row] == [2, 4, 8, 16]
    assert len(state["pending"]) == 9


def test_the_picture_of_many_sections_is_small(stack, tmp_path, monkeypatch):
    monkeypatch.setattr(judges, "MOST", 2)
    out = tmp_path / "out"
    assert run("isbi", "--data", stack, "--out", out, *TINY, "--held-out", "0-2") == 0
    assert read_image(out / "held_out.png").shape[0] == 24 + 2 * (60 + 6)
    assert read_image(out / "held_out_probability.tif").shape == (3, 60, 60)
    assert judges._evenly(1000, 15).tolist()[::14] == [0, 999] and judges._evenly(3, 15).tolist() == [0, 1, 2]


def test_a_report_shows_the_last_of_many_warnings():
    notes = [{"step": k, "text": f"odd <{k}>"} for k in range(1, 1001)]
    state = SimpleNamespace(notes=notes, waiting=0.0, seconds=1.0, health=[])
    text = report._health(SimpleNamespace(state=state))
    assert text.count("odd &lt;") == 20 and "odd &lt;1000&gt;" in text and "980 earlier warnings" in text


def test_a_curve_without_steps(tmp_path):
    pictures.curve(tmp_path / "c.png", [], [(0, 0.5)], "nothing trained")
    assert read_image(tmp_path / "c.png").shape[-1] == 3


# ------------------------------------------------------------------------------------------------------- the impossible


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--gamma 1e5", "--gamma 100000.0: must be at most 10"),
        ("--sigma 1e9 --weights border", "--sigma 1000000000.0: must be at most 1000"),
        ("--optimizer sgd --momentum 1", "--momentum 1.0: must be at least 0 and less than 1"),
        ("--optimizer sgd --momentum -5", "--momentum -5.0: must be at least 0"),
        ("--warmup 1", "--warmup 1.0: must be at least 0 and less than 1"),
        ("--average 9", "--average 9: must be at most 8"),
        ("--lr 0", "--lr 0: must be above 0"),
        ("--held-out ,", "--held-out ,"),
        ("--tile 45", "--tile 45: UNet does not take 45 x 45"),
        ("--depth 20 --tile 0", "weights take"),
    ],
)
def test_options_out_of_range_are_named(stack, tmp_path, capsys, options, words):
    assert run("isbi", "--data", stack, "--out", tmp_path / "out", *TINY, *options.split()) == 2
    one_error(capsys, words)
    assert not list(tmp_path.iterdir())


def test_no_time_at_all_and_averages_that_turn_scenes():
    for budget in ({"minutes": 0}, {"epochs": 0.0}):
        with pytest.raises(UserError, match="0: must be above 0"):
            Config(**budget)
    with pytest.raises(UserError, match="--average 8"):
        Config(dataset="folder", n_classes=3, rotations=0, average=8, steps=1)


@pytest.mark.parametrize("find", ((), ("--find-lr", "20")))
def test_a_step_beyond_the_machines_memory_names_one_that_fits(stack, tmp_path, monkeypatch, capsys, find):
    """The system would kill it without a word."""
    options = ["isbi", "--data", stack, "--out", tmp_path / "out", *TINY, "--batch", "64", *find]
    monkeypatch.setattr(memory, "machine", lambda: 4_000_000)
    assert run(*options) == 1
    err = capsys.readouterr().err
    assert "0.0 GiB" in err and "--batch" in err and "--accumulate" in err and err.count("\n") == 1
    batch, together = (int(err.split(f"--{name} ")[1].split()[0]) for name in ("batch", "accumulate"))
    assert 1 <= batch < 64 <= batch * together < 64 + batch
    assert run(*options, "--batch", batch) == 0


@pytest.mark.parametrize("find", ((), ("--find-lr", "20")))
def test_memory_that_ends_in_a_step(stack, tmp_path, monkeypatch, capsys, find):
    def ends(self, *arguments):
        raise MemoryError("Unable to allocate 9 GiB for an array")

    monkeypatch.setattr(loop.Trainer, "step", ends)
    assert run("isbi", "--data", stack, "--out", tmp_path / "out", *TINY, *find) == 1
    one_error(capsys, "9 GiB", "--tile")


@pytest.mark.parametrize("form", SMALL)
def test_every_networks_step_has_a_size(form):
    """It is asked for before each run, so it must never be in the way."""
    name, arguments, size = SMALL[form]
    with models.shapes_only():
        memory.check_weights(Config(steps=1), models.build(name, **arguments))
    assert footprint.training_step(models.build(name, **arguments), size, 2, 2) > 0
