"""The networks in PyTorch's words, for tests and benches: a file a network, `make(torch, **arguments) -> torch Module`.

A mirror is written from the paper and the reference definitions, not from our file. What it has to keep to:
- `make` takes the arguments of our network, with the same defaults, and ignores `seed`;
- its parameters are defined in our order, transposed convolutions too, and 1x1 convolutions where we have them; where
  the order differs, the file has `names(model) -> {our name: PyTorch's name}` for parameters and running statistics;
- in training it returns a tuple where our network does, the main output first; in evaluation the main output alone;
- what is frozen has requires_grad=False and its right values;
- dropout is a module (Dropout, Dropout2d), so that it can be switched off.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from minunet import models
from minunet.interop import from_torch
from minunet.models import Network
from minunet.tensor import Tensor

HERE = __name__


def mirrored() -> list[str]:
    """The names of the networks that have a mirror."""
    return [name for name in models.names() if find_spec(f"{HERE}.{name}")]


def make(torch: Any, name: str, arguments: dict[str, Any]) -> Any:
    """The mirror in float64, dropout switched off."""
    net = import_module(f"{HERE}.{name}").make(torch, **arguments).double()
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d):
            module.p = 0.0
    return net


def names(name: str, model: Network, net: Any) -> dict[str, str]:
    """{our name: PyTorch's} of every parameter and running statistic: the mirror's rule, or by order."""
    rule = getattr(import_module(f"{HERE}.{name}"), "names", None)
    if rule is not None:
        return rule(model)
    ours = [n for n, _ in model.named_parameters()], [n for n, b in model.named_buffers() if b.dtype.kind == "f"]
    theirs = [n for n, _ in net.named_parameters()], [n for n, b in net.named_buffers() if b.is_floating_point()]
    return {o: t for known, found in zip(ours, theirs) for o, t in zip(known, found, strict=True)}


def twin(name: str, arguments: dict[str, Any], net: Any) -> Network:
    """Our network in float64 with the mirror's weights and statistics."""
    model = models.build(name, **arguments).astype(np.float64)
    return from_torch(model, net.state_dict(), names(name, model, net))


def fill(name: str, model: Network, net: Any) -> Any:
    """Give the mirror our weights and statistics: the reverse of `twin`. Returns the mirror."""
    ours, theirs = dict([*model.named_parameters(), *model.named_buffers()]), net.state_dict()
    for n, t in names(name, model, net).items():
        a = ours[n].numpy() if isinstance(ours[n], Tensor) else ours[n]
        theirs[t].numpy()[...] = a.transpose(0, 3, 1, 2) if a.ndim == 4 else a  # the mirror's own memory
    return net


def pairs(name: str, model: Network, net: Any) -> Iterator[tuple[str, Any, Any]]:
    """(our name, our parameter, PyTorch's parameter) of every parameter."""
    theirs, parameters = names(name, model, net), dict(net.named_parameters())
    for n, p in model.named_parameters():
        yield n, p, parameters[theirs[n]]


def draw(torch: Any, net: Any, seed: int) -> None:
    """Random weights, vectors and running statistics, at a scale at which signals neither vanish nor grow much."""
    rng = np.random.default_rng(seed)

    def fill(tensor: Any, scale: float, around: float = 0.0) -> None:
        tensor.copy_(torch.from_numpy(around + scale * rng.normal(size=tuple(tensor.shape))))

    with torch.no_grad():
        for p in net.parameters():
            if p.requires_grad:
                fill(p, 0.1 if p.ndim == 1 else (2 / max(p[0].numel(), 1)) ** 0.5)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                fill(module.weight, 0.1, around=1.0)
                fill(module.running_mean, 0.1)
                module.running_var.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, module.num_features)))


def channels_last(a: Any) -> np.ndarray:
    """(N, C, H, W) -> (N, H, W, C), and weights in our order: a tensor's values as an array."""
    a = a.detach().numpy()
    return a.transpose(0, 2, 3, 1) if a.ndim == 4 else a
