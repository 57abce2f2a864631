"""The networks by name."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from minunet.models.base import Network
from minunet.models.unet import UNet

_NETWORKS: dict[str, type[Network]] = {"unet": UNet}


def names() -> list[str]:
    """The names that `build` knows."""
    return list(_NETWORKS)


def build(name: str, in_channels: int = 1, n_classes: int = 2, **arguments: Any) -> Network:
    """A network with fresh weights: `build("unet", in_channels=1, n_classes=2, width=64, seed=0)`.

    The other arguments are the network's own (see its class). The result remembers them in `.config`.
    Raises ValueError for an unknown name or argument, naming the nearest and all known ones.
    """
    if name not in _NETWORKS:
        raise ValueError(f"there is no network {name!r}; known: {_nearest_first(name, names())}")
    network = _NETWORKS[name]
    known = list(inspect.signature(network.__init__).parameters)[1:]
    for argument in arguments:
        if argument not in known:
            raise ValueError(f"{name} has no argument {argument!r}; it has: {_nearest_first(argument, known)}")
    model = network(in_channels=in_channels, n_classes=n_classes, **arguments)
    model.config = {"model": name, "in_channels": in_channels, "n_classes": n_classes, **arguments}
    return model


def _nearest_first(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=len(known), cutoff=0.4)
    return ", ".join([*close, *(k for k in known if k not in close)])
