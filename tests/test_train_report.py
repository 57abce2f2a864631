"""report.html, the best checkpoint, metrics.csv: what a run leaves for people."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from minunet import checkpoint, cli, train
from minunet.data import synthetic_membranes, write_tiff
from minunet.data.streets import synthetic_streets
from minunet.training import events, job, judges
from minunet.training import folder as run_folder
from minunet.training.charts import _axis, confusion, line_chart, table
from minunet.training.loop import State

SMALL = ["--depth", "1", "--width", "2", "--tile", "44", "--steps", "60", "--validate", "3", "--quiet"]
VOID = {"meta", "img", "line", "circle", "polyline", "br"}


class Page(HTMLParser):
    """Checks that tags close as they open, and collects what the page would load."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.loads, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "link", "iframe", "object"), tag
        self.loads += [v for k, v in attributes if k in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.words.append(data)


def run(*arguments) -> int:
    return cli.run(train.main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack <&>")
    images, labels = synthetic_membranes(sections=5, size=60, seed=3)
    write_tiff(folder / "train-volume.tif", images)
    write_tiff(folder / "train-labels.tif", labels * 255)
    return folder


def step_of(file) -> int:
    return checkpoint.load(file).extra["state"]["step"]


def test_a_report_is_one_whole_page(stack, tmp_path, monkeypatch):
    out, pages = tmp_path / "out", []
    write = run_folder.write_report

    def noted(folder, trainer, verdict):
        write(folder, trainer, verdict)
        pages.append((trainer.state.step, verdict is None, (folder / "report.html").read_text()))

    monkeypatch.setattr(run_folder, "write_report", noted)
    assert run("isbi", "--data", stack, "--out", out, *SMALL, "--held-out", "1,3") == 0
    assert [(step, running) for step, running, _ in pages] == [(20, True), (40, True), (60, False)]
    for step, running, text in pages:
        page, words = Page(text), " ".join(Page(text).words)
        assert all(source.startswith("data:image/png;base64,") for source in page.loads) and len(page.loads) == 2
        assert "stack <&>" not in text and ("the run goes on" in words) == running
        for name in (
            "training loss",
            "held out: V_Rand",
            "Confusion matrix",
            "section 3: Rand F-score",
            "cell interior",
        ):
            assert name in words, (step, name)
        assert "@media (prefers-color-scheme: dark)" in text and text.count("<svg") >= 3
        for source in page.loads:
            picture = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
            assert picture.size == (4 * 60 + 3 * 4, 60) and picture.mode == "RGB"
    last = pages[-1][2]
    digest = hashlib.sha256((out / "checkpoint.safetensors").read_bytes()).hexdigest()
    for part in (digest, checkpoint.load(out / "checkpoint.safetensors").extra["data"]["sha256"], np.__version__):
        assert part in last
    assert "held-out</td><td>1,3" in last and "warping error" in last
    assert (out / "metrics.csv").read_text() == (out / "log.csv").read_text()


def test_scenes_have_a_report_too(tmp_path, monkeypatch):
    drawn = synthetic_streets(8, (24, 36), seed=1)
    monkeypatch.setattr(job, "synthetic_streets", lambda seed: drawn)
    small = ("--model", "segnet", "--width", 2, "--steps", 2, "--batch", 2, "--validate", 1, "--quiet")
    assert run("streets", *small, "--model-arg", "stages=((1,),(2,))", "--out", tmp_path / "out") == 0
    page = Page((tmp_path / "out" / "report.html").read_text())
    words = " ".join(page.words)
    assert (
        "SYNTHETIC data, made up" in words
        and "mean IoU" in words
        and "wrong class" in words
        and "cells merged" not in words
    )
    assert all(name in words for name in drawn.classes)


def test_the_best_checkpoint_is_kept_beside_the_last(stack, tmp_path, monkeypatch, capsys):
    out, scores = tmp_path / "out", iter((0.3, 2.0))
    quick = judges.Cells.quick

    def told(self, predictions):
        row, text = quick(self, predictions)
        return row | {"held_out_v_rand": next(scores)}, text

    monkeypatch.setattr(judges.Cells, "quick", told)
    assert run("isbi", "--data", stack, "--out", out, *SMALL) == 0
    assert step_of(out / "checkpoint.safetensors") == 60 and step_of(out / "best.safetensors") == 40
    assert f"minunet predict {out / 'best.safetensors'} IMAGE... --out DIR   (best: step 40)" in capsys.readouterr().out
    assert f"minunet predict {out / 'best.safetensors'}" in (out / "report.html").read_text()


def test_best_compares_single_predictions_where_the_last_are_averaged(stack, tmp_path, monkeypatch, capsys):
    out, singles, quick = tmp_path / "out", iter((0.3, 0.2)), judges.Cells.quick

    def told(self, predictions):
        row, text = quick(self, predictions)
        return row | {"held_out_v_rand": next(singles)}, text

    monkeypatch.setattr(judges.Cells, "quick", told)
    assert run("isbi", "--data", stack, "--out", out, *SMALL[:-3], "--validate", 2, "--average", 2, "--quiet") == 0
    rows = [r["held_out_v_rand"] for r in csv.DictReader((out / "log.csv").open()) if r["held_out_v_rand"]]
    assert rows == ["0.3", "0.2"]  # of the second, the averaged prediction has another score
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["best"] == {"step": 30, "score": 0.3} and metrics["scores"]["v_rand"]["value"] != 0.2
    printed = capsys.readouterr().out
    assert "the mean over 2 orientations" in printed and "kept as best.safetensors; the scores below are of" in printed
    assert f"see {out}/: report.html" in printed.replace("\\", "/")
    assert "averaged over 2 orientations" in (out / "report.html").read_text()


def test_the_bar_shows_loss_best_score_and_speed(stack, tmp_path, capsys):
    arguments = [*SMALL[:-3], "--validate", 2]  # with its bar
    assert run("isbi", "--data", stack, "--out", tmp_path / "out", *arguments) == 0
    err = capsys.readouterr().err
    assert re.search(r"60/60 .*loss \d\.\d{4}, best V_Rand \d\.\d{4}, [\d.]+[kMG]? ?pixels/s", err), err[-300:]


def test_of_equal_validations_the_last_is_the_best(stack, tmp_path, monkeypatch):
    quick, final = judges.Cells.quick, judges.Cells.final
    same = {"held_out_v_rand": 0.5}
    monkeypatch.setattr(judges.Cells, "quick", lambda *a: (quick(*a)[0] | same, ""))
    monkeypatch.setattr(judges.Cells, "final", lambda *a: dataclasses.replace(final(*a), row=same))
    assert run("isbi", "--data", stack, "--out", tmp_path / "out", *SMALL, "--validate", 2) == 0
    assert step_of(tmp_path / "out" / "best.safetensors") == 60


def test_a_kill_between_checkpoint_and_best_is_made_good(stack, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("isbi", "--data", stack, "--out", out, *SMALL, "--validate", "1") == 0
    assert f"minunet predict {out / 'checkpoint.safetensors'} IMAGE... --out DIR\n" in capsys.readouterr().out
    (out / "best.safetensors").unlink()
    left = out / ".best.safetensors.0123abcd.tmp"
    left.write_text("of a kill")
    assert run("--resume", out, "--data", stack, "--quiet") == 0
    assert step_of(out / "best.safetensors") == 60 and not left.exists()


def test_a_state_of_an_older_run_is_read():
    old = {"step": 3, "seconds": 1.0, "waiting": 0.0, "validations": 0, "pending": [], "log": []}
    assert State(**old).best is None and State(**old).notes == []


def test_left_over_files_do_not_fill_a_folder(tmp_path):
    (tmp_path / ".report.html.0123abcd.tmp").write_text("half")
    assert run_folder.new_folder(str(tmp_path), "x") == tmp_path
    (tmp_path / ".hidden").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        run_folder.new_folder(str(tmp_path), "x")


WRITER = """
import pathlib

class SummaryWriter:
    def __init__(self, folder):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        self.file = open(pathlib.Path(folder) / "events.out.tfevents.1", "x")

    def add_scalar(self, *row):
        print(*row, file=self.file)

    def close(self):
        self.file.close()
"""


def test_tensorboard_has_the_log_where_it_is_installed(tmp_path, monkeypatch):
    (tmp_path / "a_writer.py").write_text(WRITER)
    monkeypatch.syspath_prepend(tmp_path)
    log = [{"step": 20, "seconds": 1.5, "loss": 0.5}, {"step": 30, "seconds": 2.0, "held_out_v_rand": 0.9}]
    monkeypatch.setattr(events, "WRITERS", (("no_writer_at_all", "Writer"), ("a_writer", "SummaryWriter")))
    for _ in range(2):  # the second time it takes the first one's place
        assert events.write_events(tmp_path, log)
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert file.read_text().splitlines() == ["loss 0.5 20", "held_out_v_rand 0.9 30"]
    monkeypatch.setattr(events, "WRITERS", events.WRITERS[:1])
    assert not events.write_events(tmp_path / "other", log) and not (tmp_path / "other").exists()


# -------------------------------------------------------------------------------------------------------------- charts


def test_charts():
    assert line_chart([("none", []), ("nan", [(1, np.nan)])], "x") == ""
    svg = line_chart([("a<b", [(0, 1.0), (10, 3.0), (5, np.inf)]), ("c", [(1, 2.0)])], "steps & more")
    Page(svg)
    assert svg.count("<circle") == 3 and "a<b" not in svg and "steps &amp; more" in svg
    ys = [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)]
    assert ys[1] < ys[2] < ys[0]  # larger values are higher up
    assert line_chart([("a", [(1, 0.0)])], "x", log_y=True) == ""
    ring = re.search(
        r'class="best" cx="([\d.]+)" cy="([\d.]+)"', line_chart([("a", [(0, 1), (9, 4)])], "x", best=(9, 4))
    )
    assert ring and f'cx="{ring[1]}" cy="{ring[2]}" r="3.5"' in line_chart([("a", [(0, 1), (9, 4)])], "x")


EVEN = ([0, 1], [5, 5], [0, 0], [-2, -2], [20, 5500], [0.123, 0.124], [-3, 1e9])
LOG = ([1e-6, 10], [0.5, 0.69], [0.5, 1.1], [0.03, 0.4], [1e-3, 0.05], [2.0, 2.0])


@pytest.mark.parametrize(("values", "log"), [*((v, False) for v in EVEN), *((v, True) for v in LOG)])
def test_axes_hold_their_values(values, log):
    place, ticks = _axis(values, log, 100, 500)
    assert 2 <= len(ticks) <= 9 and ticks == sorted(ticks)
    assert all(99.999 <= place(v) <= 500.001 for v in (*values, *ticks))
    assert abs(place(ticks[0]) - 100) <= 1e-9 and abs(place(ticks[-1]) - 500) <= 1e-9


def test_tables():
    assert ">1,234<" in table(("n",), [(1234,)]) and ">-<" in table(("n",), [(None,)])
    assert ">0.1235<" in table(("n",), [(0.12345678,)]) and "&lt;b&gt;" in table(("<b>",), [])
    assert ">0.0000<" in table(("n",), [(0.0,)]) and '<th class="n">n' in table(("n", "t"), [(1, "x")])
    shown = confusion(np.array([[3, 1], [0, 0]]), ("a", "b"))
    Page(shown)
    assert "75.0%" in shown and shown.count(">-<") == 2
