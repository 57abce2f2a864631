"""The health monitor: which layer broke, dead ReLUs, one class, a loss that stays; --find-lr; --folds."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

import minunet as mu
from minunet import checkpoint, cli, nn, ops, train
from minunet.data import synthetic_membranes, write_tiff
from minunet.nn.module import Module
from minunet.tensor import record
from minunet.training import find_lr, health, job, loop
from minunet.training.find_lr import Sweep, suggestion
from minunet.training.folds import blocks

TINY = ["--depth", "1", "--width", "2", "--tile", "44", "--validate", "1", "--quiet"]


class Net(Module):
    """Two layers and a dropout between them."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.first = nn.Conv2d(rng, 1, 4, 3, padding="same", activation="relu")
        self.drop = nn.Dropout(0.5, 3)
        self.last = nn.ConvBN(rng, 4, 2, activation=None)

    def forward(self, x):
        return self.last(self.drop(self.first(x)))


def run(*arguments) -> int:
    return cli.run(train.main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    images, labels = synthetic_membranes(sections=6, size=60, seed=3)
    write_tiff(folder / "train-volume.tif", images)
    write_tiff(folder / "train-labels.tif", labels * 255)
    return folder


@pytest.fixture(autouse=True)
def plain():
    with mu.use_backend("reference"):
        yield


X = np.random.default_rng(1).standard_normal((1, 5, 7, 1))


def loss_of(net, factor=1.0):
    return lambda: ops.mse_loss(ops.scale(net(mu.Tensor(X)), factor), np.zeros((1, 5, 7, 2)))


def test_names_and_watching():
    net, seen = Net().astype(np.float64), []
    before = net.eval()(mu.Tensor(X)).numpy()
    with health.watching(net, lambda name, module, result: seen.append((name, type(module).__name__))):
        after = net(mu.Tensor(X)).numpy()
    inner = [("first", "Conv2d"), ("drop", "Dropout"), ("last.bn", "BatchNorm2d")]
    assert seen == [*inner, ("last", "ConvBN"), ("", "Net")]
    assert before.tobytes() == after.tobytes()
    net(mu.Tensor(X))
    assert len(seen) == 5 and not any("forward" in vars(m) for m in net.modules())


def test_watching_ends_when_the_network_fails():
    net = Net()
    with pytest.raises(ZeroDivisionError), health.watching(net, lambda *a: 1 // 0):
        net(mu.Tensor(X.astype(np.float32)))
    assert not any("forward" in vars(m) for m in net.modules())


def test_the_culprit_is_named():
    net = Net().astype(np.float64)
    assert health.culprit(net, loss_of(net)) == ""
    net.first.b.data[:] = np.finfo(np.float64).max / 4
    net.last.conv.w.data[:] = 4.0
    found = health.culprit(net, loss_of(net))
    assert found == "the output of last.bn (BatchNorm2d) is the first that is not finite"
    net.first.w.data[0] = np.nan
    net.last.conv.w.data[0] = np.inf
    assert "weights, those of last.conv.w first" in health.culprit(net, loss_of(net))


def test_a_broken_loss_and_a_broken_gradient_are_told_apart():
    net = Net().astype(np.float64)
    assert "the loss of them is not" in health.culprit(net, loss_of(net, 1e200))

    def forward(x):  # finite, and its gradient is not
        y = ops.conv2d(x, net.first.w, net.first.b, padding="same")
        return record("bad", y.data, (y,), lambda dy, need: (dy * np.inf,))

    net.first.forward = forward
    assert health.culprit(net, loss_of(net)) == "the gradient of first.b is the first that is not finite"
    assert net.first.forward is forward


def test_the_failed_step_is_repeated_with_its_masks():
    net, masks = Net().astype(np.float64), []
    original = net.drop.drop
    net.drop.drop = lambda x, rate, seed: (masks.append(seed), original(x, rate, seed))[1]
    net(mu.Tensor(X))
    health.culprit(net, loss_of(net))
    assert len(masks) == 2 and masks[0] == masks[1]


def test_dead_relus_are_counted():
    net = Net()
    net.first.w.data[:2] = 0
    net.first.b.data[:2] = -1
    state = {k: v.copy() for k, v in net.state_dict().items()}
    found = health.dead_relus(net, np.random.default_rng(1).standard_normal((1, 9, 11, 1)).astype(np.float32))
    assert found == (0.5, "first", 0.5) and net.training  # the last layer has no ReLU
    assert all(state[k].tobytes() == v.tobytes() for k, v in net.state_dict().items())
    assert health.dead_relus(nn.Sequential(nn.PReLU(1)), np.ones((1, 2, 2, 1), np.float32)) is None


def test_warnings():
    good = np.array([[40, 10], [10, 40]])
    assert health.warnings([0.7, 0.6, 0.5, 0.4], good, health.Dead(0.1, "a", 0.4), "ab") == []
    assert health.warnings([0.7, 0.7, 0.7], good, None, "ab") == []  # too early to tell
    (still,) = health.warnings([0.7, 0.71, 0.69, 0.7], good, None, "ab")
    assert still.startswith("the loss does not move: 0.7000 at first")
    (one,) = health.warnings([], np.array([[0, 20], [0, 80]]), None, ["x", "y"])
    assert "predicts one class: y on 100.0%" in one and "80.0%" in one
    assert health.warnings([], np.array([[0, 0], [0, 80]]), None, "ab") == []  # it is all of that class
    (dead,) = health.warnings([], good, health.Dead(0.6, "down.1", 0.9), "ab")
    assert "60% of the channels" in dead and "90% of those of down.1" in dead


def test_a_run_warns_and_notes(stack, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("isbi", "--data", stack, "--out", out, *TINY, "--steps", 100, "--lr", 1e-9) == 0
    printed = capsys.readouterr().out
    assert "warning: the loss does not move" in printed
    assert printed.index("warning: ") < printed.index("held out   ")
    notes = json.loads((out / "metrics.json").read_text())["warnings"]
    assert notes[0]["step"] == 100 and "--find-lr" in notes[0]["text"]
    assert "the loss does not move" in (out / "report.html").read_text()
    assert checkpoint.load(out / "checkpoint.safetensors").extra["state"]["notes"] == notes


def test_a_broken_step_names_its_layer(stack, tmp_path, monkeypatch, capsys):
    step = loop.Trainer.step

    def breaks(self, batches):
        if self.state.step == 3:
            batches[0].x[0, 5, 5, 0] = np.inf
        return step(self, batches)

    monkeypatch.setattr(loop.Trainer, "step", breaks)
    assert run("isbi", "--data", stack, "--out", tmp_path / "out", *TINY, "--steps", 9) == 1
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and "at step 4: the output of " in err[0] and "(Conv2d) is the first" in err[0], err


# ------------------------------------------------------------------------------------------------------------- find-lr


def test_the_suggestion_is_where_a_known_curve_falls_fastest():
    rates = list(np.logspace(-6, 1, 101))
    smooth = [
        1 / (1 + np.exp(6 * (np.log10(r) + 3))) + (10 * r) ** 3 for r in rates
    ]  # falls around 1e-3, bursts at 0.1
    best = suggestion(Sweep(rates, smooth, smooth))
    assert best is not None and abs(np.log10(best) + 3) <= 0.2
    assert suggestion(Sweep(rates, rates, [1.0 + r for r in rates])) is None  # it only rises
    assert suggestion(Sweep(rates[:5], smooth[:5], smooth[:5])) is None
    assert suggestion(Sweep([], [], [])) is None and "not finite" in find_lr.words(Sweep([], [], []), None)[0]


def test_a_lucky_first_batch_does_not_end_a_sweep(stack, tmp_path, monkeypatch, capsys):
    losses = iter([0.01] + [1.0] * 19 + [0.9 - 0.02 * k for k in range(20)])
    monkeypatch.setattr(loop.Trainer, "step", lambda *a: next(losses))
    assert run("isbi", "--data", stack, "--out", tmp_path / "out", *TINY, "--find-lr", 40) == 0
    printed = capsys.readouterr().out
    assert "40 steps, learning rates 1.0e-06 to 1.0e+01" in printed
    (line,) = (line for line in printed.splitlines() if line.startswith("suggestion: --lr "))
    assert line.endswith("(where the loss falls fastest)")  # to the end of the sweep: it rises nowhere


def test_find_lr_sweeps_and_writes_no_checkpoint(stack, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("isbi", "--data", stack, "--out", out, *TINY, "--find-lr", 40) == 0
    printed = capsys.readouterr().out
    assert "learning rates 1.0e-06 to" in printed and str(out / "find_lr.html") in printed
    assert sorted(f.name for f in out.iterdir()) == ["find_lr.csv", "find_lr.html"]
    rows = list(csv.DictReader((out / "find_lr.csv").open()))
    rates = np.array([float(r["learning_rate"]) for r in rows])
    assert len(rows) <= 40 and np.ptp(np.diff(np.log(rates))) <= 1e-9
    losses = [float(r["loss"]) for r in rows]
    mean = [np.average(losses[: k + 1], weights=0.95 ** np.arange(k, -1.0, -1)) for k in range(len(losses))]
    assert np.abs(mean - np.array([float(r["running_mean"]) for r in rows])).max() <= 1e-9
    assert "<svg" in (out / "find_lr.html").read_text()


# --------------------------------------------------------------------------------------------------------------- folds


def test_blocks_cover_every_section_once():
    assert blocks(30, 5) == ["0-5", "6-11", "12-17", "18-23", "24-29"] and blocks(2, 2) == ["0-0", "1-1"]
    for folds in (0, 1, 3):
        with pytest.raises(ValueError, match="between 2 and the 2"):
            blocks(2, folds)


def test_folds_are_stopped_resumed_and_summed_up(stack, tmp_path, monkeypatch, capsys):
    out, step = tmp_path / "out", loop.Trainer.step

    def stops(self, batches):
        self.stopped = list(self.held_out) == [2, 3] and self.state.step == 1
        return step(self, batches)

    monkeypatch.setattr(loop.Trainer, "step", stops)
    assert run("isbi", "--data", stack, "--out", out, *TINY, "--steps", 3, "--folds", 3) == 130
    assert f"go on with all folds: minunet train --resume {out}" in capsys.readouterr().out
    monkeypatch.undo()
    done = (out / "fold-1" / "metrics.json").stat().st_mtime_ns
    assert run("--resume", out, "--data", stack, "--quiet") == 0
    assert (out / "fold-1" / "metrics.json").stat().st_mtime_ns == done
    result = json.loads((out / "metrics.json").read_text())
    assert [f["held_out"] for f in result["folds"]] == [[0, 1], [2, 3], [4, 5]]
    each = [
        json.loads((out / f"fold-{k}" / "metrics.json").read_text())["scores"]["v_rand"]["value"] for k in (1, 2, 3)
    ]
    found = result["scores"]["v_rand"]
    assert found["folds"] == each and abs(found["mean"] - sum(each) / 3) <= 1e-12
    assert abs(found["sd"] - np.std(each, ddof=1)) <= 1e-12
    printed = capsys.readouterr().out
    assert (out / "summary.txt").read_text() in printed and "fold-3       mean        sd" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["isbi", "--folds", "7"], ["--folds 7", "6 sections"]),
        (["isbi", "--folds", "2", "--held-out", "1"], ["--held-out 1"]),
        (["streets", "--folds", "2"], ["split of its own"]),
        (["isbi", "--find-lr", "3"], ["--find-lr 3", "20"]),
        (["isbi", "--find-lr", "--folds", "2"], ["exclude"]),
        (["--resume", "x", "--folds", "2"], ["--resume", "folds"]),
    ],
)
def test_wrong_arguments_get_one_line(stack, tmp_path, monkeypatch, capsys, arguments, words):
    from minunet.data.streets import synthetic_streets

    drawn = synthetic_streets(4, (16, 16), seed=0)
    monkeypatch.setattr(job, "synthetic_streets", lambda seed: drawn)
    monkeypatch.chdir(tmp_path)
    data = ["--data", stack] if arguments[0] == "isbi" else []
    assert run(*arguments, *data) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and all(word in err[0] for word in words), err
    assert not list(tmp_path.iterdir())
