"""Whose names stand in a PyTorch file of a whole network: well-known ports, each as its author's definition names the
layers. The functions give pairs (our layer, their layer) for a model; what a pair means stands in ports.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from minunet import models, nn
from minunet.models.ports import Pair, Pairs, residual, resnet, row, unit, vgg
from minunet.models.resnet import ResNet


class Port(NamedTuple):
    """Whose names, the pairs for a model, and the arguments of `models.build` for which the network is the port's."""

    title: str
    pairs: Callable[[Any], Pairs]
    arguments: dict[str, Any] | None = None
    prefix: str = ""  # before all names in the author's own files


def schemes(model: nn.Module, prefixed: bool = False) -> list[tuple[str, list[Pair]]]:
    """(title, pairs) of each port of this network, in this form; `prefixed`: names as in the author's own files."""
    found = []
    for port in _ports(model):
        prefix = port.prefix if prefixed else ""
        if pairs := [pair._replace(theirs=prefix + pair.theirs) for pair in port.pairs(model)]:
            found.append((port.title, pairs))
    return found


def _ports(model: nn.Module) -> list[Port]:
    known = PORTS.get(getattr(model, "config", {}).get("model"), [])
    return [port for port in known if not _other_form(model, port)]


def other_forms(model: nn.Module) -> list[tuple[str, list[Pair]]]:
    """("title; build the model with form='...'", pairs) of each port of this network in another form: files that must
    not be taken for this one's, though shapes may agree."""
    found = []
    for port in PORTS.get(getattr(model, "config", {}).get("model"), []):
        if other := _other_form(model, port):
            with models.shapes_only():
                twin = models.build(**_build_arguments(model) | other)
            spelled = ", ".join(f"{key}={value!r}" for key, value in other.items())
            found.append((f"{port.title}; build the model with {spelled}", list(port.pairs(twin))))
    return found


def arguments(model: nn.Module) -> dict[str, Any]:
    """All arguments of the model's class as it was built, defaults too; the network's name under "model"."""
    parameters = inspect.signature(type(model).__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty} | getattr(model, "config", {})


def _other_form(model: nn.Module, port: Port) -> dict[str, Any]:
    """The arguments in which the port's form is not the model's."""
    now = arguments(model)
    return {key: value for key, value in (port.arguments or {}).items() if now.get(key) != value}


def _build_arguments(model: nn.Module) -> dict[str, Any]:
    config = dict(model.config)
    return {"name": config.pop("model"), **config}


def pair_of(ours: str, theirs: str) -> Pairs:
    """A unit of ours, a Sequential of convolution and batch-norm of theirs."""
    return unit(ours, f"{theirs}.0", f"{theirs}.1")


def same(ours: str, theirs: str) -> Pairs:
    """A unit of ours, and theirs with the same names in it: conv, bn."""
    return unit(ours, f"{theirs}.conv", f"{theirs}.bn")


def fusionnet_choi(model: Any) -> Pairs:
    def block(ours: str, theirs: str) -> Pairs:
        yield from pair_of(f"{ours}.conv1", f"{theirs}.conv_1")
        for k, at in enumerate(("0.0", "1.0", "2")):
            tail = f"{theirs}.conv_2."
            yield from unit(f"{ours}.conv2.layers.{k}", tail + at, tail + ("3" if at == "2" else at[:-1] + "1"))
        yield from pair_of(f"{ours}.conv3", f"{theirs}.conv_3")

    for k, down in enumerate(model.down, 1):
        yield from block(f"down.{k - 1}.block", f"down_{k}")
        if down.pool is not None:
            yield from pair_of(f"down.{k - 1}.pool", f"pool_{k}")
    yield from block("bridge", "bridge")
    for k in range(1, len(model.up) + 1):
        yield from pair_of(f"up.{k - 1}.up", f"deconv_{k}")
        yield from block(f"up.{k - 1}.block", f"up_{k}")
    yield Pair("out", "out")


def segnet_numbered(model: Any) -> Pairs:
    for s, stage in enumerate(model.encoder, 1):
        for k in range(len(stage)):
            yield from unit(f"encoder.{s - 1}.layers.{k}", f"conv{s}{k + 1}", f"bn{s}{k + 1}")
    for s, stage in zip(range(len(model.encoder), 0, -1), model.decoder):
        for k in range(len(stage)):
            number = f"{s}{len(model.encoder[s - 1]) - k}d"
            yield from unit(f"decoder.{len(model.encoder) - s}.layers.{k}", f"conv{number}", f"bn{number}")
    yield Pair("classifier", "conv11d")


def fcn_kentaro(model: Any) -> Pairs:
    for s, stage in enumerate(model.stages, 1):
        for k in range(len(stage)):
            yield Pair(f"stages.{s - 1}.layers.{k}", f"conv{s}_{k + 1}")
    for name, _ in model.children():
        if name.startswith(("fc", "score", "upscore")):
            yield Pair(name, name)


def deconvnet_lee(model: Any) -> Pairs:
    for s, stage in enumerate(model.encoder, 1):
        yield from row(f"encoder.{s - 1}", f"conv{s}", len(stage))
    yield from unit("fc6", "conv67.0", "conv67.1")
    yield from unit("fc7", "conv67.3", "conv67.4")
    yield from unit("fc6_deconv", "deconv67.0", "deconv67.1")
    for s, stage in zip(range(len(model.decoder), 0, -1), model.decoder):
        yield from row(f"decoder.{len(model.decoder) - s}", f"deconv{s}", len(stage))
    yield Pair("score", f"deconv1.{3 * len(model.decoder[-1])}", kind="transposed")


def unet_milesial(model: Any) -> Pairs:
    yield from row("down.0", "inc.double_conv", 2)
    for k in range(1, len(model.down)):
        yield from row(f"down.{k}", f"down{k}.maxpool_conv.1.double_conv", 2)
    for k, up in enumerate(model.up):
        if up.up is not None:
            yield Pair(f"up.{k}.up", f"up{k + 1}.up")
        yield from row(f"up.{k}.block", f"up{k + 1}.conv.double_conv", 2)
    yield Pair("head", "outc.conv")


def rednet_jiang(model: Any) -> Pairs:
    yield from resnet("colours", model.colours)
    yield from resnet("depth", model.depth, "conv1_d", "bn1_d", "layer{}_d".format)
    for k, stage in enumerate(model.deconv):
        for b, block in enumerate(stage.layers):
            yield from residual(f"deconv.{k}.layers.{b}", f"deconv{k + 1}.{b}", block, "upsample")
    for k in range(len(model.agent)):
        yield from pair_of(f"agent.{k}", f"agant{k}")
    for b, block in enumerate(model.final_conv.layers):
        yield from residual(f"final_conv.layers.{b}", f"final_conv.{b}", block)
    yield Pair("final_deconv", "final_deconv")
    for k in range(len(model.side)):
        yield Pair(f"side.{k}", f"out{5 - k}_conv")


def rednet_restoration_yjn(model: Any) -> Pairs:
    last = len(model.deconv) - 1
    for k in range(len(model.conv)):
        yield Pair(f"conv.{k}", f"conv_layers.{k}.0")
    for k in range(last + 1):
        yield Pair(f"deconv.{k}", f"deconv_layers.{k}" + (".0" if k < last else ""))


def deeplab_v1_cheung(model: Any) -> Pairs:
    yield from vgg(model, False)
    for name, k in ("fc6", 1), ("fc7", 3), ("fc8", 6):
        yield Pair(f"head.{name}", f"classifier.{k}")


def deeplab_v2_kazuto(model: Any, shortcut: str = "shortcut", branch: str = "aspp.c{}") -> Pairs:
    if not isinstance(model.body, ResNet):
        return
    names = {"conv1": "reduce", "conv2": "conv3x3", "conv3": "increase", "downsample": shortcut}
    yield from unit("body.stem.layers.0", "layer1.conv1.conv", "layer1.conv1.bn")
    for number in range(1, 5):
        for b, block in enumerate(getattr(model.body, f"layer{number}").layers):
            for name, _ in block.children():
                other = f"layer{number + 1}.block{b + 1}.{names[name]}"
                yield from same(f"body.layer{number}.layers.{b}.{name}", other)
    for k in range(len(model.branches)):
        yield Pair(f"branches.{k}", branch.format(k))


def deeplab_v2_kazuto_2018(model: Any) -> Pairs:
    """The same before shortcuts and branches were renamed."""
    return deeplab_v2_kazuto(model, "proj", "aspp.stages.c{}")


def deeplab_v3_torchvision(model: Any, head: str = "classifier") -> Pairs:
    yield from resnet("body", model.body, "backbone.conv1", "backbone.bn1", "backbone.layer{}".format)
    for k in range(len(model.aspp.branches)):
        yield from pair_of(f"aspp.branches.{k}", f"{head}.0.convs.{k}")
    mean = f"{head}.0.convs.{len(model.aspp.branches)}"
    yield from unit("aspp.mean", f"{mean}.1", f"{mean}.2")
    yield from pair_of("aspp.project", f"{head}.0.project")
    yield from unit("decoder.layers.0", f"{head}.1", f"{head}.2")
    yield Pair("classifier", f"{head}.4")
    yield from pair_of("auxiliary.layers.0", "aux_classifier")
    yield Pair("auxiliary.layers.2", "aux_classifier.4")


def deeplab_v3_fang(model: Any) -> Pairs:
    """torchvision's, one level deeper."""
    return deeplab_v3_torchvision(model, "classifier.classifier")


def gcn_deng(model: Any) -> Pairs:
    yield from resnet("body", model.body, "layer0.0", "layer0.1", lambda k: "layer1.1" if k == 1 else f"layer{k}")
    for k in range(len(model.gcm)):
        for mine, other in ("left", "l"), ("right", "r"):
            for j in range(2):
                yield Pair(f"gcm.{k}.{mine}.layers.{j}", f"gcm{k + 1}.conv_{other}{j + 1}")
    refinements = [f"refine.{k}" for k in range(len(model.refine))] + [f"merge.{k}" for k in range(len(model.merge))]
    for k, mine in enumerate(refinements, 1):
        for conv in ("conv1", "conv2"):
            yield Pair(f"{mine}.{conv}", f"brm{k}.{conv}")


def bisenet_torchseg(model: Any) -> Pairs:
    if isinstance(model.body, ResNet):
        yield from resnet("body", model.body, "context_path.conv1", "context_path.bn1", "context_path.layer{}".format)
    else:
        yield from xception39("body", model.body, "context_path")
    for k, name in enumerate(("conv_7x7", "conv_3x3_1", "conv_3x3_2", "conv_1x1")):
        yield from same(f"spatial.layers.{k}", f"spatial_path.{name}")
    yield from same("globally", "global_context.1")
    for k in range(len(model.refine)):
        yield from same(f"refine.{k}.conv", f"arms.{k}.conv_3x3")
        yield from same(f"refine.{k}.weigh", f"arms.{k}.channel_attention.1")
        yield from same(f"smooth.{k}", f"refines.{k}")
    for k in range(len(model.heads)):
        yield from same(f"heads.{k}.layers.0", f"heads.{k}.conv_3x3")
        yield Pair(f"heads.{k}.layers.1", f"heads.{k}.conv_1x1")
    yield from same("fuse.conv", "ffm.conv_1x1")
    yield Pair("fuse.squeeze", "ffm.channel_attention.1.conv")
    yield Pair("fuse.weigh", "ffm.channel_attention.2.conv")


def xception39(ours: str, net: Any, theirs: str) -> Pairs:
    """TorchSeg's body: conv1, then layers of blocks of separable convolutions."""

    def separable(mine: str, other: str) -> Pairs:
        yield Pair(f"{mine}.depthwise", f"{other}.conv1")
        yield from same(f"{mine}.pointwise", f"{other}.point_wise_cbr")

    yield from same(f"{ours}.stem", f"{theirs}.conv1")
    for layer in ("layer1", "layer2", "layer3"):
        for b, block in enumerate(getattr(net, layer).layers):
            mine, other = f"{ours}.{layer}.layers.{b}", f"{theirs}.{layer}.{b}"
            if block.shortcut is not None:
                yield from separable(f"{mine}.shortcut", f"{other}.proj")
            for k in range(len(block.residual)):
                yield from separable(f"{mine}.residual.layers.{k}", f"{other}.residual_branch.{k}")


def dfn_torchseg(model: Any) -> Pairs:
    def refine(mine: str, other: str) -> Pairs:
        yield Pair(f"{mine}.conv", f"{other}.conv_1x1")
        yield from same(f"{mine}.inner", f"{other}.cbr")
        yield Pair(f"{mine}.refine", f"{other}.conv_refine")

    yield from resnet("body", model.body, "backbone.conv1", "backbone.bn1", "backbone.layer{}".format)
    yield from same("context", "global_context.1")
    for k in range(4):
        for path in ("smooth", "border"):
            yield from refine(f"{path}_before.{k}", f"{path}_pre_rrbs.{k}")
            yield from refine(f"{path}_after.{k}", f"{path}_aft_rrbs.{k}")
            yield from refine(f"{path}_head.{k}.rrb", f"{path}_heads.{k}.rrb")
            yield Pair(f"{path}_head.{k}.conv", f"{path}_heads.{k}.conv")
        for mine, other in ("fc1", 0), ("fc2", 2):
            yield Pair(f"attention.{k}.{mine}", f"cabs.{k}.channel_attention.fc.{other}", kind="linear")


def fanet_feinanshan(model: Any) -> Pairs:
    yield from resnet("body", model.body, "resnet.conv1", "resnet.bn1", "resnet.layer{}".format)
    names = {"query": "w_qs", "key": "w_ks", "value": "w_vs", "lateral": "latlayer3", "up": "up", "smooth": "smooth"}
    for k, stride in enumerate((32, 16, 8, 4)):
        for mine, other in names.items():
            yield from same(f"attention.{k}.{mine}", f"ffm_{stride}.{other}")
    for mine, stride in ("auxiliary.0", 32), ("auxiliary.1", 16), ("head", 8):
        yield from same(f"{mine}.layers.0", f"clslayer_{stride}.conv")
        yield Pair(f"{mine}.layers.1", f"clslayer_{stride}.conv_out")


PORTS = {
    "fusionnet": [Port("GunhoChoi/FusionNet-Pytorch", fusionnet_choi, {"form": "port"})],
    "segnet": [Port("the common SegNet port (conv11, bn11, ... conv11d)", segnet_numbered)],
    "fcn": [Port("wkentaro/pytorch-fcn", fcn_kentaro)],
    "deconvnet": [Port("Jasonlee1995/DeconvNet", deconvnet_lee)],
    "unet_same": [
        Port("milesial/Pytorch-UNet", unet_milesial, {"form": "milesial"}),
    ],
    "rednet": [Port("JindongJiang/RedNet", rednet_jiang)],
    "rednet_restoration": [Port("yjn870/REDNet-pytorch", rednet_restoration_yjn)],
    "deeplab_v1": [Port("CoinCheung/Deeplab-Large-FOV", deeplab_v1_cheung)],
    "deeplab_v2": [
        Port("kazuto1011/deeplab-pytorch", deeplab_v2_kazuto, prefix="base."),
        Port("kazuto1011/deeplab-pytorch of 2018", deeplab_v2_kazuto_2018, prefix="scale."),
    ],
    "deeplab_v3": [
        Port("torchvision's deeplabv3", deeplab_v3_torchvision, {"form": "torchvision"}),
        Port("VainF/DeepLabV3Plus-Pytorch", deeplab_v3_fang, {"form": "torchvision"}),
    ],
    "gcn": [Port("ZijunDeng/pytorch-semantic-segmentation", gcn_deng)],
    "bisenet": [Port("ycszen/TorchSeg", bisenet_torchseg)],
    "dfn": [Port("ycszen/TorchSeg", dfn_torchseg)],
    "fanet": [Port("feinanshan/FANet", fanet_feinanshan)],
}
