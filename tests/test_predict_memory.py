"""The memory that a prediction takes, as it was estimated; pipes and folders in place of files."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from predictions import noise, runner

import minunet as mu
from minunet import checkpoint, footprint, models
from minunet.data import normalise, write_png, write_tiff
from minunet.predict import RECORD, predict

pytestmark = pytest.mark.usefixtures("reference")


@pytest.fixture
def model():
    return models.build("unet", width=2, depth=1, seed=3)


@pytest.fixture
def run(tmp_path, capfd, model):
    """Run the command on files in tmp_path: (exit code, stdout, stderr)."""
    return runner(tmp_path, capfd, model)


# Memory --------------------------------------------------------------------------------------------------------------

MEASURED = """
import sys
from minunet import cli, footprint
from minunet.predict import main
code = cli.run(main, sys.argv[1:])
print("most", footprint.highest())
sys.exit(code)
"""


def measured(folder: Path, *argv: str) -> tuple[int, str]:
    """Bytes that a process of its own occupied at most while it ran the command, and what it printed."""
    command = [sys.executable, "-c", MEASURED, "net.safetensors", *argv, "--out", "out"]
    threads = {"NUMBA_NUM_THREADS": "2"}  # each more may need 4 MiB, and where tiles are small it does not
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | threads)
    assert (done.returncode, done.stderr) == (0, "")
    return int(done.stdout.split()[-1]), done.stdout


@pytest.mark.skipif(footprint.highest() is None, reason="this system does not say what a process occupied")
def test_memory_is_what_was_estimated(tmp_path):
    write_tiff(tmp_path / "large.tif", noise(1000, 1100))
    checkpoint.save(tmp_path / "net.safetensors", models.build("unet", width=16))
    measured(tmp_path, "large.tif", "--tile", "200")  # compiles what is not compiled yet
    for arguments, options in [
        ({}, ["--tile", "200"]),
        ({}, ["--tile", "900"]),
        ({"padding": "same"}, ["--memory", "0.45", "--average", "2"]),
    ]:
        checkpoint.save(tmp_path / "net.safetensors", models.build("unet", width=16, **arguments))
        most, printed = measured(tmp_path, "large.tif", *options)
        (entry,) = json.loads((tmp_path / "out" / RECORD).read_text())["files"]
        assert abs(entry["memory"] - most) <= 0.15 * most
        assert f"memory: about {entry['memory'] / 2**30:.2f} GiB" in printed
        if "--memory" in options:
            assert 0.3 * 2**30 < most <= 1.15 * 0.45 * 2**30 and entry["memory"] <= 0.45 * 2**30


def test_too_little_memory(tmp_path, run):
    write_tiff(tmp_path / "a.tif", noise(60, 50))
    for options in ([], ["--tile", "30"]):
        code, _, err = run(tmp_path / "a.tif", "--memory", "0.01", *options)
        assert code == 1 and len(err.splitlines()) == 1 and "--memory 0.01" in err and "GiB" in err


def test_activations_are_counted(model):
    """U-Net of width 2 and depth 1, at most: the image, the first layer's and the second's output."""
    assert footprint.activations(model, (20, 20)) == 4 * (20 * 20 + 2 * 18 * 18 + 2 * 16 * 16)
    assert footprint.activations(model.astype(np.float64), (20, 20)) == 8 * (20 * 20 + 2 * 18 * 18 + 2 * 16 * 16)
    with mu.use_backend("cpu"):
        assert footprint.activations(model, (400, 400)) >= 8 * 3 * 400 * 400


# Pipes and folders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "tiff", "npy"])
@pytest.mark.parametrize("out_format", [None, "npy"])
def test_pipes(tmp_path, model, run, kind, out_format):
    image = noise(33, 46)
    data = io.BytesIO()
    if kind == "npy":
        np.save(data, image)
    else:
        path = tmp_path / f"a.{kind}"
        (write_png if kind == "png" else write_tiff)(path, image)
        data.write(path.read_bytes())
    argv = [str(tmp_path / "net.safetensors"), "-", "--out", "-", "--backend", "reference", "--result", "probability"]
    argv += ["--out-format", out_format] if out_format else []
    done = subprocess.run([sys.executable, "-m", "minunet.predict", *argv], input=data.getvalue(), capture_output=True)
    assert done.returncode == 0 and b"memory: about" in done.stderr
    p = (np.load if out_format else tifffile.imread)(io.BytesIO(done.stdout))
    expected = predict(model, normalise(image))[..., 1]
    assert p.shape == expected.shape and p.dtype == np.uint16 and np.abs(p / 65535 - expected).max() <= 1e-4


def test_pipes_that_cannot_be(tmp_path, run):
    write_png(tmp_path / "a.png", noise(9, 9))
    for argv, word in [
        ([tmp_path / "a.png", tmp_path / "a.png"], "takes one image"),
        ([tmp_path / "a.png", "--resume"], "without --resume"),
        ([tmp_path / "a.png", "--out-format", "zarr"], "without --out-format zarr"),
        ([tmp_path / "a.png", "--result", "dreams"], "mask, probability"),
    ]:
        code, out, err = run(*argv, out="-")
        assert code == 2 and out == "" and word in err.splitlines()[-1]


def test_folders_are_their_images(tmp_path, run):
    (tmp_path / "my images").mkdir()
    for name in ("2.png", "10.png"):
        write_png(tmp_path / "my images" / name, noise(12, 10))
    (tmp_path / "my images" / "notes.txt").write_text("no image")
    code, out, err = run(tmp_path / "my images")
    assert (code, err) == (0, "")
    assert [line.split(":")[0][-6:] for line in out.splitlines() if "->" in line] == ["/2.png", "10.png"]
    (tmp_path / "empty").mkdir()
    code, _, err = run(tmp_path / "empty")
    assert code == 1 and "holds no images" in err
