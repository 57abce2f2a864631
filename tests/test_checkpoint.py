"""Checkpoints: bit-exact round trips, every kind of damage detected, and files that survive being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from minunet import checkpoint, models, ops, optim
from minunet.errors import UserError
from minunet.tensor import Tensor

pytestmark = pytest.mark.usefixtures("reference")


def trained(seed: int = 0, steps: int = 2, optimizer=optim.Adam, **arguments):
    """A small U-Net after a few steps, and its optimiser: nothing in their states is zero by chance."""
    model = models.build("unet", **({"width": 2, "depth": 1, "seed": seed} | arguments))
    optimiser = optimizer(model.parameters(), lr=1e-2)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        x = Tensor(rng.standard_normal((1, 20, 22, 1)).astype(np.float32))
        logits = model(x)
        target = rng.integers(0, 2, logits.shape[:3]).astype(np.int32)
        optimiser.zero_grad()
        ops.softmax_cross_entropy(logits, target).backward()
        optimiser.step()
    return model, optimiser


def equal(a: dict, b: dict) -> bool:
    """Same names, dtypes, shapes and bits."""
    same = a.keys() == b.keys()
    return same and all(a[k].dtype == b[k].dtype and a[k].shape == b[k].shape for k in a) and bits(a) == bits(b)


def bits(state: dict) -> list[bytes]:
    return [state[k].tobytes() for k in sorted(state)]


@pytest.mark.parametrize("optimizer", [optim.Adam, optim.SGD])
def test_round_trip_is_bit_exact(tmp_path, optimizer):
    model, optimiser = trained(optimizer=optimizer)
    before = model.state_dict()
    rng = np.random.default_rng(5)
    extra = {
        "step": 2,
        "rng": rng.bit_generator.state,
        "loss": [0.1, np.float32(0.5)],
        "name": 'é "q" \\ \n',
        "no": None,
    }
    arrays = {
        "best/w": np.asfortranarray(rng.standard_normal((3, 5))),
        "none": np.zeros((0, 4), np.float32),
        "scalar": np.array(7, np.int16),
        "view": np.arange(20, dtype=">i4")[::-3],
        "mask": np.array([True, False]),
        "half": np.array([np.nan, -0.0, np.inf], np.float16),
    }
    checkpoint.save(tmp_path / "a.safetensors", model, optimizer=optimiser, extra=extra, arrays=arrays)
    found = checkpoint.load(tmp_path / "a.safetensors")

    assert equal(found.model.state_dict(), before) and equal(model.state_dict(), before)
    calls = [b for name, b in found.model.named_buffers() if name.endswith("calls")]
    assert calls and all(c.dtype == np.int64 and c[0] == 2 for c in calls)
    assert found.model.config == model.config and type(found.model) is type(model)
    assert equal(found.optimizer_state, optimiser.state_dict())
    again = optimizer(found.model.parameters(), lr=1e-2)
    again.load_state_dict(found.optimizer_state)
    assert again.steps == 2 and equal(again.state_dict(), optimiser.state_dict())
    assert found.extra == extra | {"loss": [0.1, 0.5]}
    assert found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype.newbyteorder("=")
        assert np.array_equal(found.arrays[name], array, equal_nan=array.dtype.kind == "f")
        assert found.arrays[name].shape == array.shape and found.arrays[name].flags.writeable
    assert found.version == checkpoint.__version__


def test_same_state_same_bytes(tmp_path):
    for name in "ab":
        model, optimiser = trained()
        checkpoint.save(tmp_path / name, model, optimizer=optimiser, extra={"b": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_without_optimizer_and_extra(tmp_path):
    model, _ = trained(steps=1)
    checkpoint.save(tmp_path / "a", model)
    found = checkpoint.load(tmp_path / "a")
    assert found.optimizer_state is None and found.extra == {} and found.arrays == {}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_float64_model_keeps_its_bits(tmp_path):
    model, _ = trained()
    model.astype(np.float64)
    for p in model.parameters():
        p.data += 1e-12
    checkpoint.save(tmp_path / "a", model)
    assert equal(checkpoint.load(tmp_path / "a").model.state_dict(), model.state_dict())


def test_any_safetensors_program_reads_the_weights(tmp_path):
    model, _ = trained()
    checkpoint.save(tmp_path / "a", model)
    tensors = safetensors.numpy.load_file(tmp_path / "a")
    assert equal({k.removeprefix("model/"): v for k, v in tensors.items()}, model.state_dict())


def test_load_into(tmp_path):
    model, _ = trained()
    checkpoint.save(tmp_path / "a", model, extra={"step": 3})
    other = models.build("unet", width=2, depth=1, seed=9, dropout=0.25, n_classes=2, padding="valid")
    found = checkpoint.load_into(other, tmp_path / "a")
    assert found.model is other and found.extra == {"step": 3}
    assert equal(other.state_dict(), model.state_dict())


@pytest.mark.parametrize("argument", [{"width": 3}, {"depth": 2}, {"n_classes": 3}, {"padding": "same"}])
def test_load_into_another_network_is_refused(tmp_path, argument):
    model, _ = trained()
    checkpoint.save(tmp_path / "a", model)
    other = models.build("unet", **({"width": 2, "depth": 1} | argument))
    before = other.state_dict()
    with pytest.raises(
        UserError, match=f"{tmp_path / 'a'}: is a checkpoint of another network: its {next(iter(argument))}"
    ):
        checkpoint.load_into(other, tmp_path / "a")
    assert equal(other.state_dict(), before)


def rewritten(path: Path, change) -> Path:
    """A copy whose metadata `change` has edited, with a checksum that is right again."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    ours = json.loads(header["__metadata__"]["minunet"])
    change(ours, header)
    header["__metadata__"]["minunet"] = json.dumps(ours | {"sha256": "0" * 64}, separators=(",", ":"))
    text = json.dumps(header, separators=(",", ":")).encode()
    data = len(text).to_bytes(8, "little") + text + data[8 + size :]
    at = checkpoint._digits_at(data)
    data = data[:at] + checkpoint._sha256(data, at).encode() + data[at + 64 :]
    out = path.with_name("rewritten")
    out.write_bytes(data)
    return out


def rename_weight(ours: dict, header: dict) -> None:
    header["model/head.x"] = header.pop("model/head.w")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ours, header: ours.update(format=2), "format 2, newer than minunet .*; update minunet"),
        (lambda ours, header: ours["config"].update(model="w-net"), "cannot be built here .*w-net"),
        (lambda ours, header: ours["config"].update(widht=3), "cannot be built here .*widht"),
        (lambda ours, header: ours["config"].update(width=3), "has shape .* needs"),
        (
            lambda ours, header: ours["config"].update(width=10**9),
            "is a network of 98,.*; take another file",
        ),
        (lambda ours, header: ours["config"].update(width="x"), "cannot be built here"),
        (lambda ours, header: ours["config"].update(width=1e400), "cannot be built here"),
        (lambda ours, header: ours.update(config=[]), "is damaged"),
        (lambda ours, header: ours.pop("extra"), "is damaged"),
        (rename_weight, r"1 tensors missing \(head.w\), 1 unknown \(head.x\)"),
    ],
)
def test_whole_but_unusable(tmp_path, change, message):
    model, _ = trained()
    checkpoint.save(tmp_path / "a", model)
    checkpoint.load(rewritten(tmp_path / "a", lambda ours, header: None))  # the rewriting itself does no harm
    path = rewritten(tmp_path / "a", change)
    with pytest.raises(UserError, match=message) as error:
        checkpoint.load(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_other_files(tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    safetensors.numpy.save_file({"w": np.ones(3)}, foreign, metadata={"format": "np"})
    (tmp_path / "text").write_text("these are no weights")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "json").write_text('{"a": 1} and more')
    for name, message in {
        "foreign.safetensors": "without minunet's metadata",
        "text": "is not a safetensors file",
        "empty": "is empty",
        "json": "is not a safetensors file",
        "missing": "no such checkpoint",
        "a\0b": "cannot be opened",
        ".": "is a folder",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            checkpoint.load(f"{tmp_path}/{name}")
        assert str(error.value).startswith(f"{tmp_path}/{name}: ")


def test_every_flipped_bit_is_detected(tmp_path):
    model, optimiser = trained()
    path, bad = tmp_path / "a", tmp_path / "bad"
    checkpoint.save(path, model, optimizer=optimiser, extra={"text": "é", "x": 0.1})
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    head = 8 + int.from_bytes(data[:8], "little")
    # the first 400 bytes hold the length, the checksum and the metadata; the rest of header and tensors at random
    places = [*range(400), *rng.integers(400, head, 300), *rng.integers(head, len(data), 200)]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        bad.write_bytes(damaged)
        with pytest.raises(UserError, match=f"^{bad}: "):
            checkpoint.load(bad)
    bad.write_bytes(data)
    checkpoint.load(bad)


def test_every_truncation_is_detected(tmp_path):
    model, _ = trained()
    path, bad = tmp_path / "a", tmp_path / "bad"
    checkpoint.save(path, model)
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    for length in [*range(40), *rng.integers(40, len(data), 150), len(data) - 1]:
        bad.write_bytes(data[:length])
        with pytest.raises(UserError, match="cut short"):
            checkpoint.load(bad)
    bad.write_bytes(data + b"\0")
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.load(bad)


def test_what_cannot_be_saved_leaves_the_old_file(tmp_path):
    model, _ = trained()
    path = tmp_path / "a"
    checkpoint.save(path, model, extra={"step": 1})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="extra must be what JSON can say"):
        checkpoint.save(path, model, extra={"w": np.zeros(3)})
    with pytest.raises(ValueError, match="'c' is complex64"):
        checkpoint.save(path, model, arrays={"c": np.zeros(3, np.complex64)})
    with pytest.raises(ValueError, match=r"make it with models.build"):
        checkpoint.save(path, type(model)(width=2, depth=1))
    with pytest.raises(UserError, match="make the folder first"):
        checkpoint.save(tmp_path / "no" / "a", model)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a"]


SAVER = """
    import os, signal, sys
    import numpy as np
    from minunet import backends, checkpoint, models

    path, stage = sys.argv[1:]

    def reached(*arguments):
        print("in a write", flush=True)
        signal.pause()  # until it is killed

    with backends.use_backend("reference"):
        model = models.build("unet", width=4, depth=1)
        for step in range(10**9):
            if step == 2 and stage == "hashed":
                checkpoint._sha256 = reached
            elif step == 2 and stage == "synced":
                os.fsync = reached
            values = np.full(500_000, step)  # 4 MB: most of the time is spent writing
            checkpoint.save(path, model, extra={"step": step}, arrays={"values": values})
            if step == 1 and stage == "any":
                print("saving", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "run.safetensors"
    rng = np.random.default_rng(2)
    for stage in ("any",) * 8 + ("hashed", "synced"):
        command = [sys.executable, "-c", textwrap.dedent(SAVER), str(path), stage]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
            assert process.stdout.readline() == (b"saving\n" if stage == "any" else b"in a write\n")
            time.sleep(rng.uniform(0, 0.06) if stage == "any" else 0)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        found = checkpoint.load(path)
        assert found.extra["step"] >= 1 and np.all(found.arrays["values"] == found.extra["step"])
        rest = list(tmp_path.glob(".*.tmp"))
        assert len(rest) == 1 or stage == "any"
        for file in rest:
            file.unlink()
