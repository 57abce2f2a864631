"""Weights of torchvision's VGG16 and ResNet as encoders: every layer's place, and what it computes there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch_ports
from torch_ports.drawn import BLOCKS, close, drawn, images

from minunet import backends, models, ops
from minunet.interop import from_torch, match
from minunet.models.ports import encoder_schemes
from minunet.tensor import Tensor


@pytest.fixture(scope="module")
def ports(torch) -> dict[str, Any]:
    return torch_ports.build(torch)


VGG = {False: [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28], True: [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]}
WITH_VGG = {
    "segnet": ({}, ""),
    "fcn": ({}, "fc6"),
    "deconvnet": ({}, "fc6.conv"),
    "deeplab_v1": ({}, ""),
    "deeplab_v2": ({"body": "vgg16"}, ""),
}


@pytest.mark.parametrize("name", WITH_VGG)
def test_the_places_of_vgg16(name):
    arguments, fc6 = WITH_VGG[name]
    with models.shapes_only():
        model = models.build(name, **arguments)
    for title, norm in ("torchvision's vgg16", False), ("torchvision's vgg16_bn", True):
        pairs = next(pairs for known, pairs in encoder_schemes(model) if known == title)
        layers = [p.theirs for p in pairs if not p.ours.endswith(".bn") and p.theirs.startswith("features")]
        assert layers == [f"features.{k}" for k in VGG[norm]]
        norms = [p.theirs for p in pairs if p.ours.endswith(".bn") and p.theirs.startswith("features")]
        assert norms in ([], [f"features.{k + 1}" for k in VGG[norm]])
        assert [p.theirs for p in pairs if p.ours == fc6] == (["classifier.0"] if fc6 else [])


@pytest.mark.parametrize("norm", [False, True], ids=["vgg16", "vgg16_bn"])
def test_vgg16_as_encoder(torch, ports, norm):
    """DeepLab's body takes the plain convolutions; SegNet's batch-norms too, where there are any."""
    net, x = drawn(torch, ports["Vgg"](3, 2, norm, 5)), images((32, 64), 3)
    model = models.build("segnet" if norm else "deeplab_v1", width=2).astype(np.float64).eval()
    before = model.state_dict()
    from_torch(model, net.state_dict(), encoder=True)
    known, y, stages = torch.tensor(x.transpose(0, 3, 1, 2).copy()), Tensor(x), iter(net.features)
    with backends.use_backend("reference"):
        for stage in model.encoder if norm else model.body.stages[:4]:  # the fifth is dilated there
            y = ops.max_pool2d(stage(y), 2)
            for layer in stages:
                known = layer(known)
                if isinstance(layer, torch.nn.MaxPool2d):
                    break
            close(y.numpy(), known)
    same = [name for name, value in model.state_dict().items() if np.array_equal(value, before[name])]
    assert same and not any(name.startswith(("encoder", "body")) for name in same)


def test_fully_connected_layers_become_convolutions(torch, ports):
    net = drawn(torch, ports["Vgg"](3, 2, False, 5))
    features = np.random.default_rng(0).normal(size=(2, 7, 7, 16))
    known = net.classifier[:5](torch.tensor(features.transpose(0, 3, 1, 2).copy()).flatten(1))  # to fc7's ReLU
    model = models.build("fcn", width=2, fc=5).astype(np.float64)
    from_torch(model, net.state_dict(), encoder=True)
    with backends.use_backend("reference"):
        y = model.fc7(model.fc6(Tensor(features))).numpy()
    close(y, known[:, :, None, None], 1e-12)
    state = {k: v for k, v in net.state_dict().items() if k.startswith("features")}
    assert match(model, state, encoder=True).kept == []  # without a classifier: the convolutions alone


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("deep", [False, True])
def test_resnet_as_encoder(torch, ports, depth, deep):
    net = drawn(torch, ports["ResNet"](3, 2, BLOCKS, depth == 50, deep=deep, classes=10))
    arguments = {"width": 2, "depth": depth, "blocks": BLOCKS, "deep_stem": deep}
    model = models.build("dfn", border=2, **arguments).astype(np.float64).eval()
    before = model.state_dict()
    from_torch(model, net.state_dict(), encoder=True)
    x = images((64, 32), 3)
    with backends.use_backend("reference"):
        found = model.body(Tensor(x))
    for y, known in zip(found, net(torch.tensor(x.transpose(0, 3, 1, 2).copy())), strict=True):
        close(y.numpy(), known)
    after = model.state_dict()
    assert all(np.array_equal(after[k], before[k]) == (not k.startswith("body")) for k in after if k.endswith(".w"))


def test_both_encoders_of_rednet(torch, ports):
    """The depth's stem is the mean of the colours' over its inputs, as the authors start it."""
    net = drawn(torch, ports["ResNet"](3, 2, BLOCKS, True, classes=10))
    model = models.build("rednet", width=2, blocks=BLOCKS, units=(1, 1, 1, 1, 1))
    from_torch(model, net.state_dict(), encoder=True)
    own = model.state_dict()
    colours = {k: v for k, v in own.items() if k.startswith("colours")}
    stem = "depth.stem.layers.0.conv.w"
    for name, value in colours.items():
        other = name.replace("colours", "depth")
        assert other == stem or np.array_equal(own[other], value), name
    assert np.allclose(own[stem], colours["colours.stem.layers.0.conv.w"].mean(axis=3, keepdims=True), atol=1e-7)
