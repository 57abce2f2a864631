"""Export: what the ONNX file is, and the command that writes it."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from onnx_runs import TOLERANCE, alive, run_here, run_there
from small import SMALL

from minunet import checkpoint, cli, export, models
from minunet.errors import UserError
from minunet.export import export_onnx, onnx_model
from minunet.models.__main__ import main
from minunet.weightfile import read_weights


def test_the_graph_is_as_small_as_by_hand(onnx):
    made = onnx_model(models.build("unet", 1, 2, width=2, depth=2), (44, 44), batch=1)
    kinds = Counter(node.op_type for node in made.graph.node)
    assert kinds == {"Conv": 11, "Relu": 10, "MaxPool": 2, "ConvTranspose": 2, "Slice": 2, "Concat": 2}
    assert all(len(node.output) == 1 for node in made.graph.node)
    assert [d.dim_value for d in made.graph.input[0].type.tensor_type.shape.dim] == [1, 1, 44, 44]
    made = onnx_model(models.build("fusionnet", 1, 2, width=2, depth=1), (8, 8))
    assert "BatchNormalization" not in {node.op_type for node in made.graph.node}  # folded
    dims = made.graph.output[0].type.tensor_type.shape.dim
    assert dims[0].dim_param == "N" and [d.dim_value for d in dims[1:]] == [2, 8, 8]
    names = {tensor.name for tensor in made.graph.initializer}
    assert {"bridge.conv1.conv.w", "bridge.conv1.conv.b"} <= names


def test_weights_that_are_used_again_are_stored_once(onnx):
    name, arguments, size = SMALL["deeplab_v2, vgg16, three scales"]
    model = models.build(name, **arguments)
    stored = [t for t in onnx_model(model, size).graph.initializer if not t.name.startswith(("int_", "float_"))]
    assert sorted(t.name for t in stored) == sorted(name for name, _ in model.named_parameters())


def test_the_file_says_what_it_is(onnx, tmp_path):
    model = models.build("unet", 1, 2, width=2, depth=1)
    assert export_onnx(model, tmp_path / "net.onnx", metadata={"classes": ["membrane", "zellkörper"]}) == (272, 272)
    made = onnx.load(tmp_path / "net.onnx")
    assert made.producer_name == "minunet"
    about = json.loads({p.key: p.value for p in made.metadata_props}["minunet"])
    assert about["network"] == model.config and about["classes"] == ["membrane", "zellkörper"]
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    data = (tmp_path / "net.onnx").read_bytes()
    export_onnx(model, tmp_path / "net.onnx", metadata={"classes": ["membrane", "zellkörper"]})
    assert (tmp_path / "net.onnx").read_bytes() == data


def test_refusals_leave_no_file(onnx, tmp_path, monkeypatch):
    model, out = models.build("unet", 1, 2, width=2, depth=1), tmp_path / "net.onnx"
    with pytest.raises(ValueError, match="does not take 21 x 20 images"):
        export_onnx(model, out, (21, 20))
    with pytest.raises(ValueError, match=r"make it with models\.build"):
        export_onnx(type(model)(width=1, depth=1), out, (20, 20))
    with pytest.raises(UserError, match="make the folder first"):
        export_onnx(model, tmp_path / "no" / "net.onnx", (20, 20))
    monkeypatch.setattr(export, "LARGEST", 1000)
    with pytest.raises(UserError, match="holds 2 GiB"):
        export_onnx(model, out, (20, 20))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="needs the package onnx; install it: pip install onnx"):
        export_onnx(model, out, (20, 20))
    assert not list(tmp_path.iterdir())


def command(*argv: object) -> int:
    return cli.run(main, ["export", *map(str, argv)])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint like those of `minunet train`."""
    model = alive(models.build("segnet_basic", 3, 2, width=2, depth=2))
    extra = {"normalise": "section", "classes": ["sky", "road"], "config": {"tile": 24}, "size": None}
    checkpoint.save(tmp_path / "a net.safetensors", model, extra=extra)
    return tmp_path / "a net.safetensors"


def test_the_command_writes_both(runtime, saved, tmp_path, capsys):
    out, weights = tmp_path / "net.onnx", tmp_path / "net.pt.safetensors"
    assert command(saved, "--onnx", out, "--safetensors", weights, "--channels", 3) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{out}: written; image (N, 3, 24, 24) -> logits (N, 2, 24, 24), float32"
    assert re.fullmatch(r".*written; \d+ tensors in PyTorch's layouts, with the names of minunet", said[1])
    model = checkpoint.load(saved).model.eval()
    x = np.random.default_rng(0).standard_normal((1, 24, 24, 3)).astype(np.float32)
    found, known = run_there(runtime, str(out), x), run_here(model, x)
    assert np.linalg.norm(found - known) <= TOLERANCE * np.linalg.norm(known)
    state, ordered = read_weights(weights)
    assert not ordered and safetensors.numpy.load_file(weights).keys() == state.keys()
    again = tmp_path / "again.safetensors"
    arguments = ["--in-channels", "3", "--classes", "2", "--width", "2", "--arg", "depth=2"]
    assert cli.run(main, ["import", str(weights), "--model", "segnet_basic", "--out", str(again), *arguments]) == 0
    known, found = checkpoint.load(saved).model.state_dict(), checkpoint.load(again).model.state_dict()
    assert all(np.array_equal(found[k], v) for k, v in known.items())
    assert command(saved, "--onnx", out, "--size", 31, 25) == 0
    assert "image (N, 3, 31, 25)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, ["--onnx FILE", "--safetensors FILE"]),
        (["--safetensors", "x", "--size", "4", "4"], 2, ["--size", "--onnx"]),
        (["--onnx", "a net.safetensors"], 2, ["is the checkpoint to read"]),
        (["--onnx", "x", "--safetensors", "x"], 2, ["is the file of --onnx too"]),
        (["--onnx", "x", "--size", "1", "24"], 2, ["--size 1 24", "legal heights and widths"]),
        (["--onnx", "x", "--size", "-5", "24"], 2, ["--size -5 24"]),
        (["--onnx", "x", "--channels", "1"], 2, ["--channels 1", "3 channels, not 1"]),
        (["--onnx", "no/x"], 1, ["no/x", "make the folder first"]),
    ],
)
def test_the_command_refuses(onnx, saved, tmp_path, monkeypatch, capsys, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    assert command("a net.safetensors", *arguments) == code
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and all(word in err for word in words), err
    assert [p.name for p in tmp_path.iterdir()] == ["a net.safetensors"]


def test_a_damaged_checkpoint_is_not_exported(saved, tmp_path, capsys):
    saved.write_bytes(saved.read_bytes()[:-1])
    assert command(saved, "--onnx", tmp_path / "x") == 1
    assert "cut short" in capsys.readouterr().err
