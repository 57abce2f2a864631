"""`minunet train` with other networks, in colour, of more classes: what it writes, resuming, prediction, errors."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from minunet import checkpoint, cli, evaluate, models, predict, train
from minunet.data import (
    IGNORE,
    paint,
    read_image,
    resize_image,
    resize_map,
    standardise,
    synthetic_membranes,
    write_png,
    write_tiff,
)
from minunet.data.camvid import CLASSES, VOID
from minunet.data.streets import synthetic_streets
from minunet.training import job, loop

TINY = ["--width", 2, "--steps", 4, "--batch", 2, "--validate", 2, "--quiet"]


def run(*arguments, command=train.main) -> int:
    return cli.run(command, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def camvid(tmp_path_factory):
    """A folder laid out like CamVid with 7 + 3 drawn scenes of 40 x 56."""
    folder = tmp_path_factory.mktemp("camvid here")
    data = synthetic_streets(10, (40, 56), seed=2)
    for s in range(10):
        part = "train" if s < 7 else "val"
        for place in (folder / part, folder / f"{part}annot"):
            place.mkdir(exist_ok=True)
        write_png(folder / part / f"scene{s}.png", data.images[s])
        labels = np.where(data.labels[s] == IGNORE, VOID, data.labels[s])
        write_png(folder / f"{part}annot" / f"scene{s}.png", labels.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A folder laid out like ISBI 2012 with 5 sections of 48 x 48."""
    folder = tmp_path_factory.mktemp("stack")
    images, labels = synthetic_membranes(sections=5, size=48, seed=3)
    write_tiff(folder / "train-volume.tif", images)
    write_tiff(folder / "train-labels.tif", labels * 255)
    return folder


@pytest.fixture
def streets(monkeypatch):
    """`minunet train streets` on 8 small scenes."""
    drawn = synthetic_streets(8, (40, 60), seed=1)
    monkeypatch.setattr(job, "synthetic_streets", lambda seed: drawn)
    return drawn


def saved(folder):
    return checkpoint.load(folder / "checkpoint.safetensors")


def same_bits(a, b) -> bool:
    a, b = (saved(f).model.state_dict() for f in (a, b))
    return list(a) == list(b) and all(a[k].tobytes() == b[k].tobytes() for k in a)


def test_a_run_on_scenes_writes_what_it_promises(camvid, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("camvid", "--data", camvid, "--out", out, "--model", "segnet", "--size", "20x28", *TINY) == 0
    printed = capsys.readouterr().out
    assert "7 train and 3 val images of 20 x 28" in printed and "class weights: sky" in printed
    assert "mean IoU" in printed and "held out   3 val images" in printed and "bicyclist" in printed
    result = json.loads((out / "metrics.json").read_text())
    scores = result["scores"]
    assert result["held_out"] == [7, 8, 9] and result["config"]["size"] == "20x28"
    for name in ("mean_iu", "acc_cls", "acc", "fwavacc", "boundary_f1"):
        assert 0 <= scores[name] <= 1
    assert list(scores["iu"]) == list(CLASSES)
    classes = read_image(out / "held_out_classes.tif")
    assert classes.shape == (3, 20, 28) and classes.max() < 11
    matrix = np.array(scores["confusion_matrix"])
    assert abs(matrix.trace() / matrix.sum() - scores["acc"]) <= 1e-12 and matrix.sum() < 3 * 20 * 28  # void left out
    rows = list(csv.DictReader((out / "log.csv").open()))
    assert [int(r["step"]) for r in rows if r["held_out_mean_iu"]] == [2, 4]
    assert read_image(out / "held_out.png").shape[1] == 4 * 28 + 3 * 6 and (out / "curve.png").exists()
    extra = saved(out).extra
    assert extra["classes"] == list(CLASSES) and extra["size"] == [20, 28] and len(extra["normalise"]["mean"]) == 3


def test_prediction_sees_images_as_training_did(camvid, tmp_path, capsys):
    out, results = tmp_path / "out", tmp_path / "results"
    assert run("camvid", "--data", camvid, "--out", out, "--size", "20x28", *TINY) == 0
    file = camvid / "val" / "scene8.png"
    assert run(out / "checkpoint.safetensors", file, "--out", results, "--classes", "3", command=predict.main) == 0
    image, extra = read_image(file), saved(out).extra
    x = standardise(resize_image(image, (20, 28)), **extra["normalise"])
    p = predict(saved(out).model, x)
    small = read_image(out / "held_out_classes.tif")[1]
    assert np.array_equal(p.argmax(axis=2), small)  # the same values as the validation's
    found = read_image(results / "scene8_classes.png")
    assert np.array_equal(found, resize_map(p, (40, 56)).argmax(axis=2))  # brought back to the file's size
    colours = read_image(results / "scene8_colours.png")
    assert np.array_equal(colours, paint(found, tuple(CLASSES.values())))
    assert json.loads((results / "predictions.json").read_text())["classes"] == list(CLASSES)
    truth = camvid / "valannot" / "scene8.png"
    semantic = ("--semantic", "--classes", 11, "--ignore", VOID)
    assert run(results / "scene8_classes.png", truth, *semantic, command=evaluate.main) == 0
    assert "mean_iu" in capsys.readouterr().out
    np.save(tmp_path / "deep.npy", image.astype(np.uint16) * 257)
    assert run(out / "checkpoint.safetensors", tmp_path / "deep.npy", "--out", results, command=predict.main) == 1
    assert "deep.npy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dataset", "recipe"),
    [
        ("camvid", ("--model", "segnet", "--accumulate", 2, "--colour", 0.1, "--elastic", 2, "--rotations", 1)),
        (
            "camvid",
            ("--model", "fcn", "--optimizer", "sgd", "--nesterov", 1, "--schedule", "poly", "--model-arg", "fc=8"),
        ),
        ("isbi", ("--model", "fusionnet", "--tile", 32, "--weights", "border", "--loss", "bce+dice")),
    ],
)
def test_stopping_and_resuming_ends_with_the_same_bits(camvid, stack, tmp_path, monkeypatch, capsys, dataset, recipe):
    data = ("--data", camvid if dataset == "camvid" else stack)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    size = ("--size", "20x28") if dataset == "camvid" else ()
    assert run(dataset, *data, "--out", whole, *TINY, *size, *recipe) == 0
    step = loop.Trainer.step

    def stop_at_three(self, batches):
        self.stopped = self.state.step == 2
        return step(self, batches)

    monkeypatch.setattr(loop.Trainer, "step", stop_at_three)
    assert run(dataset, *data, "--out", parts, *TINY, *size, *recipe) == 130
    monkeypatch.undo()
    assert saved(parts).extra["state"]["step"] == 3
    assert run("--resume", parts, *data, "--quiet") == 0
    assert same_bits(whole, parts)
    assert not same_bits(whole, parts) or saved(whole).extra["config"] == saved(parts).extra["config"]


def test_accumulated_batches_are_one_large_batch(stack, tmp_path):
    """Gradients of equally large batches without batch-norm: their mean is that of all tiles at once."""
    common = [
        "isbi",
        "--data",
        stack,
        "--width",
        2,
        "--depth",
        1,
        "--tile",
        44,
        "--steps",
        3,
        "--validate",
        1,
        "--quiet",
    ]
    common += ["--optimizer", "sgd", "--shuffle", 1, "--flips", 0, "--rotations", 0, "--padding", "same"]
    common += ["--brightness", 0, "--contrast", 0, "--gamma", 0, "--tile", 0]
    assert run(*common, "--batch", 4, "--out", tmp_path / "a") == 0
    assert run(*common, "--batch", 2, "--accumulate", 2, "--out", tmp_path / "b") == 0
    a, b = (saved(tmp_path / n).model.state_dict() for n in "ab")
    assert all(np.abs(a[k] - b[k]).max() <= 1e-6 for k in a) and not same_bits(tmp_path / "a", tmp_path / "b")


def test_shuffled_rounds_show_every_image_once(streets):
    from minunet.training.config import Config
    from minunet.training.sampler import Sampler

    images = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((5, 4, 6), np.float32)
    plain = {"flips": 0, "rotations": 0, "brightness": 0.0, "contrast": 0.0, "gamma": 0.0}
    config = Config(steps=1, shuffle=1, batch=2, **plain)
    sampler = Sampler(images, np.zeros((5, 4, 6), np.uint8), config, (4, 6), (4, 6))
    seen = [int(v) for k in range(10) for v in sampler.batch(k).x[:, 0, 0, 0]]
    rounds = [seen[r : r + 5] for r in range(0, 20, 5)]
    assert all(sorted(r) == list(range(5)) for r in rounds) and len({tuple(r) for r in rounds}) > 1


NETWORKS = {  # name: arguments that make it small
    "fusionnet": (),
    "segnet_basic": (),
    "fcn": ("--model-arg", "fc=8"),
    "deconvnet": ("--model-arg", "fc_kernel=1"),
    "unet_same": (),
    "zf_unet": ("--loss", "dice"),
    "bisenet": ("--width", 4, "--loss", "ohem"),
    "deeplab_v1": ("--class-weights", "enet"),
    "dfn": ("--model-arg", "blocks=1,1,1,1"),
    "enet": ("--width", 4),
    "rednet": ("--width", 4, "--model-arg", "blocks=1,1,1,1", "--model-arg", "units=1,1,1,1,1"),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_other_networks_train_on_scenes(streets, tmp_path, capsys, network):
    """Odd sizes, auxiliary outputs, coarse outputs: training, validation and prediction run, and all is finite."""
    out = tmp_path / "out"
    assert network in models.names()
    assert run("streets", "--model", network, *TINY, *NETWORKS[network], "--out", out) == 0, capsys.readouterr().err
    result = json.loads((out / "metrics.json").read_text())
    assert np.isfinite(result["scores"]["mean_iu"]) and read_image(out / "held_out_classes_SYNTHETIC.tif").shape[
        1:
    ] == (40, 60)
    model = saved(out).model
    for size in ((40, 60), (33, 47)):
        p = predict(model, np.random.default_rng(0).standard_normal((*size, 3)))
        assert p.shape == (*size, 7) and np.isfinite(p).all() and np.abs(p.sum(axis=2) - 1).max() <= 1e-5


@pytest.mark.parametrize(
    ("network", "recipe"),
    [
        ("fusionnet", ("--loss", "mae", "--tile", 32)),
        ("segnet", ("--loss", "ce", "--class-weights", "median", "--weights", "border", "--tile", 32)),
        ("unet_same", ("--loss", "focal", "--tile", 20)),
        ("rednet_restoration", ("--loss", "mse", "--tile", 32, "--model-arg", "depth=6")),
    ],
)
def test_other_networks_train_on_cells(stack, tmp_path, capsys, network, recipe):
    out = tmp_path / "out"
    assert run("isbi", "--data", stack, "--model", network, *TINY, *recipe, "--out", out) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert ("one output a pixel" in printed) == (recipe[1] != "ce")
    assert ("20 x 20 become 32 x 32" in printed) == (network == "unet_same")
    p = read_image(out / "held_out_probability.tif")
    assert p.shape[-2:] == (48, 48) and p.dtype == np.uint16
    result = json.loads((out / "metrics.json").read_text())
    assert np.isfinite(result["scores"]["v_rand"]["value"])


def test_a_network_learns_scenes(streets, tmp_path):
    settings = ["--width", 4, "--steps", 120, "--batch", 4, "--lr", 1e-2, "--validate", 1, "--quiet"]
    arguments = ["--model-arg", "stages=((1,),(2,),(4,))"]
    assert run("streets", *settings, *arguments, "--out", tmp_path / "out") == 0
    losses = [float(r["loss"]) for r in csv.DictReader((tmp_path / "out" / "log.csv").open()) if r["loss"]]
    assert losses[-1] <= 0.4 * losses[0]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["camvid", "--held-out", "3"], 2, ["--held-out 3", "split of its own"]),
        (["camvid", "--model", "rednet_restoration"], 2, ["n_classes"]),
        (["streets", "--model", "unet", "--tile", "310"], 2, ["310", "316"]),
        (["--resume", "x", "--model-arg", "form=a"], 2, ["--resume", "model_arg"]),
    ],
)
def test_wrong_arguments_get_one_line(camvid, tmp_path, monkeypatch, capsys, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    data = ["--data", camvid] if arguments[0] == "camvid" else []
    assert run(*arguments, *data) == code
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and err[0].startswith("error: "), err
    for word in words:
        assert word in err[0], (word, err[0])
    assert not list(tmp_path.iterdir())


def test_the_real_camvid_trains(data_dir, tmp_path):
    if not (data_dir / "camvid" / "train").is_dir():
        pytest.skip(f"no CamVid in {data_dir}")
    settings = ["--size", "24x32", "--width", 2, "--steps", 2, "--validate", 1, "--quiet"]
    assert run("camvid", "--data", data_dir, "--out", tmp_path / "out", *settings) == 0
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert len(result["held_out"]) == 101 and 0 < result["scores"]["mean_iu"] < 1
