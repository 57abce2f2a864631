"""Which of our layers is which of PyTorch's: torchvision's VGG16 and ResNet, the bodies that most networks stand on.

A naming scheme lists pairs (our layer, their layer). Which tensor of the one goes to which of the other follows from
what they are: weight and bias, and a batch-norm's running_mean and running_var (minunet/interop.py). Whole networks'
schemes, in ports_networks.py, are made of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from minunet import nn
from minunet.models.resnet import ResNet
from minunet.models.vgg import VGG16


class Pair(NamedTuple):
    """Our layer, theirs, what is done to each of its tensors first, if anything, and what theirs is where ours is a
    convolution of 1x1 and theirs is none: "linear" or "transposed".
    """

    ours: str
    theirs: str
    change: Callable[[np.ndarray], np.ndarray] | None = None
    kind: str | None = None


Pairs = Iterator[Pair]


def encoder_schemes(model: nn.Module) -> list[tuple[str, list[Pair]]]:
    """(title, pairs) for the VGG16 or the ResNets inside the model, in torchvision's names; none if it has neither."""
    children, found = dict(walk(model)), []
    bodies = [(path, net) for path, net in children.items() if isinstance(net, ResNet)]
    if bodies:
        found.append(("torchvision's ResNet", [pair for path, net in bodies for pair in resnet(path, net, fewer=True)]))
    for title, norm in ("torchvision's vgg16", False), ("torchvision's vgg16_bn", True):
        body = list(vgg(model, norm)) if not bodies else []
        heads = [Pair(layer, f"classifier.{k}") for layer, k in _fully_connected(children)]
        found += [(title, pairs) for pairs in (body + heads, body) if body]
    return found


def resnet(
    ours: str,
    net: ResNet,
    conv: str = "conv1",
    norm: str = "bn1",
    layer: Callable[[int], str] = "layer{}".format,
    fewer: bool = False,
) -> Pairs:
    """conv1, bn1, layer1.0.conv1, layer1.0.bn1, ..., layer1.0.downsample.0, .1; a deep stem is conv1.0, .1, .3, ...

    layer : the name of layer 1, 2, 3, 4
    fewer : a stem with fewer image channels than the file's takes the mean over the channels (RedNet's depth)
    """
    last = len(net.stem) - 1
    for k in range(last + 1):
        stem = f"{ours}.stem.layers.{k}"
        yield Pair(f"{stem}.conv", f"{conv}.{3 * k}" if last else conv, _mean_for(net) if fewer and not last else None)
        yield Pair(f"{stem}.bn", f"{conv}.{3 * k + 1}" if k < last else norm)
    for number in range(1, 5):
        for b, block in enumerate(getattr(net, f"layer{number}").layers):
            mine, other = f"{ours}.layer{number}.layers.{b}", f"{layer(number)}.{b}"
            yield from residual(mine, other, block)


def residual(ours: str, theirs: str, block: nn.Module, shortcut: str = "downsample") -> Pairs:
    """conv1, bn1, conv2, bn2, ..., downsample.0, downsample.1"""
    for name, child in block.children():
        if name.startswith("conv"):
            yield from unit(f"{ours}.{name}", f"{theirs}.{name}", f"{theirs}.bn{name[4:]}")
        elif child is not None:
            yield from unit(f"{ours}.{name}", f"{theirs}.{shortcut}.0", f"{theirs}.{shortcut}.1")


def unit(ours: str, conv: str, norm: str) -> Pairs:
    """A convolution with its batch-norm."""
    yield Pair(f"{ours}.conv", conv)
    yield Pair(f"{ours}.bn", norm)


def row(ours: str, theirs: str, count: int, step: int = 3) -> Pairs:
    """`count` units in a Sequential of theirs: convolution, batch-norm, activation, convolution, ..."""
    for k in range(count):
        yield from unit(f"{ours}.layers.{k}", f"{theirs}.{step * k}", f"{theirs}.{step * k + 1}")


def vgg(model: nn.Module, norm: bool) -> Pairs:
    """features.0, features.2, features.5, ...; with batch-norm features.0, features.1, features.3, ...

    Ours are the 3x3 convolutions of the list of stages that a model with VGG16's body begins with.
    """
    inside = [(path, m) for path, m in walk(model) if {"stages", "encoder"} & set(path.split("."))]
    convolutions = iter([path for path, m in inside if isinstance(m, nn.Conv2d) and m.w.shape[1:3] == (3, 3)])
    at = 0
    for stage in VGG16:
        for _ in stage:
            ours = next(convolutions, None)
            if ours is None:
                return
            yield Pair(ours, f"features.{at}")
            if norm and ours.endswith(".conv"):
                yield Pair(f"{ours[:-5]}.bn", f"features.{at + 1}")
            at += 3 if norm else 2
        at += 1  # the pooling


def walk(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """(dotted name, module) of everything below."""
    for name, child in module.children():
        yield path + name, child
        yield from walk(child, f"{path}{name}.")


def _mean_for(net: ResNet) -> Callable[[np.ndarray], np.ndarray]:
    channels = net.stem[0].conv.w.shape[3]

    def change(w: np.ndarray) -> np.ndarray:  # (O, C, KH, KW)
        return w.mean(axis=1, keepdims=True) if w.ndim == 4 and channels == 1 < w.shape[1] else w

    return change


def _fully_connected(children: dict[str, nn.Module]) -> list[tuple[str, int]]:
    """fc6 and fc7 as convolutions over all that VGG16's classifier reads, with their places in it."""
    whole = isinstance(children.get("fc6"), nn.Conv2d | nn.ConvBN)
    return [
        (f"{name}.conv" if f"{name}.conv" in children else name, k) for name, k in (("fc6", 0), ("fc7", 3)) if whole
    ]
