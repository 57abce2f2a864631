"""Weights under other people's names: torchvision's bodies and well-known ports, written down in tests/torch_ports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch_ports

from minunet import backends, models, ops
from minunet.interop import from_torch, match
from minunet.models.ports import encoder_schemes
from minunet.models.ports_networks import PORTS
from minunet.tensor import Tensor

BLOCKS = (1, 1, 2, 1)


@pytest.fixture(scope="module")
def torch() -> Any:
    found = pytest.importorskip("torch", reason="PyTorch is not installed")
    found.set_num_threads(1)
    return found


@pytest.fixture(scope="module")
def ports(torch) -> dict[str, Any]:
    return torch_ports.build(torch)


def drawn(torch: Any, net: Any) -> Any:
    """The net in float64, with random weights and statistics, in evaluation."""
    draw = torch.Generator().manual_seed(3)
    for name, value in net.double().state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=draw, dtype=value.dtype) * 0.4)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    return net.eval()


def images(size: tuple[int, int], c: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(2, *size, c))


def close(found: np.ndarray, known: Any, tol: float = 1e-10) -> None:
    known = known.detach().numpy().transpose(0, 2, 3, 1)
    assert found.shape == known.shape
    error = np.linalg.norm(found - known) / np.linalg.norm(known)
    assert np.isfinite(error) and error <= tol, error


SEGNET = {"in_channels": 2, "n_classes": 3, "width": 2, "stages": ((1, 1), (2, 2), (2, 3, 2))}
LEE = {"in_channels": 2, "n_classes": 3, "widths": ((2, 3), (3, 2, 3)), "fc": 4, "fc_kernel": 2}
MILESIAL = {"in_channels": 3, "n_classes": 2, "width": 2, "form": "milesial"}
DEEPLAB = {"in_channels": 3, "n_classes": 4, "width": 2, "form": "torchvision", "body": "resnet50", "blocks": BLOCKS}
FCN = {"in_channels": 2, "n_classes": 2, "widths": (2, 2, 2, 2, 3), "fc": 3}
COMPUTING = {  # title: (network, arguments, port, its arguments, image)
    "FusionNet": (
        "fusionnet", {"in_channels": 2, "n_classes": 2, "width": 2, "form": "port"}, "Choi", (2, 2, 2), (32, 48),
    ),
    "SegNet": ("segnet", SEGNET, "Numbered", (2, 3, ((2, 2), (4, 4), (4, 6, 4))), (11, 14)),
    "FCN": ("fcn", FCN, "Kentaro", (2, 2, FCN["widths"], 3), (5, 3)),
    "DeconvNet": ("deconvnet", LEE, "Lee", (2, 3, LEE["widths"], 4, 2), (8, 12)),
    "U-Net": ("unet_same", MILESIAL, "Milesial", (3, 2, 2), (21, 34)),
    "U-Net, bilinear": ("unet_same", MILESIAL | {"bilinear": True}, "Milesial", (3, 2, 2, True), (19, 33)),
    "DeepLab v3": ("deeplab_v3", DEEPLAB, "TvDeepLab", (3, 4, 2, BLOCKS), (33, 41)),
    "GCN": (
        "gcn", {"in_channels": 3, "n_classes": 3, "width": 2, "depth": 50, "k": 3, "blocks": BLOCKS},
        "Deng", (3, 3, 2, BLOCKS, 3), (70, 45),
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", COMPUTING)
def test_a_port_computes_the_same_here(torch, ports, title):
    name, arguments, port, given, size = COMPUTING[title]
    net, model = drawn(torch, ports[port](*given)), models.build(name, **arguments).astype(np.float64)
    assert match(model, net.state_dict()).how.startswith("by the names of")
    from_torch(model, net.state_dict())
    x = images(size, arguments["in_channels"])
    known = net(torch.tensor(x.transpose(0, 3, 1, 2).copy()))
    with backends.use_backend("reference"):
        close(model.eval()(Tensor(x)).numpy(), known)


RESNET = {"in_channels": 3, "n_classes": 3, "width": 2, "blocks": BLOCKS}
NAMED = {  # title: (network, arguments, port, its arguments, {our tensor: theirs})
    "RedNet": (
        "rednet", RESNET | {"units": (2, 1, 1, 1, 2)}, "jiang", (3, 3, 2, BLOCKS, (2, 1, 1, 1, 2)),
        {
            "colours.layer2.layers.0.downsample.conv.w": "layer2.0.downsample.0.weight",
            "depth.stem.layers.0.bn.gamma": "bn1_d.weight",
            "depth.layer3.layers.1.conv3.bn.running_var": "layer3_d.1.bn3.running_var",
            "deconv.0.layers.0.conv2.conv.w": "deconv1.0.conv2.weight",
            "deconv.0.layers.1.conv2.bn.beta": "deconv1.1.bn2.bias",
            "deconv.1.layers.0.up.conv.w": "deconv2.0.upsample.0.weight",
            "agent.3.bn.running_mean": "agant3.1.running_mean",
            "side.0.w": "out5_conv.weight",
            "side.3.b": "out2_conv.bias",
        },
    ),
    "RED-Net": (
        "rednet_restoration", {"in_channels": 1, "n_classes": 1, "width": 2, "depth": 10}, "Yjn", (1, 2, 10),
        {
            "conv.4.w": "conv_layers.4.0.weight",
            "deconv.0.b": "deconv_layers.0.0.bias",
            "deconv.4.w": "deconv_layers.4.weight",
        },
    ),
    "DeepLab v1": (
        "deeplab_v1", {"in_channels": 3, "n_classes": 3, "width": 1}, "cheung", (3, 3, 1),
        {
            "body.stages.4.layers.2.w": "features.28.weight",
            "head.fc6.w": "classifier.1.weight",
            "head.fc8.b": "classifier.6.bias",
        },
    ),
    "DeepLab v2": (
        "deeplab_v2", RESNET, "kazuto", (3, 3, 2, BLOCKS),
        {
            "body.layer3.layers.1.conv2.conv.w": "base.layer4.block2.conv3x3.conv.weight",
            "body.layer1.layers.0.downsample.bn.beta": "base.layer2.block1.shortcut.bn.bias",
            "branches.3.w": "base.aspp.c3.weight",
        },
    ),
    "DeepLab v2 of 2018": (
        "deeplab_v2", RESNET, "kazuto", (3, 3, 2, BLOCKS, True),
        {
            "body.layer1.layers.0.downsample.conv.w": "scale.layer2.block1.proj.conv.weight",
            "branches.0.b": "scale.aspp.stages.c0.bias",
        },
    ),
    "BiSeNet": (
        "bisenet", {"n_classes": 5}, "bisenet", (3, 5, "resnet18"),
        {
            "spatial.layers.2.conv.w": "spatial_path.conv_3x3_2.conv.weight",
            "refine.1.weigh.bn.gamma": "arms.1.channel_attention.1.bn.weight",
            "smooth.0.conv.w": "refines.0.conv.weight",
            "fuse.squeeze.w": "ffm.channel_attention.1.conv.weight",
            "heads.2.layers.1.b": "heads.2.conv_1x1.bias",
        },
    ),
    "BiSeNet, Xception-39": (
        "bisenet", {"n_classes": 5, "body": "xception39"}, "bisenet", (3, 5, "xception39"),
        {
            "body.layer2.layers.0.shortcut.depthwise.w": "context_path.layer2.0.proj.conv1.weight",
            "body.layer3.layers.3.residual.layers.1.pointwise.bn.beta":
                "context_path.layer3.3.residual_branch.1.point_wise_cbr.bn.bias",
        },
    ),
    "DFN": (
        "dfn", RESNET | {"border": 4}, "dfn", (3, 3, 2, BLOCKS, 4),
        {
            "body.stem.layers.1.conv.w": "backbone.conv1.3.weight",
            "body.stem.layers.2.bn.gamma": "backbone.bn1.weight",
            "smooth_after.2.refine.w": "smooth_aft_rrbs.2.conv_refine.weight",
            "attention.0.fc1.w": "cabs.0.channel_attention.fc.0.weight",
            "border_head.3.rrb.inner.bn.running_var": "border_heads.3.rrb.cbr.bn.running_var",
        },
    ),
    "FANet": (
        "fanet", {"n_classes": 4, "width": 2}, "fanet", (3, 4, 2),
        {
            "attention.0.query.conv.w": "ffm_32.w_qs.conv.weight",
            "attention.3.key.bn.gamma": "ffm_4.w_ks.bn.weight",
            "attention.1.lateral.conv.w": "ffm_16.latlayer3.conv.weight",
            "auxiliary.1.layers.0.conv.w": "clslayer_16.conv.conv.weight",
            "head.layers.1.w": "clslayer_8.conv_out.weight",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", NAMED)
def test_every_tensor_of_a_port_has_its_place(torch, ports, title):
    name, arguments, port, given, known = NAMED[title]
    state, model = drawn(torch, ports[port](*given)).state_dict(), models.build(name, **arguments)
    found = match(model, state)
    assert found.how.startswith("by the names of")
    assert not (found.kept or found.unused or found.misfits or found.zeros)
    assert {ours: found.source[ours] for ours in known} == known
    from_torch(model, {f"module.{k}": v for k, v in state.items()})  # whatever stands before all of the names
    value = state[next(iter(known.values()))].numpy()
    assert np.allclose(model.state_dict()[next(iter(known))], value.transpose(0, 2, 3, 1), atol=1e-7)


def test_all_ports_are_tested():
    assert {network for network, *_ in (*COMPUTING.values(), *NAMED.values())} == set(PORTS)


# ---------------------------------------------------------------------------------------------- torchvision's bodies

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


# ---------------------------------------------------------------------------------------------- what does not fit


def test_causes_are_named(torch, ports):
    state = drawn(torch, ports["Numbered"](2, 3, ((2, 2), (4, 4), (4, 6, 4)))).state_dict()

    def first(change: dict[str, Any] | None = None, **arguments: Any) -> str:
        found = match(models.build("segnet", **SEGNET | arguments), state | (change or {}))
        return str(found.misfits[0])

    assert "build the model with n_classes=3" in first(n_classes=5)
    assert first(n_classes=5) == (
        "conv11d.weight has shape (3, 2, 3, 3), classifier.w needs (5, 2, 3, 3): another number of classes; build the"
        " model with n_classes=3"
    )
    assert "build the model with in_channels=2" in first(in_channels=3)
    assert "build the model with width=2" in first(width=4)
    assert "is a convolution in the other" in first({"conv21.weight": torch.zeros(2, 4, 3, 3)})
    assert "size of kernel" in first({"conv21.weight": torch.zeros(4, 2, 5, 5)})
    assert "another kind of layer" in first({"conv21.weight": torch.zeros(4, 2, 3, 3, 3)})
    assert "holds NaN" in first({"conv21.weight": torch.full((4, 2, 3, 3), torch.nan)})


def test_missing_biases_become_zero_and_the_rest_is_listed(torch, ports):
    state = drawn(torch, ports["Numbered"](2, 3, ((2, 2), (4, 4), (4, 6, 4)))).state_dict()
    del state["conv21.bias"], state["bn33d.running_mean"], state["bn11.bias"]
    state["extra.weight"] = torch.zeros(3)
    model = models.build("segnet", **SEGNET)
    found = match(model, state)
    assert found.zeros == ["encoder.1.layers.0.conv.b"]
    assert found.kept == ["encoder.0.layers.0.bn.beta", "decoder.0.layers.0.bn.running_mean"]
    assert found.unused == ["extra.weight"]
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"nothing given for encoder\.0\.layers\.0\.bn\.beta"):
        from_torch(model, state)
    assert all(np.array_equal(before[k], v) for k, v in model.state_dict().items())


def test_another_form_is_not_taken_for_this_one(torch, ports):
    """The same shapes, and another order of concatenation: only the names tell."""
    state = drawn(torch, ports["Milesial"](3, 2, 2)).state_dict()
    with pytest.raises(ValueError, match=r"milesial/Pytorch-UNet; build the model with form='milesial'"):
        from_torch(models.build("unet_same", in_channels=3, n_classes=2, width=2), state)


def test_another_network_is_refused(torch, ports):
    state = drawn(torch, ports["ResNet"](3, 2, BLOCKS, True)).state_dict()
    with pytest.raises(ValueError, match=r"another network: \d+ batch-norms, \d+ convolutions given, 8 convolutions"):
        from_torch(models.build("unet", width=1, depth=1, padding="same"), {**state})
    with pytest.raises(ValueError, match="not torchvision's names of the encoder of UNet"):
        from_torch(models.build("unet", width=1), state, encoder=True)
    with pytest.raises(ValueError, match="not torchvision's names of the encoder of SegNet"):
        from_torch(models.build("segnet", width=1), state, encoder=True)


def test_unknown_names_are_taken_by_order(torch, ports):
    """A port that nobody has heard of; its batch-norms' statistics go with their layers."""
    state = drawn(torch, ports["Numbered"](2, 3, ((2, 2), (4, 4), (4, 6, 4)))).state_dict()
    model = models.build("segnet", **SEGNET)
    from_torch(model, state)
    twin = models.build("segnet", **SEGNET, seed=1)
    numbers = {layer: f"x{k}" for k, layer in enumerate(dict.fromkeys(name.rpartition(".")[0] for name in state))}
    renamed = {f"{numbers[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": v for name, v in state.items()}
    assert match(twin, renamed).how == "by order"
    from_torch(twin, renamed)
    assert all(np.array_equal(v, twin.state_dict()[k]) for k, v in model.state_dict().items())
    last = numbers["conv11d"]
    swapped = {k: renamed[k] for k in sorted(renamed, key=lambda k: not k.startswith(f"{last}."))}
    with pytest.raises(
        ValueError, match=r"another order: number 2 is x0, a convolution, where .*bn needs a batch-norm"
    ):
        match(twin, swapped)
