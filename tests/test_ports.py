"""Weights under other people's names: well-known ports, written down in tests/torch_ports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch_ports
from torch_ports.drawn import BLOCKS, close, drawn, images

from minunet import backends, models
from minunet.interop import from_torch, match
from minunet.models.ports_networks import PORTS
from minunet.tensor import Tensor


@pytest.fixture(scope="module")
def ports(torch) -> dict[str, Any]:
    return torch_ports.build(torch)


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
