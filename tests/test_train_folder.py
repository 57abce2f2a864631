"""`minunet train folder` and `minunet train hela`: from files to a checkpoint that gives the masks' own values back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minunet import checkpoint, cli, metrics, predict, train
from minunet.data.dataset import Dataset
from minunet.data.folder import load_folder
from minunet.data.images import read_image, write_png, write_tiff
from minunet.data.mixed import Mixed
from minunet.data.weights import instances_from_labels
from minunet.errors import UsageError
from minunet.training.config import Config
from minunet.training.inputs import by_section, channel_statistics
from minunet.training.judges import Instances
from minunet.training.sampler import Sampler
from minunet.training.shown import alike

TINY = ["--padding", "same", "--width", "2", "--depth", "1", "--tile", "16", "--validate", "1", "--quiet"]
TINY += ["--backend", "reference"]
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)


@pytest.fixture
def own(tmp_path) -> Path:
    """Four images of 16 bits and of different sizes, masks in three colours."""
    rng = np.random.default_rng(0)
    for k in range(4):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        classes = rng.integers(0, 3, (18 + 3 * k, 27 - 2 * k))
        image = (20000 * classes + rng.integers(0, 900, classes.shape)).astype(np.uint16)
        write_tiff(tmp_path / "images" / f"c {k}.tif", image)
        write_png(tmp_path / "masks" / f"c {k}_mask.png", COLOURS[classes])
    return tmp_path


def test_folder_from_files_to_predictions(own, capsys, monkeypatch):
    monkeypatch.chdir(own)
    run, argv = own / "run", ["folder", "--images", "images", "--masks", "masks", *TINY]
    assert cli.run(train.main, [*argv, "--steps", "3", "--out", str(run)]) == 0
    out = capsys.readouterr().out
    for line in (
        "paired by name: 4 images",
        "  c 0.tif  -  c 0_mask.png",
        "  #0000ff -> class 1",
        "3 to train on, 1 held",
    ):
        assert line in out
    saved = checkpoint.load(run / "checkpoint.safetensors")
    assert saved.extra["labels"]["map"] == [[0, 0], [0xFF, 1], [0xFF0000, 2]]
    assert saved.model.config["n_classes"] == 3 and saved.extra["classes"] == ["#000000", "#0000ff", "#ff0000"]
    matrix = np.array(json.loads((run / "metrics.json").read_text())["scores"]["confusion_matrix"])
    assert matrix.sum() == 27 * 21  # the last image, whole
    assert read_image(run / "held_out_classes.tif").shape == (27, 21)

    file = str(own / "images" / "c 1.tif")
    argv = [str(run / "checkpoint.safetensors"), file, "--out", str(own / "p"), "--backend", "reference"]
    assert cli.run(predict.main, argv) == 0
    labels = read_image(own / "p" / "c 1_labels.png")
    assert labels.shape == (21, 25, 3) and {tuple(c) for c in labels.reshape(-1, 3).tolist()} <= {
        tuple(c) for c in COLOURS.tolist()
    }
    capsys.readouterr()
    monkeypatch.chdir(own / "p")
    assert cli.run(train.main, ["--resume", str(run), "--backend", "reference", "--quiet"]) == 0
    write_png(own / "masks" / "c 0_mask.png", np.zeros((18, 27), np.uint8))
    assert cli.run(train.main, ["--resume", str(run), "--backend", "reference", "--quiet"]) == 1


def test_held_out_images_of_several_sizes(own):
    run, argv = own / "run", ["folder", "--images", str(own / "images"), "--masks", str(own / "masks"), *TINY]
    assert (
        cli.run(train.main, [*argv, "--val", "0.5", "--normalise", "dataset", "--steps", "2", "--out", str(run)]) == 0
    )
    assert [read_image(run / f"held_out_classes_{k}.tif").shape for k in (0, 1)] == [(24, 23), (27, 21)]
    found = checkpoint.load(run / "checkpoint.safetensors").extra["normalise"]
    pixels = np.concatenate([read_image(own / "images" / f"c {k}.tif").ravel() for k in (0, 1)]).astype(float)
    assert abs(found["mean"] - pixels.mean()) < 1e-6 and abs(found["sd"] - pixels.std()) < 1e-6


def test_wrong_use(own, capsys):
    images = ["--images", str(own / "images")]
    for argv, words in (
        (["folder"], ("--images is missing",)),
        (["folder", *images], ("--masks is missing",)),
        (["isbi", *images], ("--images", "train folder")),
        (["isbi", "--labels", "0=a,1=b"], ("--labels", "train folder")),
        (["folder", *images, "--masks", str(own / "masks"), "--data", "x"], ("--data x", "--images")),
        (["folder", *images, "--masks", str(own / "masks"), "--loss", "bce"], ("--loss bce", "3")),
    ):
        assert cli.run(train.main, [*argv, "--steps", "1", "--out", str(own / "no")]) == 2, argv
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and all(word in err for word in words), err
    assert cli.run(train.main, ["folder", *images, "--masks", str(own / "gone"), "--steps", "1"]) == 1
    assert "gone: no such folder" in capsys.readouterr().err
    assert not (own / "no").exists()
    with pytest.raises(UsageError):
        train.main(["hela", "--masks", "x"])


def touching(n: int = 5) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Grey images and instances of two cells that touch."""
    cells = np.zeros((24, 30), np.uint16)
    cells[4:20, 3:14], cells[4:20, 14:26] = 8, 3
    rng = np.random.default_rng(1)
    return [(100 * (cells > 0) + rng.integers(0, 50, cells.shape)).astype(np.uint8) for _ in range(n)], [cells] * n


def test_hela_from_files_to_scores(tmp_path, capsys):
    images, cells = touching()
    for folder in ("01", "01_ST/SEG"):
        (tmp_path / folder).mkdir(parents=True)
    for k, (image, numbers) in enumerate(zip(images, cells)):
        write_tiff(tmp_path / "01" / f"t{k:03}.tif", image)
        write_tiff(tmp_path / "01_ST" / "SEG" / f"man_seg{k:03}.tif", numbers)
    argv = ["hela", "--data", str(tmp_path), "--size", "24x30", *TINY, "--steps", "3", "--out", str(tmp_path / "run")]
    assert cli.run(train.main, argv) == 0, capsys.readouterr().err
    assert "SEG" in capsys.readouterr().out
    scores = json.loads((tmp_path / "run" / "metrics.json").read_text())["scores"]
    assert checkpoint.load(tmp_path / "run" / "checkpoint.safetensors").extra["labels"]["kind"] == "instances"
    assert 0 <= scores["seg"] <= 1 and {"background", "cell"} == set(scores["iu"])
    assert (tmp_path / "run" / "log.csv").read_text().startswith("step,seconds,learning_rate,loss,held_out_seg")


def test_instances_on_the_command_line(tmp_path, capsys):
    images, cells = touching(3)
    for k in range(3):
        np.save(tmp_path / f"a{k}.npy", images[k])
        np.save(tmp_path / f"a{k}_gt.npy", cells[k])
    argv = ["folder", "--images", str(tmp_path), "--masks", str(tmp_path), "--instances", *TINY, "--steps", "2"]
    assert cli.run(train.main, [*argv, "--weights", "border", "--out", str(tmp_path / "run")]) == 0
    assert "every other value: one cell each" in capsys.readouterr().out
    argv = [str(tmp_path / "run" / "checkpoint.safetensors"), str(tmp_path / "a0.npy"), "--out", str(tmp_path / "p")]
    assert cli.run(predict.main, [*argv, "--backend", "reference"]) == 0
    (labels,) = (tmp_path / "p").glob("a0_labels.*")  # numbers of cells
    assert read_image(labels).shape == (24, 30) and read_image(labels).dtype.kind in "iu"


def own_instances(tmp_path, shapes: bool = False) -> Dataset:
    images, cells = touching(3)
    for k in range(3):
        cut = slice(0, 30 - 3 * k) if shapes else slice(None)
        np.save(tmp_path / f"a{k}.npy", images[k][:, cut])
        np.save(tmp_path / f"a{k}_gt.npy", cells[k][:, cut])
    return load_folder(tmp_path, tmp_path, instances=True, val=0.5)


@pytest.mark.parametrize("shapes", [False, True])
def test_instances_are_scored_one_by_one(tmp_path, shapes):
    data = own_instances(tmp_path, shapes)
    judge = Instances(data, np.array([1, 2]))
    assert isinstance(data.images, Mixed) == shapes
    perfect = [np.eye(2, dtype=np.float32)[data.labels[s]] for s in (1, 2)]
    verdict = judge.final(iter(perfect))
    expected = [metrics.seg_measure(data.instances[s], instances_from_labels(data.labels[s])) for s in (1, 2)]
    assert abs(verdict.scores["seg"] - np.mean(expected)) < 1e-12 and verdict.scores["seg"] > 0.85
    assert verdict.scores["iu"]["cell"] == 1 and verdict.row["held_out_seg"] == verdict.scores["seg"]
    merged = [np.eye(2, dtype=np.float32)[(data.instances[s] > 0).astype(int)] for s in (1, 2)]
    row, text = judge.quick(iter(merged))
    assert row["held_out_seg"] < 0.6 and "SEG" in text  # one cell in place of two


def test_border_weights_lie_between_the_true_cells(tmp_path):
    data = own_instances(tmp_path)
    config = Config(steps=1, weights="border", padding="same", flips=0, rotations=0, tile=24)
    images = by_section(data.images)
    sampler = Sampler(images, data.labels, config, (24, 30), (24, 30), data.instances)
    weights = sampler.batch(0).w[0]
    assert weights.shape == (24, 30) and weights[12, 13:15].min() > 5 and weights[12, 8] == 1
    assert np.array_equal(np.unique(sampler.instances[0]), [0, 3, 8])


def test_mixed_images_are_normalised_one_by_one():
    rng = np.random.default_rng(3)
    arrays = [rng.integers(0, 60000, (5 + k, 7, 3)).astype(np.uint16) for k in range(3)]
    found = by_section(Mixed(arrays))
    for a, b in zip(arrays, found):
        expected = (a - a.mean(axis=(0, 1))) / a.std(axis=(0, 1))
        assert b.dtype == np.float32 and np.abs(b - expected).max() <= 1e-5
    same = rng.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    exact, general = channel_statistics(same), channel_statistics(same.astype(np.int32))
    assert np.allclose(exact["mean"], general["mean"]) and np.allclose(exact["sd"], general["sd"])


def test_pictures_are_of_one_size():
    maps = [np.zeros((1000, 500), np.uint8), np.ones((20, 30), np.uint8)]
    images = [np.full((1000, 500), 7, np.uint16), np.linspace(0, 1, 600).reshape(20, 30)]
    pictures, truth, found = alike(images, maps, maps)
    assert pictures.shape == truth.shape == found.shape == (2, 640, 320) and pictures.dtype == np.uint8
    assert truth[1].all() and pictures[1].max() > 240
