"""Export: every network, and every operation, computes as ONNX what it computes here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_runs import TOLERANCE, alive, compare, run_here, run_there
from small import SMALL

from minunet import backends, models, ops
from minunet.backends.shapes import ShapeArray
from minunet.export import onnx_model
from minunet.models.base import Network
from minunet.ops.shared import like
from minunet.tensor import Tensor, no_grad

SLOPES = (0.5, -0.25, 2.0)


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
