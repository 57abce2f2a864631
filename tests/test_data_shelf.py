"""Data sets larger than memory: the same bits from a file, which needs room, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from minunet.data import shelf
from minunet.data.dataset import resized
from minunet.data.folder import load_folder
from minunet.data.images import write_png, write_tiff
from minunet.data.mapped import is_mapped
from minunet.data.mixed import Mixed, gather
from minunet.data.shelf import Shelf, in_order
from minunet.errors import UserError
from minunet.training import inputs
from minunet.training.config import Config
from minunet.training.sampler import Sampler


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MINUNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def grey(seed: int, *shape: int, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def put_folder(root: Path, colour: bool = False, mixed: bool = True) -> tuple[Path, Path]:
    """Nine sections in seven files."""
    places = root / "images", root / "masks"
    for place in places:
        place.mkdir()
    for k in range(6):
        size = (20 + k * mixed, 31)
        write_png(places[0] / f"a{k}.png", grey(k, *size, *((3,) if colour and k % 2 else ())))
        if colour and not k % 2:  # grey, saved in colour
            write_png(places[0] / f"a{k}.png", grey(k, *size, 1).repeat(3, 2))
        write_png(places[1] / f"a{k}.png", np.array([0, 70, 255], np.uint8)[grey(k, *size) % 3])
    if not colour:
        write_tiff(places[0] / "s.tif", grey(9, 3, 20, 31, dtype=np.uint16))
        write_tiff(places[1] / "s.tif", np.array([0, 70, 255], np.uint16)[grey(9, 3, 20, 31) % 3])
    return places


def same(a, b) -> bool:
    """Two data sets of the same bits, whatever holds them."""
    arrays = [(x, y) for part in ("images", "labels", "instances") for x, y in [(getattr(a, part), getattr(b, part))]]
    alike = all(
        (x is None and y is None) or all(np.array_equal(p, q) for p, q in zip(x, y, strict=True)) for x, y in arrays
    )
    return alike and (a.sha256, a.source, a.table, a.names) == (b.sha256, b.source, b.table, b.names)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("options", [{}, {"size": (12, 17)}, {"instances": True}])
def test_the_same_bits_from_a_file(tmp_path, monkeypatch, cache, colour, options):
    places = put_folder(tmp_path, colour)
    shown: tuple[list[str], list[str]] = ([], [])
    small = load_folder(*places, **options, show=shown[0].append)
    monkeypatch.setattr(shelf, "KEEP", 1500)  # two of them
    monkeypatch.setattr(shelf, "SEGMENT", 4096)
    large = load_folder(*places, **options, show=shown[1].append)
    assert same(small, large) and shown[0] == shown[1]
    mapped = [is_mapped(a) for a in large.images]
    assert isinstance(large.images, Mixed) and any(mapped)
    assert all(not a.flags.writeable for a, m in zip(large.images, mapped) if m)
    assert isinstance(large.images[large.parts["train"]], Mixed)  # a part is not taken into memory either
    if "size" not in options:
        assert isinstance(small.images, Mixed)
    assert list((cache / "unpacked").iterdir()) == []


@pytest.mark.parametrize("instances", [False, True])
def test_sizes_are_those_of_resizing_afterwards(tmp_path, instances):
    places = put_folder(tmp_path)
    at_once = load_folder(*places, size=(13, 16), instances=instances)
    assert same(at_once, resized(load_folder(*places, instances=instances), (13, 16)))
    assert at_once.images.shape == (9, 13, 16) and at_once.source.endswith("resized to 13 x 16")


def test_a_shelf_gives_back_what_was_put(monkeypatch):
    monkeypatch.setattr(shelf, "KEEP", 100)
    monkeypatch.setattr(shelf, "SEGMENT", 1000)
    kept = Shelf("things")
    arrays = [grey(k, *shape) for k, shape in enumerate([(9, 9), (1, 1), (31, 33, 3), (7,), (50, 20), (3, 5)])]
    arrays += [np.linspace(0, 1, 33).reshape(3, 11)[:, ::2], np.zeros((5, 4), np.int32).T, np.arange(6, dtype=">u2")]
    back = [kept.put(a) for a in arrays]
    for a, b in zip(arrays, back):
        assert b.dtype == a.dtype and b.shape == a.shape and np.array_equal(a, b)
    assert [is_mapped(b) for b in back] == [False, False] + 7 * [True]
    assert all(b.ctypes.data % b.itemsize == 0 for b in back)
    del kept
    assert np.array_equal(back[4], arrays[4])  # the map holds the file
    assert isinstance(gather([back[5], back[5]]), Mixed) and isinstance(gather([back[0], back[0]]), np.ndarray)


def test_weight_maps_and_cells_beyond_memory_are_the_same(monkeypatch):
    images, labels = grey(1, 4, 40, 44).astype(np.float32), (grey(2, 4, 40, 44) > 60).astype(np.uint8)
    config = Config(steps=1, weights="paper", batch=1, tile=28)
    small = Sampler(images, labels, config, (28, 28), (12, 12))
    monkeypatch.setattr(shelf, "KEEP", 8000)  # one of them
    large = Sampler(images, labels, config, (28, 28), (12, 12))
    for kept, same_in_memory in ((large.maps, small.maps), (large.instances, small.instances)):
        assert [is_mapped(a) for a in kept] == [False, True, True, True]
        assert all(np.array_equal(a, b) for a, b in zip(kept, same_in_memory, strict=True))
    for k in range(3):
        assert all(np.array_equal(a, b) for a, b in zip(large.batch(k), small.batch(k), strict=True))


def test_a_disk_without_room_is_noticed_at_once(tmp_path, monkeypatch, cache):
    places = put_folder(tmp_path)
    monkeypatch.setattr(shelf, "KEEP", 1500)
    monkeypatch.setattr(shelf.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(UserError) as caught:
        load_folder(*places)
    text = str(caught.value)
    words = (str(cache), "images", "0.0 GiB are free", "MINUNET_CACHE", "--size")
    assert "\n" not in text and all(word in text for word in words)
    assert list((cache / "unpacked").iterdir()) == []
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINUNET_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="MINUNET_CACHE"):
        load_folder(*places)


CHILD = """
import os, resource, signal, sys, threading
import numpy as np
from minunet.data import shelf
from minunet.data.folder import load_folder
from minunet.errors import UserError
from minunet.training import inputs
from minunet.training.config import Config
from minunet.training.sampler import Sampler
shelf.KEEP = 1 << 30 if sys.argv[1] == "all" else 4 << 20
os.cpu_count = lambda: 2
threading.stack_size(1 << 20)
what, images, masks = sys.argv[1:]
if what == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    shelf.SEGMENT = 1 << 22
    resource.setrlimit(resource.RLIMIT_FSIZE, (9 << 20,) * 2)
else:
    import scipy.ndimage, minunet.data.separate
    used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData:")) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (used + (125 << 20),) * 2)
try:
    data = load_folder(images, masks)
except UserError as error:
    sys.exit(str(error))
print(len(data.images), data.sha256)
"""


def child(what: str, places: tuple[Path, Path]) -> subprocess.CompletedProcess:
    argv = [sys.executable, "-c", CHILD, what, *map(str, places)]
    return subprocess.run(argv, capture_output=True, text=True)


@pytest.fixture
def photographs(tmp_path) -> tuple[Path, Path]:
    """40 pictures of 2.4 MB each, with masks of 0.8 MB."""
    places = tmp_path / "images", tmp_path / "masks"
    for place in places:
        place.mkdir()
    y, x = np.mgrid[:800, :1000]
    for k in range(40):
        picture = np.stack([x // 8, y // 8 + k, 0 * x], -1).astype(np.uint8)
        Image.fromarray(picture).save(places[0] / f"{k}.jpg")
        Image.fromarray(x > 400).save(places[1] / f"{k}.png")
    return places


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts what a process may write to")
def test_more_pictures_than_memory(photographs):
    assert "MemoryError" in child("all", photographs).stderr
    done = child("little", photographs)
    assert (done.returncode, done.stderr) == (0, "")
    data = load_folder(*photographs)
    assert done.stdout.split() == ["40", data.sha256]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_file_that_cannot_grow_is_one_line(photographs, cache):
    done = child("full", photographs)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "images take about 0.1 GiB unpacked" in done.stderr and "File too large" in done.stderr
    assert os.listdir(cache / "unpacked") == []


def test_threads_keep_order_and_do_not_run_ahead(monkeypatch):
    monkeypatch.setattr(shelf.os, "cpu_count", lambda: 3)
    started, lock = [], threading.Lock()

    def work(k: int) -> int:
        with lock:
            started.append(k)
        if k == 40:
            raise KeyError(k)
        return k * k

    found = in_order(work, range(50))
    for k in range(40):
        assert next(found) == k * k
        assert len(started) <= k + 5
    with pytest.raises(KeyError):
        next(found)
    assert list(in_order(work, [])) == []


@pytest.mark.parametrize("how", ["section", "dataset"])
@pytest.mark.parametrize("colour", [False, True])
def test_training_sees_the_same_values(tmp_path, monkeypatch, how, colour):
    places = put_folder(tmp_path, colour)
    small = load_folder(*places)
    *eager, record = inputs.prepare(small, how, *small.parts.values())
    monkeypatch.setattr(shelf, "KEEP", 1500)
    monkeypatch.setattr(inputs, "KEEP", 1500)
    large = load_folder(*places)
    *lazy, again = inputs.prepare(large, how, *large.parts.values())
    assert record == again
    for a, b in zip(eager, lazy):
        assert len(a) == len(b) > 0
        assert all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in range(len(a)))
