"""The body of most networks: its parameters by layer, its maps, and what strides and dilations do to them."""

from __future__ import annotations

import numpy as np
import pytest

from minunet import backends, models
from minunet.backends.shapes import ShapeArray
from minunet.models.resnet import ResNet
from minunet.tensor import Tensor

PARAMETERS = {  # of stem, layer1 ... layer4, as torchvision's networks have them
    18: (9_536, 147_968, 525_568, 2_099_712, 8_393_728),
    34: (9_536, 221_952, 1_116_416, 6_822_400, 13_114_368),
    50: (9_536, 215_808, 1_219_584, 7_098_368, 14_964_736),
    101: (9_536, 215_808, 1_219_584, 26_090_496, 14_964_736),
    152: (9_536, 215_808, 2_339_840, 40_613_888, 14_964_736),
}


def body(**arguments) -> ResNet:
    with models.shapes_only():
        return ResNet(np.random.default_rng(0), **arguments)


def sizes(net: ResNet, h: int, w: int) -> list[tuple[int, ...]]:
    with models.shapes_only():
        return [y.shape[1:] for y in net(Tensor(ShapeArray((1, h, w, 3))))]


def count(module) -> int:
    return sum(p.data.size for p in module.parameters())


@pytest.mark.parametrize("depth", PARAMETERS)
def test_parameters_of_every_layer(depth):
    net = body(depth=depth)
    assert tuple(count(m) for m in (net.stem, net.layer1, net.layer2, net.layer3, net.layer4)) == PARAMETERS[depth]


def test_deep_stem():
    net = body(depth=101, deep_stem=True)
    assert count(net) == 42_623_936
    assert net.channels == [128, 256, 512, 1024, 2048]


def test_maps():
    assert sizes(body(depth=50), 225, 320) == [
        (113, 160, 64), (57, 80, 256), (29, 40, 512), (15, 20, 1024), (8, 10, 2048),
    ]  # fmt: skip
    assert sizes(body(depth=18), 1, 1) == [(1, 1, c) for c in (64, 64, 128, 256, 512)]


def test_dilated_layers_keep_their_size():
    net = body(depth=101, strides=(1, 2, 1, 1), dilations=(1, 1, (1, 2), (4, 8, 16)), ceil_mode=True)
    assert [s[0] for s in sizes(net, 321, 321)] == [161, 81, 41, 41, 41]
    dilation = [[block.conv2.conv.options["dilation"] for block in layer.layers] for layer in (net.layer3, net.layer4)]
    assert dilation == [[1] + [2] * 22, [4, 8, 16]]
    assert net.layer4[0].downsample is not None  # channels change


def test_pool_in_ceil_mode():
    assert sizes(body(depth=18), 8, 8)[1][0] == 2
    assert sizes(body(depth=18, ceil_mode=True), 8, 8)[1][0] == 3


@pytest.mark.parametrize("caffe_style", [False, True])
def test_which_convolution_of_a_bottleneck_is_strided(caffe_style):
    first = body(depth=50, caffe_style=caffe_style).layer2[0]
    strides = [conv.conv.options["stride"] for conv in (first.conv1, first.conv2, first.conv3)]
    assert strides == ([2, 1, 1] if caffe_style else [1, 2, 1])


def test_activation_belongs_inside_the_blocks():
    """After the sum there is ReLU, whatever the activation before it."""
    with backends.use_backend("reference"):
        net = ResNet(np.random.default_rng(0), depth=18, width=2, blocks=(1, 1, 1, 1), activation="leaky_relu")
        maps = net(Tensor(np.random.default_rng(1).normal(size=(1, 33, 35, 3)).astype(np.float32)))
    least = [y.numpy().min() for y in maps]
    assert least[0] < 0
    assert all(v >= 0 for v in least[1:])


def test_names_stand_in_torchvisions_order():
    names = [n for n, _ in body(depth=50, blocks=(1, 1, 1, 1)).named_parameters()]
    assert names[:3] == [f"stem.layers.0.{n}" for n in ("conv.w", "bn.gamma", "bn.beta")]
    block = [n.removeprefix("layer2.layers.0.").split(".")[0] for n in names if n.startswith("layer2.")]
    assert block == [n for n in ("conv1", "conv2", "conv3", "downsample") for _ in range(3)]


@pytest.mark.parametrize(
    "arguments", [{"depth": 20}, {"width": 0}, {"blocks": (1, 1, 1)}, {"blocks": (1, 0, 1, 1)}, {"strides": (2,)}]
)
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match="resnet: "):
        body(**arguments)
