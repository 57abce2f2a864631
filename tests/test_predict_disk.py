"""Disks that are really full or read-only: small file systems in memory, and limits on the size of files."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from predictions import contents, runner

from minunet import models
from minunet.data import write_png, write_tiff
from minunet.predict import RECORD
from minunet.prediction import progress, stores

pytestmark = pytest.mark.usefixtures("reference")


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """An empty disk of 256 KiB, if this user may mount one."""
    folder = tmp_path / "a disk é"
    folder.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    except OSError as error:
        pytest.skip(f"needs the program mount ({error})")
    if done.returncode:
        pytest.skip(f"may not mount a disk in memory ({done.stderr.decode().strip()})")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # whoever looks at it meanwhile


@pytest.fixture
def run(tmp_path, capfd) -> Callable:
    return runner(tmp_path, capfd, models.build("unet", width=2, depth=1, seed=3))


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def test_a_disk_that_fills_up_keeps_what_is_done_and_resume_goes_on(tmp_path, disk, run, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(stores, "CHUNK", 100)
    write_tiff(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 255, (400, 300)).astype(np.uint8))
    options = ["--tile", "100", "--out-format", "zarr"]
    assert run(tmp_path / "a.tif", *options, out=tmp_path / "whole")[0] == 0
    code, _, err = run(tmp_path / "a.tif", *options, out=disk)
    (line, *more) = err.splitlines()
    assert code == 1 and all("predictions.json" in other for other in more)  # which has no room either
    assert line.startswith("error: ") and "a.tif" in line and "No space left" in line and "--resume" in line
    kept, total = (int(word) for word in line.split("; ")[-1].split(" tiles")[0].split(" of "))
    assert 1 <= kept < total and (disk / "a_progress.json").exists()
    remount(disk, "size=20m")
    code, out, err = run(tmp_path / "a.tif", *options, "--resume", out=disk)
    assert (code, err) == (0, "") and "a_mask.zarr" in out
    assert contents(disk) == contents(tmp_path / "whole")


@pytest.mark.parametrize("how", ["tiff", "npy", "png"])
def test_no_room_is_known_before_the_work(tmp_path, disk, run, how):
    pixels = np.random.default_rng(0).integers(0, 255, (300, 300)).astype(np.uint8)
    write_png(tmp_path / "a.png", pixels)
    code, out, err = run(tmp_path / "a.png", *([] if how == "png" else ["--out-format", how]), out=disk)
    assert code == 1 and "->" not in out and len(err.splitlines()) == 1
    assert "KiB are needed" in err and "make room" in err
    assert [p.name for p in disk.iterdir()] == [RECORD]


def test_a_read_only_disk(tmp_path, disk, run):
    write_png(tmp_path / "a.png", np.zeros((40, 50), np.uint8))
    remount(disk, "ro")
    for out in (disk, disk / "new"):
        code, _, err = run(tmp_path / "a.png", "--tile", "20", out=out)
        assert code == 1 and 1 <= len(err.splitlines()) <= 2
        for line in err.splitlines():
            assert "Read-only file system" in line and "name a folder that can be written to" in line
            assert ".tmp" not in line
    remount(disk, "rw")
    assert list(disk.iterdir()) == []


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.parametrize("how", ["tiff", "npy", "zarr"])
def test_files_that_may_not_grow(tmp_path, run, how):
    """Zarr's chunks are small enough; of the others nothing is begun."""
    write_tiff(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 255, (400, 500)).astype(np.uint8))
    argv = [str(tmp_path / "net.safetensors"), str(tmp_path / "a.tif"), "--backend", "reference", "--tile", "200"]
    argv += ["--out", str(tmp_path / "out"), "--out-format", how]
    done = subprocess.run(
        [sys.executable, "-m", "minunet.predict", *argv], capture_output=True, text=True, preexec_fn=limited
    )
    if how == "zarr" and done.returncode == 0:
        assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file() and p.stat().st_size > 100_000]
        return
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "a.tif" in done.stderr and "File too large" in done.stderr
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith("a_mask") and how != "zarr"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_standard_output(tmp_path, run):
    write_png(tmp_path / "a.png", np.zeros((40, 50), np.uint8))
    argv = [str(tmp_path / "net.safetensors"), str(tmp_path / "a.png"), "--backend", "reference", "--out", "-"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "minunet.predict", *argv], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: standard output: No space left on device")
