"""Export: every network as ONNX computes what it computes here, and as a PyTorch state dict comes back bit for bit."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch_ports
from small import SMALL
from test_ports import COMPUTING, NAMED

from minunet import backends, checkpoint, cli, export, from_torch, models, ops
from minunet.backends.shapes import ShapeArray
from minunet.errors import UserError
from minunet.export import export_onnx, onnx_model
from minunet.interop import to_torch
from minunet.models.__main__ import main
from minunet.models.base import Network
from minunet.ops.shared import like
from minunet.tensor import Tensor, no_grad
from minunet.weightfile import read_weights

TOLERANCE = 1e-5  # float32 there against float64 here
SLOPES = (0.5, -0.25, 2.0)


@pytest.fixture(scope="module")
def onnx() -> Any:
    return pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture(scope="module")
def runtime(onnx) -> Any:
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def alive(model: Network, seed: int = 0) -> Network:
    """The model with weights and statistics of which none is what it was at first; its biases keep its ReLUs alive."""
    rng = np.random.default_rng(seed)
    for _, p in model.named_parameters():
        shape = p.data.shape
        p.data[...] += 0.1 * rng.standard_normal(shape) if len(shape) == 4 else rng.uniform(0, 0.3, shape)
    for name, b in model.named_buffers():
        if name.endswith("running_mean"):
            b[...] = 0.1 * rng.standard_normal(b.shape)
        elif name.endswith("running_var"):
            b[...] = rng.uniform(0.5, 1.5, b.shape)
    return model.eval()


def run_there(runtime: Any, graph: bytes | str, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime makes of x (N, H, W, C), in our layout."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["image"] and [o.name for o in session.get_outputs()] == ["logits"]
    return session.run(None, {"image": x.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)


def run_here(model: Network, x: np.ndarray) -> np.ndarray:
    with backends.use_backend("reference"), no_grad():
        return model.astype(np.float64)(Tensor(x.astype(np.float64))).numpy()


def compare(runtime: Any, model: Network, size: tuple[int, int], channels: int | None = None, n: int = 2) -> None:
    graph = onnx_model(model, size, channels).SerializeToString()
    shape = (n, *size, channels or model.channels[-1])
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    found, known = run_there(runtime, graph, x), run_here(model, x)
    assert found.dtype == np.float32 and found.shape == known.shape
    assert known.std(axis=(0, 1, 2)).max() > 1e-4  # the image reaches the logits
    error = np.linalg.norm(found - known) / np.linalg.norm(known)
    assert np.isfinite(error) and error <= TOLERANCE, error


@pytest.mark.parametrize("title", SMALL)
def test_every_network_computes_the_same_in_onnx_runtime(runtime, title):
    name, arguments, size = SMALL[title]
    model = alive(models.build(name, **arguments))
    before = model.state_dict()
    compare(runtime, model, size)
    assert all(np.array_equal(a, before[name]) for name, a in model.state_dict().items())


def test_any_number_of_images_and_another_number_of_channels(runtime):
    name, arguments, size = SMALL["fanet"]  # has matrices, whose first axis are the images
    for n in 1, 3:
        compare(runtime, alive(models.build(name, **arguments)), size, n=n)
    name, arguments, size = SMALL["rednet"]
    compare(runtime, alive(models.build(name, **arguments)), size, channels=4)
    with pytest.raises(ValueError, match="4 or 3 channels, not 2"):
        onnx_model(models.build(name, **arguments), size, channels=2)


def test_a_float64_network_is_written_in_float32(runtime):
    compare(runtime, alive(models.build("unet", 1, 2, width=2, depth=1)).astype(np.float64), (20, 22))


# Operations and their corners, some of which no network has today: (of x (2, 11, 7, 3)) -> a map
OPERATIONS = {
    "prelu": lambda x: ops.prelu(x, given(x, SLOPES)),
    "elu": lambda x: ops.elu(x, alpha=0.7),
    "leaky_relu": lambda x: ops.leaky_relu(x, 0.2),
    "sigmoid, tanh": lambda x: ops.add(ops.sigmoid(x), ops.tanh(x)),
    "softmax": lambda x: ops.softmax(x),
    "softmax of matrices": lambda x: ops.reshape(ops.softmax(ops.reshape(x, (x.shape[0], -1, 3))), x.shape),
    "lrn": lambda x: ops.lrn(x, size=3, alpha=0.5, beta=0.6),
    "l2_normalize": lambda x: ops.l2_normalize(ops.relu(ops.add(x, x))),
    "l2_normalize of matrices": lambda x: ops.reshape(ops.l2_normalize(ops.reshape(x, (x.shape[0], 11, 21))), x.shape),
    "matmul": lambda x: attention(x, False, False),
    "matmul, transposed": lambda x: attention(x, True, True),
    "add": lambda x: ops.add(x, ops.relu(x), 0.5, -2.0),
    "subtracted": lambda x: ops.add(x, ops.relu(x), -1.0, 1.0),
    "both negative": lambda x: ops.add(x, ops.relu(x), -1.0, -0.5),
    "scale": lambda x: ops.scale(x, -1.5),
    "gate": lambda x: ops.gate(x, ops.global_avg_pool(x)),
    "pad": lambda x: ops.pad(x, (1, 0, 2, 3), value=0.75),
    "pad, mirrored": lambda x: ops.pad(x, (1, 2, 3, 0), mode="reflect"),
    "crop": lambda x: ops.crop(x, (4, 5), (3, 1)),
    "split": lambda x: ops.crop_concat(ops.crop(ops.split(x, [1, 2])[1], (4, 4)), x),
    "pad_channels": lambda x: ops.pad_channels(x, 5),
    "nearest, whole": lambda x: ops.upsample(x, scale=(3, 2)),
    "nearest": lambda x: ops.upsample(x, size=(17, 5)),
    "nearest, smaller": lambda x: ops.upsample(x, size=(3, 6)),
    "bilinear": lambda x: ops.upsample(x, size=(23, 9), mode="bilinear"),
    "bilinear, smaller": lambda x: ops.upsample(x, size=(5, 3), mode="bilinear"),
    "bilinear, corners": lambda x: ops.upsample(x, size=(19, 3), mode="bilinear", align_corners=True),
    "bilinear to a pixel": lambda x: ops.upsample(x, size=(1, 1), mode="bilinear", align_corners=True),
    "bilinear to the middle": lambda x: ops.upsample(x, size=(1, 4), mode="bilinear"),
    "max-pool": lambda x: ops.max_pool2d(x, 3, 2, 1),
    "max-pool, rounded up": lambda x: ops.max_pool2d(x, 2, ceil_mode=True),
    "max-pool, rounded up and padded": lambda x: ops.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "max-pool that leaves rows": lambda x: ops.max_pool2d(x, (2, 3), (3, 2)),
    "avg-pool": lambda x: ops.avg_pool2d(x, 3, 2, 1),
    "avg-pool that leaves rows": lambda x: ops.avg_pool2d(x, (2, 3), (4, 3)),
    "unpool": lambda x: unpooled(x, 2, 2, 0),
    "unpool, rounded up": lambda x: unpooled(x, 2, 2, 0, ceil_mode=True),
    "unpool, overlapping": lambda x: unpooled(x, 3, 1, 1),
    "convolution": lambda x: ops.conv2d(x, drawn(x, 4, 3, 2, 3), None, (2, 1), (2, 0, 1, 3), (1, 2)),
    "convolution, relu": lambda x: ops.conv2d(x, drawn(x, 4, 3, 3, 3), drawn(x, 4), padding="same", activation="relu"),
    "groups": lambda x: ops.conv2d(ops.pad_channels(x, 4), drawn(x, 6, 3, 3, 2), drawn(x, 6), groups=2),
    "depthwise": lambda x: ops.conv2d(x, drawn(x, 6, 3, 2, 1), drawn(x, 6), 2, 1, groups=3, activation="elu"),
    "transposed": lambda x: ops.conv_transpose2d(x, drawn(x, 3, 3, 3, 2), drawn(x, 2), 2, 1, 1, "relu"),
    "transposed, same": lambda x: ops.conv_transpose2d(x, drawn(x, 3, 4, 1, 2), None, 3, "same"),
    "batch-norm": lambda x: ops.batch_norm(
        x, given(x, SLOPES), given(x, (1, 2, 3)), given(x, (0, 1, 2)).data, given(x, (1, 2, 3)).data, False,
        eps=0.1, activation="relu",
    ),
}  # fmt: skip


def drawn(x: Tensor, *shape: int) -> Tensor:
    return given(x, np.random.default_rng(len(shape)).standard_normal(shape))


def given(x: Tensor, values: Any) -> Tensor:
    """Numbers of the network's own, on x's backend."""
    return Tensor(like(np.array(values, np.float32), x))


def attention(x: Tensor, turn_a: bool, turn_b: bool) -> Tensor:
    """(N, 11, 7, 3): rows against rows, or their transposes."""
    rows = ops.reshape(x, (x.shape[0], 7, 33))
    a = ops.reshape(x, (x.shape[0], 33, 7)) if turn_a else rows
    b = rows if turn_b else ops.reshape(x, (x.shape[0], 33, 7))
    return ops.reshape(ops.matmul(a, b, turn_a, turn_b), (x.shape[0], 7, 7, 1))


def unpooled(x: Tensor, kernel: int, stride: int, padding: int, **options: bool) -> Tensor:
    """Of relu(x), in which most maxima are ties of zeros: the first one counts, and shows in what stands there."""
    y, indices = ops.max_pool2d(ops.relu(x), kernel, stride, padding, return_indices=True, **options)
    return ops.max_unpool2d(ops.add(y, ops.scale(y, 0.5)), indices, x.shape[1:3]) + ops.max_unpool2d(
        ops.sigmoid(y), indices, x.shape[1:3]
    )


class Probe(Network):
    """One operation as a network."""

    def __init__(self, in_channels: int = 3, n_classes: int = 0, title: str = "scale"):
        self.title = title

    def forward(self, x: Tensor) -> Tensor:
        return OPERATIONS[self.title](x)

    def output_size(self, h: int, w: int) -> tuple[int, int]:
        with backends.use_backend("reference"), no_grad():
            return OPERATIONS[self.title](Tensor(np.ones((1, h, w, 3), np.float32))).shape[1:3]


class Untraceable(Probe):
    """One whose forward takes something past the kernels."""

    def forward(self, x: Tensor) -> Tensor:
        return Tensor(ShapeArray(x.shape))


@pytest.fixture
def probes(monkeypatch):
    monkeypatch.setattr(models, "network_class", {"probe": Probe, "untraceable": Untraceable}.__getitem__)


@pytest.mark.parametrize("title", OPERATIONS)
def test_every_operation_computes_the_same_in_onnx_runtime(runtime, probes, title):
    x = np.random.default_rng(3).standard_normal((2, 11, 7, 3)).astype(np.float32)
    x[:, :2, :2] = -1  # ties after relu, and pixels that are 0 in all channels
    with backends.use_backend("reference"), no_grad():
        known = OPERATIONS[title](Tensor(x)).numpy()
    made = onnx_model(models.build("probe", title=title), (11, 7))
    found = run_there(runtime, made.SerializeToString(), x)
    assert found.shape == known.shape
    error = np.linalg.norm(found - known) / np.linalg.norm(known)
    assert np.isfinite(error) and error <= TOLERANCE, error


def test_what_cannot_be_traced_is_refused(onnx, probes, monkeypatch):
    with pytest.raises(NotImplementedError, match="Untraceable has an array that no kernel made"):
        onnx_model(models.build("untraceable"), (4, 4))
    monkeypatch.setitem(OPERATIONS, "drop", lambda x: ops.dropout(x, 0.5, 0))
    with pytest.raises(NotImplementedError, match="no ONNX nodes are known for dropout"):
        onnx_model(models.build("probe", title="drop"), (4, 4))
    monkeypatch.setitem(OPERATIONS, "even", lambda x: ops.lrn(x, size=4))
    with pytest.raises(NotImplementedError, match="odd numbers of channels; lrn has size 4"):
        onnx_model(models.build("probe", title="even"), (4, 4))
    monkeypatch.setitem(OPERATIONS, "mix", lambda x: ops.reshape(x, (4, 1, 4, 3)))
    with pytest.raises(NotImplementedError, match="mixes the images of a batch"):
        onnx_model(models.build("probe", title="mix"), (4, 4))
    with models.shapes_only():  # and the backend of shapes still does nothing
        assert ops.relu(Tensor(backends.get().empty((1, 2, 2, 3), np.float32))).shape == (1, 2, 2, 3)


@pytest.mark.parametrize("peer", ["peer_onnx", "peer_openvino"])
def test_the_peers_of_the_benches_run_it(onnx, peer):
    found = pytest.importorskip(f"bench.{peer}", reason="its runtime is not installed")
    model = alive(models.build("unet", 1, 2, width=2, depth=2))
    x = np.random.default_rng(0).standard_normal((2, 1, 44, 52)).astype(np.float32)
    y = found.runners(model, x.shape, 1)[""](x)
    known = run_here(model, x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    error = np.linalg.norm(y - known) / np.linalg.norm(known)
    assert y.shape == known.shape and np.isfinite(error) and error <= TOLERANCE


# --------------------------------------------------------------------------------------------------- what the file is


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


# ----------------------------------------------------------------------------------------------------------- PyTorch


@pytest.mark.parametrize("title", SMALL)
def test_every_network_comes_back_from_a_state_dict(title):
    name, arguments, _ = SMALL[title]
    model, twin = alive(models.build(name, **arguments)), models.build(name, **arguments | {"seed": 1})
    _, state = to_torch(model)
    shuffled = dict(sorted(state.items(), key=lambda item: item[0][::-1]))  # as safetensors: in no order of layers
    from_torch(twin, shuffled)
    known = {k: v for k, v in model.state_dict().items() if v.dtype.kind == "f"}
    assert all(np.array_equal(twin.state_dict()[k], v) for k, v in known.items())


@pytest.mark.parametrize("title", [t for t in COMPUTING | NAMED if t != "DeepLab v2 of 2018"])
def test_a_port_loads_our_weights(title):
    """Strictly: every name, every shape, nothing else. (Of DeepLab v2's two namings the newer one is written.)"""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    name, arguments, port, given, *_ = (COMPUTING | NAMED)[title]
    whose, state = to_torch(alive(models.build(name, **arguments)))
    assert whose != "minunet"
    torch_ports.build(torch)[port](*given).load_state_dict({k: torch.tensor(v) for k, v in state.items()})


def test_a_port_computes_the_same_with_our_weights():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for title in "DeconvNet", "U-Net", "SegNet":
        name, arguments, port, given, size = COMPUTING[title]
        model = alive(models.build(name, **arguments)).astype(np.float64)
        net = torch_ports.build(torch)[port](*given).double().eval()
        net.load_state_dict({k: torch.tensor(v) for k, v in to_torch(model)[1].items()})
        x = np.random.default_rng(7).normal(size=(2, *size, arguments["in_channels"]))
        found = net(torch.tensor(x.transpose(0, 3, 1, 2).copy())).detach().numpy().transpose(0, 2, 3, 1)
        known = run_here(model, x)
        error = np.linalg.norm(found - known) / np.linalg.norm(known)
        assert np.isfinite(error) and error <= 1e-10, (title, error)


def test_names_of_our_own_where_no_port_is_known():
    model = models.build("unet", 1, 2, width=2, depth=1)
    whose, state = to_torch(model)
    assert whose == "minunet" and state["down.0.conv1.weight"].shape == (2, 1, 3, 3)
    assert state["up.0.weight"].shape == (4, 2, 2, 2) and state["head.bias"].shape == (2,)
    norm = to_torch(models.build("fusionnet", 1, 2, width=2, depth=1))[1]
    assert {"bridge.conv1.bn.weight", "bridge.conv1.bn.running_var"} <= norm.keys()
    assert all(v.flags.c_contiguous for v in state.values())


# ------------------------------------------------------------------------------------------------------- the command


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
