"""Well-known ports in a few lines of PyTorch each: their layers' names in their order, and what they compute.

Written from the names that stand in the ports' state dicts; widths and class counts are arguments, small in the tests.
Those of names.py have names only. `build(torch)` gives {class name: class}.
"""

from __future__ import annotations

from typing import Any


def build(torch: Any) -> dict[str, Any]:
    """Every port, by the name of its class."""
    from torch_ports import bodies, decoders, names

    found = {**decoders.build(torch), **bodies.build(torch)}
    return {**found, **names.build(torch, found)}


def conv_bn_relu(torch: Any) -> Any:
    """cbr(i, o, ...) -> [convolution (or `up`), batch-norm, ReLU], to be put in a Sequential."""
    nn = torch.nn

    def cbr(i, o, k=3, s=1, p=None, d=1, bias=True, relu=True, up=None, groups=1):
        p = d * (k - 1) // 2 if p is None else p
        conv = nn.Conv2d(i, o, k, s, p, d, groups, bias) if up is None else up
        return [conv, nn.BatchNorm2d(o), *([nn.ReLU()] if relu else [])]

    return cbr


def resizer(torch: Any) -> Any:
    """resized(x, size, corners): bilinear."""

    def resized(x, size, corners=True):
        return torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=corners)

    return resized
