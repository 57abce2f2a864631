"""Two thousand malformed inputs and more: each gives a result or one plain line; no traceback, no hang, no memory."""

from __future__ import annotations

import contextlib
import io
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import hostile
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import minunet as mu
from minunet import cli, predict
from minunet.checkpoint import load
from minunet.data.__main__ import main as data_main
from minunet.data.folder import load_folder
from minunet.data.images import read_image, read_palette
from minunet.data.masks import read_mask
from minunet.errors import UserError

SECONDS = 5.0  # of its own time, which other programs do not use up: none may take longer
WALL = 600.0  # on the clock, of a machine that others use
GROWTH = 300 << 20  # bytes by which the process may grow: far below 1 GB, which is the limit in the child below
VALID = hostile.valid_images()


@contextlib.contextmanager
def bounded(what: object):
    """Raise if the block takes longer than SECONDS of its own or WALL on the clock, in whatever loop it is."""

    def late(number, frame):
        raise TimeoutError(f"{what}: took longer than {WALL} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, WALL)
    start = time.thread_time()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    taken = time.thread_time() - start
    assert taken < SECONDS, f"{what}: took {taken:.1f} s"


@pytest.fixture(autouse=True)
def little_memory():
    """The process does not grow by more than GROWTH during a test."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < GROWTH, f"grew by {grown >> 20} MiB"


def one_line(call, path, what) -> bool:
    """Whether the call refused the file, in one line that begins with its name."""
    with bounded(what):
        try:
            call(path)
        except UserError as error:
            text = str(error)
            assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 600 + len(str(path)), (what, text)
            return True
    return False


@pytest.mark.parametrize("name", VALID)
def test_mutated_images(tmp_path, name, capfd):
    """90 mutations of each of 18 kinds."""
    path = tmp_path / f"x{name}"
    path.write_bytes(VALID[name])
    read_image(path)
    refused = 0
    for seed in range(90):
        path.write_bytes(hostile.mutate(name, VALID[name], random.Random(f"{name} {seed}")))
        refused += one_line(read_image, path, (name, seed))
        one_line(read_mask, path, (name, seed, "mask"))
        one_line(read_palette, path, (name, seed, "palette"))
    assert refused >= 20
    noise = capfd.readouterr()
    assert noise.out == "" and noise.err == ""


@pytest.mark.parametrize("name", sorted(hostile.hostile_images()))
def test_files_made_by_hand(tmp_path, name, capfd):
    path = tmp_path / name
    path.write_bytes(hostile.hostile_images()[name])
    if not one_line(read_image, path, name):
        assert read_image(path).shape == (11, 14), name
    noise = capfd.readouterr()
    assert noise.out == "" and noise.err == ""


magic = st.sampled_from([VALID[n][:k] for n in VALID for k in (4, 8, 30, 60)])


@settings(max_examples=250)
@given(magic, st.binary(max_size=300), st.sampled_from(["a.png", "b.tif", "c.npy", "d.jpg", "e"]))
@example(b"", b"", "a.png")
@example(b"II*\0", b"\x08\0\0\0", "b.tif")
def test_any_bytes_after_a_beginning(tmp_path, head, rest, name):
    path = tmp_path / name
    path.write_bytes(head + rest)
    one_line(read_image, path, (head[:8], rest))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "net.safetensors"
    model = mu.models.build("unet", in_channels=1, n_classes=2, width=2, depth=1, padding="same")
    mu.checkpoint.save(path, model, extra={"normalise": "section"})
    return path


def test_mutated_checkpoints(tmp_path, checkpoint):
    """250: none is loaded unless it is the same file."""
    whole, path = checkpoint.read_bytes(), tmp_path / "x.safetensors"
    for seed in range(250):
        data = hostile.mutate("x.safetensors", whole, random.Random(f"checkpoint {seed}"))
        path.write_bytes(data)
        assert one_line(load, path, seed) or data == whole, seed


@settings(max_examples=80)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_as_a_checkpoint(tmp_path, data, framed):
    path = tmp_path / "x.safetensors"
    path.write_bytes((len(data) + 1).to_bytes(8, "little") + b"{" + data if framed else data)
    assert one_line(load, path, data)


def mutants(folder: Path, n: int, seed: str, of: dict[str, bytes] = VALID) -> list[Path]:
    """n malformed files of all kinds."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths = random.Random(seed), []
    for k in range(n):
        name = sorted(of)[k % len(of)]
        paths.append(folder / f"{k}_{name}")
        paths[-1].write_bytes(hostile.mutate(name, of[name], rng))
    return paths


def test_predict(tmp_path, checkpoint, capfd):
    """Images: each failure is a line, the others are predicted. Checkpoints: one line."""
    paths = mutants(tmp_path / "in", 60, "predict")
    argv = [str(checkpoint), *map(str, paths), "--out", str(tmp_path / "out"), "--backend", "reference"]
    with bounded("predict"):
        assert cli.run(predict.main, argv) == 1
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line]
    assert all(line.startswith("error: ") for line in lines), err
    predicted = [line for line in out.splitlines() if " -> " in line]
    assert len(lines) + len(predicted) == len(paths) and len(lines) > 20
    assert "Traceback" not in out + err
    for bad in mutants(tmp_path / "bad", 20, "nets", {"net.safetensors": checkpoint.read_bytes()}):
        if bad.read_bytes() != checkpoint.read_bytes():
            assert cli.run(predict.main, [str(bad), str(paths[0]), "--out", str(tmp_path / "o")]) == 1
            assert capfd.readouterr().err.count("\n") == 1


def test_data_check(tmp_path, capfd):
    """One folder full of malformed images and masks: each is a line of the table, and a finding where it is damaged."""
    mutants(tmp_path / "images", 90, "images")
    mutants(tmp_path / "masks", 90, "masks")
    with bounded("check"):
        assert cli.run(data_main, ["check", str(tmp_path)]) == 1
    out, err = capfd.readouterr()
    assert err == "" and "Traceback" not in out
    rows = [line for line in out.splitlines() if line.startswith(("image ", "mask "))]
    problems = [line for line in out.splitlines() if line.startswith("PROBLEM: ")]
    assert len(rows) == 180 and len(problems) >= sum("cannot be read" in row for row in rows) > 60


@pytest.mark.parametrize("instances", [False, True])
def test_load_folder(tmp_path, instances):
    """40 pairs of which one or both files are damaged: a data set or one line."""
    grey, cells = hostile.grey(0), (hostile.grey(1) > 99).astype(np.uint8)
    refused = 0
    for k, name in enumerate([*VALID, *VALID][:40]):
        images, masks = tmp_path / f"i{k}", tmp_path / f"m{k}"
        for folder, array in ((images, grey), (masks, cells)):
            folder.mkdir()
            np.save(folder / "b.npy", array)
            (folder / f"a.{name}").write_bytes(VALID[name])
        rng = random.Random(f"folder {k}")
        for folder in rng.choice(((images,), (masks,), (images, masks))):
            (folder / f"a.{name}").write_bytes(hostile.mutate(name, VALID[name], rng))
        with bounded((k, name)):
            try:
                data = load_folder(images, masks, val=0.5, instances=instances)
                assert len(data.images) == len(data.labels) >= 2
            except UserError as error:
                refused += 1
                assert "\n" not in str(error) and str(tmp_path) in str(error), error
        shutil.rmtree(images)
    assert refused >= 15


CHILD = """
import resource, sys
from pathlib import Path
from minunet import cli
from minunet.data.__main__ import main
from minunet.data.images import read_image
from minunet.errors import UserError
from minunet.footprint import highest
import scipy.ndimage, tifffile, PIL.Image
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
for path in sorted(Path(sys.argv[1]).rglob("*.*")):
    try:
        read_image(path)
    except UserError as error:
        assert "\\n" not in str(error)
code = cli.run(main, ["check", sys.argv[1]])
print(code, (highest() or 0) >> 20)
"""


def test_in_a_process_that_has_one_gigabyte(tmp_path):
    """Address space, which is more than memory: whoever reserves what a header declares fails here."""
    folder = tmp_path / "images"
    mutants(folder, 90, "child")
    for name, data in hostile.hostile_images().items():
        (folder / name).write_bytes(data)
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == "" and "Unable to allocate" not in done.stdout and "MemoryError" not in done.stdout
    code, mebibytes = map(int, done.stdout.splitlines()[-1].split())
    assert code == 1 and mebibytes < 1000  # of the child: getrusage would tell its parent's peak, which it inherits


def test_the_mutations_are_many_and_different(checkpoint):
    """What the tests above count on: hardly any mutation is the file itself, and seeds give what they gave."""
    for name in ("grey.png", "stack.tif", "float.npy"):
        made = [hostile.mutate(name, VALID[name], random.Random(s)) for s in range(60)]
        assert len(set(made)) >= 54 and made.count(VALID[name]) <= 4
        assert made[7] == hostile.mutate(name, VALID[name], random.Random(7))
    with pytest.raises(TimeoutError), bounded("a loop"):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        while True:
            io.BytesIO(b"x").read()
