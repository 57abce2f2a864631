"""The main job on a small stack: what it writes, that a seed repeats it, that stopping loses nothing, its errors."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minunet import checkpoint, cli, train
from minunet.data import Dataset, read_image, synthetic_membranes, write_tiff
from minunet.training import job, loop

SMALL = ["--depth", "1", "--width", "4", "--tile", "44", "--steps", "12", "--validate", "2", "--quiet"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A folder laid out like ISBI 2012 with 6 sections of 72 x 72."""
    folder = tmp_path_factory.mktemp("stack with space ü")
    images, labels = synthetic_membranes(sections=6, size=72, seed=3)
    write_tiff(folder / "train-volume.tif", images)
    write_tiff(folder / "train-labels.tif", labels * 255)
    return folder


def run(*arguments) -> int:
    return cli.run(train.main, [str(a) for a in arguments])


def weights(folder) -> dict[str, np.ndarray]:
    return checkpoint.load(folder / "checkpoint.safetensors").model.state_dict()


def same_bits(a, b) -> bool:
    a, b = weights(a), weights(b)
    return list(a) == list(b) and all(a[k].tobytes() == b[k].tobytes() for k in a)


def one_error(capsys, *words: str) -> None:
    """The command wrote exactly one line of error, with these words, and no traceback."""
    err = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(err) == 1 and err[0].startswith("error: "), err
    for word in words:
        assert word in err[0], (word, err[0])


def test_a_run_writes_what_it_promises(stack, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("isbi", "--data", stack, "--out", out, *SMALL) == 0
    printed = capsys.readouterr().out
    assert "V_Rand" in printed and "SYNTHETIC" not in printed.upper().replace("SYNTHETIC_MEMBRANES", "")
    result = json.loads((out / "metrics.json").read_text())
    assert result["steps"] == 12 and result["held_out"] == [5] and not result["data"]["synthetic"]
    for name in ("v_rand", "v_info", "rand_error", "pixel_error", "pixel_disagreement", "warping_error"):
        assert np.isfinite(result["scores"][name]["value"])
    assert "v_rand" in (out / "summary.txt").read_text()
    curve, panel = read_image(out / "curve.png"), read_image(out / "held_out.png")
    assert curve.ndim == panel.ndim == 3 and panel.shape[1] == 4 * 72 + 3 * 6
    p = read_image(out / "held_out_probability.tif")
    assert p.dtype == np.uint16 and p.shape[-2:] == (72, 72) and p.min() < p.max()
    rows = list(csv.DictReader((out / "log.csv").open()))
    assert [int(r["step"]) for r in rows if r["held_out_v_rand"]] == [6, 12]
    saved = checkpoint.load(out / "checkpoint.safetensors")
    assert saved.extra["state"]["step"] == 12 and saved.optimizer_state is not None


def test_a_seed_repeats_a_run_bit_for_bit_and_another_does_not(stack, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("isbi", "--data", stack, "--out", tmp_path / name, *SMALL, "--seed", seed) == 0
    assert same_bits(tmp_path / "a", tmp_path / "b")
    assert not same_bits(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize(
    "recipe", [(), ("--weights", "paper", "--elastic", "4", "--dropout", "0.5", "--optimizer", "sgd")]
)
def test_stopping_and_resuming_ends_with_the_bits_of_an_undisturbed_run(stack, tmp_path, monkeypatch, capsys, recipe):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run("isbi", "--data", stack, "--out", whole, *SMALL, *recipe) == 0
    step = loop.Trainer.step

    def stop_at_five(self, batch):
        self.stopped = self.state.step == 4
        return step(self, batch)

    monkeypatch.setattr(loop.Trainer, "step", stop_at_five)
    assert run("isbi", "--data", stack, "--out", parts, *SMALL, *recipe) == 130
    assert "--resume" in capsys.readouterr().out
    assert checkpoint.load(parts / "checkpoint.safetensors").extra["state"]["step"] == 5
    monkeypatch.undo()
    assert run("--resume", parts, "--data", stack, "--quiet") == 0
    assert same_bits(whole, parts)
    columns = ("step", "loss", "learning_rate", "held_out_v_rand")
    logs = [[[r[c] for c in columns] for r in csv.DictReader((f / "log.csv").open())] for f in (whole, parts)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_leaves_a_checkpoint_that_resumes(stack, tmp_path, how):
    out, log = tmp_path / "out", tmp_path / "log.txt"
    settings = [*SMALL[:-5], "--steps", "100000", "--validate", "20000", "--quiet"]
    command = [sys.executable, "-m", "minunet.train", "isbi", "--data", stack, "--out", out, *settings]
    with log.open("w") as sink:
        process = subprocess.Popen([str(c) for c in command], stdout=sink, stderr=sink)
        while not (out / "checkpoint.safetensors").exists():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(how)
        code = process.wait()
    assert code == (130 if how == signal.SIGINT else -signal.SIGKILL), log.read_text()
    saved = checkpoint.load(out / "checkpoint.safetensors")
    assert saved.extra["state"]["step"] > 0 and not list(out.glob("*.json"))
    if how == signal.SIGINT:
        assert f"--resume {out}" in log.read_text()


def test_training_learns(stack, tmp_path):
    settings = [
        "--depth",
        "1",
        "--width",
        "8",
        "--tile",
        "60",
        "--steps",
        "150",
        "--validate",
        "1",
        "--quiet",
        "--lr",
        "5e-3",
    ]
    assert run("isbi", "--data", stack, "--out", tmp_path / "out", *settings) == 0
    losses = [float(r["loss"]) for r in csv.DictReader((tmp_path / "out" / "log.csv").open()) if r["loss"]]
    assert losses[-1] <= 0.6 * losses[0]
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert result["scores"]["pixel_disagreement"]["value"] <= 0.15  # "everything is cell" has about 0.22


@pytest.fixture
def no_save_by_the_clock(monkeypatch):
    """However slow the machine, the state is saved where the run says so, and not because half a minute has passed."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", np.inf)


@pytest.mark.usefixtures("no_save_by_the_clock")
def test_a_broken_loss_stops_with_step_and_advice_and_keeps_the_checkpoint(stack, tmp_path, capsys):
    out = tmp_path / "out"
    settings = [*SMALL, "--lr", "1e30", "--optimizer", "sgd", "--warmup", "0"]
    assert run("isbi", "--data", stack, "--out", out, *settings) == 1
    one_error(capsys, "step", "--lr", "no checkpoint had been written yet")
    assert not list(out.iterdir())


@pytest.mark.usefixtures("no_save_by_the_clock")
def test_a_loss_that_breaks_later_names_the_last_good_checkpoint(stack, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    step = loop.Trainer.step
    monkeypatch.setattr(loop.Trainer, "step", lambda self, b: step(self, b) * (np.nan if self.state.step == 8 else 1))
    assert run("isbi", "--data", stack, "--out", out, *SMALL) == 1
    one_error(capsys, "nan at step 9", str(out / "checkpoint.safetensors"))
    assert checkpoint.load(out / "checkpoint.safetensors").extra["state"]["step"] == 6
    assert all(np.isfinite(a).all() for a in weights(out).values())


def test_a_synthetic_run_says_so_in_every_output(tmp_path, monkeypatch, capsys):
    images, labels = synthetic_membranes(sections=4, size=72, seed=0)
    made_up = Dataset(images, labels, "synthetic", True, "SYNTHETIC membranes", "0" * 64)
    monkeypatch.setattr(job, "load_isbi", lambda *a, **k: made_up)
    monkeypatch.chdir(tmp_path)
    assert run("isbi", *SMALL) == 0
    assert "SYNTHETIC" in capsys.readouterr().out
    out = tmp_path / "runs" / "synthetic"
    assert json.loads((out / "metrics.json").read_text())["data"]["synthetic"] is True
    assert "SYNTHETIC" in (out / "summary.txt").read_text()
    assert (out / "held_out_probability_SYNTHETIC.tif").exists()
    assert all(r["data"] == "SYNTHETIC" for r in csv.DictReader((out / "log.csv").open()))
    assert checkpoint.load(out / "checkpoint.safetensors").extra["synthetic"] is True
    assert run("isbi", *SMALL) == 0  # a second run takes a folder of its own
    assert (tmp_path / "runs" / "synthetic-2" / "metrics.json").exists()


def test_a_budget_in_minutes_ends_by_the_clock(stack, tmp_path):
    settings = [a for a in SMALL if a not in ("--steps", "12")]
    start = time.monotonic()
    assert run("isbi", "--data", stack, "--out", tmp_path / "out", *settings, "--minutes", "0.03") == 0
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert result["steps"] > 0 and 1.8 <= result["seconds"] <= time.monotonic() - start + 0.05  # it is rounded


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--out", "x"], 2, ["data set"]),
        (["isbi", "--steps", "5", "--minutes", "1"], 2, ["--steps", "--minutes"]),
        (["isbi", "--lr", "nan"], 2, ["--lr"]),
        (["isbi", "--batch", "0"], 2, ["--batch"]),
        (["isbi", "--tile", "310"], 2, ["310", "316"]),
        (["isbi", "--model", "unte"], 2, ["unte", "unet"]),
        (["isbi", "--dropout", "1"], 2, ["--dropout"]),
        (["isbi", "--held-out", "nine"], 2, ["nine", "25-29"]),
        (["isbi", "--threads", "0"], 2, ["--threads"]),
        (["isbi", "--threads", "9999"], 2, ["--threads"]),
        (["isbi", "--backend", "abacus"], 2, ["abacus", "cpu"]),
        (["--resume", "x", "--width", "8"], 2, ["--resume", "width"]),
        (["--resume", "nowhere"], 1, ["nowhere"]),
        (["isbi", "--data", "nowhere"], 1, ["nowhere"]),
    ],
)
def test_wrong_arguments_get_one_line(tmp_path, monkeypatch, capsys, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == code
    one_error(capsys, *words)
    assert not list(tmp_path.iterdir())


def test_an_unknown_flag_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        run("isbi", "--learning-speed", "1")
    assert stop.value.code == 2 and "--learning-speed" in capsys.readouterr().err


def test_nothing_is_overwritten(stack, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("three years of work")
    assert run("isbi", "--data", stack, "--out", tmp_path / "out", *SMALL) == 1
    one_error(capsys, str(tmp_path / "out"), "--resume")
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_resuming_on_other_pixels_or_from_damage_is_refused(stack, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("isbi", "--data", stack, "--out", out, *SMALL) == 0
    other = tmp_path / "other"
    other.mkdir()
    images, labels = synthetic_membranes(sections=6, size=72, seed=4)
    write_tiff(other / "train-volume.tif", images)
    write_tiff(other / "train-labels.tif", labels * 255)
    capsys.readouterr()
    assert run("--resume", out, "--data", other, "--quiet") == 1
    one_error(capsys, "other pixels", "--data")
    before = (out / "metrics.json").read_bytes()
    file = out / "checkpoint.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    assert run("--resume", out, "--data", stack, "--quiet") == 1
    one_error(capsys, "checkpoint.safetensors")
    assert (out / "metrics.json").read_bytes() == before


def test_held_out_sections_are_never_trained_on(stack, tmp_path, monkeypatch):
    seen = []
    init = loop.Sampler.__init__

    def spy(self, images, labels, *rest):
        seen.append((len(images), images.tobytes()))
        init(self, images, labels, *rest)

    monkeypatch.setattr(loop.Sampler, "__init__", spy)
    assert run("isbi", "--data", stack, "--out", tmp_path / "out", *SMALL, "--held-out", "0,2-3") == 0
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert result["held_out"] == [0, 2, 3] and seen[0][0] == 3
    from minunet.data import normalise

    kept = normalise(read_image(stack / "train-volume.tif"))[[1, 4, 5]]
    assert seen[0][1] == kept.tobytes()


def test_the_real_stack_trains(data_dir, tmp_path):
    settings = ["--width", "2", "--tile", "188", "--steps", "3", "--validate", "1", "--held-out", "29", "--quiet"]
    assert run("isbi", "--data", data_dir, "--out", tmp_path / "out", *settings) == 0
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert result["data"]["name"] == "isbi2012" and not result["data"]["synthetic"]
    assert np.isfinite(result["scores"]["v_rand"]["value"])


def test_importing_minunet_loads_neither_numba_nor_torch():
    code = "import sys, minunet; print([m for m in ('numba', 'scipy', 'torch', 'cupy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
