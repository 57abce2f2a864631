"""Images that are not taken into memory: mapped and unpacked files, Zarr, resuming after kills, full disks."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from predictions import contents, noise, runner

from minunet import models
from minunet.data import mapped, normalise, read_image, reading, write_png, write_tiff
from minunet.errors import UserError
from minunet.predict import RECORD
from minunet.prediction import progress, stores
from minunet.prediction.stores import open_store

pytestmark = pytest.mark.usefixtures("reference")


@pytest.fixture
def model():
    return models.build("unet", width=2, depth=1, seed=3)


@pytest.fixture
def run(tmp_path, capfd, model):
    """Run the command on files in tmp_path: (exit code, stdout, stderr)."""
    return runner(tmp_path, capfd, model)


def zarr(folder: Path) -> np.ndarray:
    """A Zarr array, version 2, read by its specification."""
    about = json.loads((folder / ".zarray").read_text())
    assert about["zarr_format"] == 2 and about["order"] == "C" and about["compressor"]["id"] == "zlib"
    out = np.full(about["shape"], about["fill_value"], about["dtype"])
    for path in folder.iterdir():
        if path.name == ".zarray":
            continue
        chunk = np.frombuffer(zlib.decompress(path.read_bytes()), about["dtype"]).reshape(about["chunks"])
        at = [int(n) * c for n, c in zip(path.name.split("."), about["chunks"])]
        place = out[tuple(slice(i, i + c) for i, c in zip(at, about["chunks"]))]
        place[...] = chunk[tuple(slice(0, n) for n in place.shape)]
    return out


# Reading -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "how", "is_map"),
    [
        ("a.tif", {}, True),
        ("a.tif", {"bigtiff": True}, True),
        ("a.tif", {"byteorder": ">"}, True),
        ("a.tif", {"compression": "zlib", "rowsperstrip": 7}, True),
        ("a.tif", {"tile": (32, 16), "compression": "zlib", "predictor": True}, True),
        ("a.tif", {"tile": (16, 32)}, True),
        ("a.npy", {}, True),
        ("a.png", {}, False),
    ],
)
@pytest.mark.parametrize("shape", [(61, 83), (3, 40, 37)])
def test_mapped_files_are_what_reading_gives(tmp_path, monkeypatch, name, how, is_map, shape):
    monkeypatch.setattr(mapped, "UNPACK", 0)
    path, pixels = tmp_path / name, noise(*shape, dtype=np.uint16)
    if name.endswith(".tif"):
        tifffile.imwrite(path, pixels, photometric="minisblack", metadata=None, **how)
    elif name.endswith(".npy"):
        np.save(path, pixels)
    elif len(shape) == 2:
        write_png(path, pixels)
    else:
        pytest.skip("a PNG is no stack")
    opened = mapped.open_image(path, tmp_path)
    assert opened.shape == shape and mapped.is_mapped(opened) == is_map and np.array_equal(opened, pixels)
    mapped.forget(opened)
    assert np.array_equal(opened, pixels)
    del opened
    assert os.listdir(tmp_path) == [name]


def test_damaged_files_are_one_line(tmp_path):
    write_tiff(tmp_path / "a.tif", noise(50, 60))
    data = (tmp_path / "a.tif").read_bytes()
    for n in (0, 5, 100, len(data) - 1):
        (tmp_path / "cut.tif").write_bytes(data[:n])
        with pytest.raises(UserError, match=r"cut\.tif") as caught:
            mapped.open_image(tmp_path / "cut.tif")
        assert "\n" not in str(caught.value)
    np.save(tmp_path / "words.npy", np.array(["a"]))
    with pytest.raises(UserError, match="not numbers"):
        mapped.open_image(tmp_path / "words.npy")


@pytest.mark.parametrize("chunk", [1 << 22, 100])
def test_windows_are_normalised_as_the_whole(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(reading, "CHUNK", chunk)
    pixels = noise(3, 31, 45, dtype=np.uint16) // 3 + 7
    pixels[1] = 9
    write_tiff(tmp_path / "a.tif", pixels)
    source = reading.SectionFile(str(tmp_path / "a.tif"), 1, {})
    for s in (2, 0, 1):
        source.choose(s)
        whole = np.pad(normalise(pixels[s]), 5, mode="reflect")
        assert np.abs(source.read(-5, 3, 20, 40)[..., 0] - whole[:20, 8:48]).max() <= 1e-6
        assert np.array_equal(source.raw(2, 3, 4, 5)[..., 0], pixels[s, 2:6, 3:8])


# Writing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tiff", "npy", "zarr", "png"])
@pytest.mark.parametrize("shape", [(1, 600, 530), (3, 40, 37), (2, 33, 20, 3)])
def test_stores_hold_what_was_written(tmp_path, kind, shape):
    if kind == "png" and shape[0] > 1:
        pytest.skip("a PNG is no stack")
    pixels = noise(*shape, dtype=np.uint8)
    store = open_store(tmp_path / "a b.é", kind, shape, np.uint8, shape[0] == 1)
    for s in range(shape[0]):
        for i, j, h, w in [(0, 0, 13, shape[2]), (13, 0, shape[1] - 13, 11), (13, 11, shape[1] - 13, shape[2] - 11)]:
            store.write(s, i, j, pixels[s, i : i + h, j : j + w])
    assert np.array_equal(store.rows(0, 5, 30), pixels[0, 5:30])
    store.sync()
    store.close()
    store = open_store(tmp_path / "a b.é", kind, shape, np.uint8, shape[0] == 1, resume=True)
    store.finish()
    (path,) = tmp_path.iterdir()
    assert path.name == "a b.é" + stores.ENDINGS[kind]
    expected = pixels[0] if shape[0] == 1 else pixels
    if kind == "zarr":
        assert np.array_equal(zarr(path), expected)
    elif kind == "npy":
        assert np.array_equal(np.load(path), expected)
    else:
        assert np.array_equal(tifffile.imread(path) if kind == "tiff" else read_image(path), expected)


@pytest.mark.parametrize("how", ["tiff", "npy", "zarr"])
def test_formats_hold_the_same(tmp_path, run, how):
    image = noise(70, 90)
    write_png(tmp_path / "ä b.png", image)
    code, _, err = run(tmp_path / "ä b.png", "--tile", 30, "--out-format", how, "--average", 3)
    assert (code, err) == (0, "")
    assert run(tmp_path / "ä b.png", "--average", 3, out="other")[0] == 0
    for kind in ("mask", "probability"):
        path = tmp_path / "out" / f"ä b_{kind}{stores.ENDINGS[how]}"
        got = {"tiff": read_image, "npy": np.load, "zarr": zarr}[how](path)
        whole = read_image(tmp_path / "other" / f"ä b_{kind}.png")
        assert got.shape == whole.shape and got.dtype == whole.dtype
        assert np.abs(got.astype(int) - whole).max() <= (1 if kind == "probability" else 0)
    assert len(list((tmp_path / "out").iterdir())) == 3


# Resuming ------------------------------------------------------------------------------------------------------------

CHILD = """
import signal, sys
from minunet import cli, tiled
from minunet.prediction import progress
from minunet.predict import main
progress.EVERY = 0.0
one, left = tiled.predict_target, int(sys.argv[1])
def counted(*args):
    global left
    if left == 0:
        print("enough", flush=True)
        signal.pause()  # until it is killed
    left -= 1
    return one(*args)
tiled.predict_target = counted
sys.exit(cli.run(main, sys.argv[2:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("how", ["tiff", "zarr"])
def test_killed_and_resumed_ends_with_the_same_bytes(tmp_path, run, how):
    write_tiff(tmp_path / "a.tif", noise(2, 120, 100))
    options = ["--tile", "12", "--out-format", how, "--overlay", "edges"]
    assert run(tmp_path / "a.tif", *options, out="undisturbed")[0] == 0
    argv = [str(tmp_path / "net.safetensors"), str(tmp_path / "a.tif"), *options, "--backend", "reference"]
    argv += ["--out", str(tmp_path / "out"), "--resume"]
    record = tmp_path / "out" / "a_progress.json"
    seen = []
    for tiles in 31, 25:  # the second run goes on, or it would end behind the first
        with subprocess.Popen([sys.executable, "-c", CHILD, str(tiles), *argv], stdout=subprocess.PIPE) as child:
            assert any(line == b"enough\n" for line in child.stdout)
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL
        seen.append(json.loads(record.read_text())["done"])
    assert 0 < seen[0] < seen[1]
    assert subprocess.run([sys.executable, "-c", CHILD, "-1", *argv], stdout=subprocess.DEVNULL).returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_a_full_disk_keeps_what_is_there(tmp_path, run, monkeypatch):
    write_tiff(tmp_path / "a.tif", noise(3, 60, 50))
    assert run(tmp_path / "a.tif", "--tile", 20, out="undisturbed")[0] == 0
    write, calls = stores.RowStore.write, []

    def full(self, *args):
        calls.append(args)
        if len(calls) > 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, *args)

    monkeypatch.setattr(stores.RowStore, "write", full)
    code, _, err = run(tmp_path / "a.tif", "--tile", 20)
    assert code == 1 and len(err.splitlines()) == 1 and "No space left" in err and "4 of 27 tiles are kept" in err
    monkeypatch.setattr(stores.RowStore, "write", write)
    assert (tmp_path / "out" / "a_mask.partial.tif").exists()
    code, _, err = run(tmp_path / "a.tif", "--tile", 16, "--resume")
    assert code == 2 and "another window" in err and "--resume" in err
    monkeypatch.setattr(stores.RowStore, "write", lambda self, *args: (calls.append(args), write(self, *args)))
    calls.clear()
    assert run(tmp_path / "a.tif", "--tile", 20, "--resume")[0] == 0
    assert len(calls) == 2 * (27 - 4)
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_no_room_is_known_before_the_work(tmp_path, run, monkeypatch):
    write_tiff(tmp_path / "a.tif", noise(60, 50))
    monkeypatch.setattr(stores.shutil, "disk_usage", lambda path: SimpleNamespace(free=4000))
    code, _, err = run(tmp_path / "a.tif")
    assert code == 1 and len(err.splitlines()) == 1 and "No space left" in err
    assert {p.name for p in (tmp_path / "out").iterdir()} == {RECORD}


def test_without_resume_it_begins_anew(tmp_path, run, monkeypatch):
    write_tiff(tmp_path / "a.tif", noise(60, 50))
    assert run(tmp_path / "a.tif", "--tile", 20, out="undisturbed")[0] == 0

    def broken(self, stores):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(progress.Progress, "advance", broken)
        assert run(tmp_path / "a.tif", "--tile", 20)[0] == 1
    assert run(tmp_path / "a.tif", "--tile", 20)[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that nobody may write to")
def test_read_only_folder(tmp_path, run):
    write_tiff(tmp_path / "a.tif", noise(60, 50))
    for out in ("/proc/self/out", "/proc/self"):
        code, _, err = run(tmp_path / "a.tif", out=out)
        lines = err.splitlines()
        assert code == 1 and lines and all(line.startswith("error: /proc") or "a.tif" in line for line in lines)
