"""The networks by name. Each is one file here, imported when it is first asked for."""

from __future__ import annotations

import difflib
import inspect
from importlib import import_module
from typing import Any

from minunet.models.base import Network, Output, shapes_only

__all__ = ["Network", "Output", "build", "names", "network_class", "shapes_only"]

_NETWORKS = {
    "unet": "unet:UNet",
    "fusionnet": "fusionnet:FusionNet",
    "segnet": "segnet:SegNet",
    "segnet_basic": "segnet_basic:SegNetBasic",
    "fcn": "fcn:FCN",
    "deconvnet": "deconvnet:DeconvNet",
    "zf_unet": "zf_unet:ZFUNet",
    "unet_same": "unet_same:UNetSame",
    "rednet": "rednet:RedNet",
    "rednet_restoration": "rednet_restoration:RedNetRestoration",
    "deeplab_v1": "deeplab_v1:DeepLabV1",
    "deeplab_v2": "deeplab_v2:DeepLabV2",
    "gcn": "gcn:GCN",
    "deeplab_v3": "deeplab_v3:DeepLabV3",
    "bisenet": "bisenet:BiSeNet",
    "dfn": "dfn:DFN",
    "enet": "enet:ENet",
    "fanet": "fanet:FANet",
}


def names() -> list[str]:
    """The names that `build` knows."""
    return list(_NETWORKS)


def network_class(name: str) -> type[Network]:
    """The class of a network. Raises ValueError for an unknown name, naming the nearest and all known ones."""
    if name not in _NETWORKS:
        raise ValueError(f"there is no network {name!r}; known: {_nearest_first(name, names())}")
    module, attribute = _NETWORKS[name].split(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def build(name: str, in_channels: int | None = None, n_classes: int | None = None, **arguments: Any) -> Network:
    """A network with fresh weights: `build("unet", in_channels=1, n_classes=2, width=64, seed=0)`.

    Left out, `in_channels` and `n_classes` are those of the network's paper. The other arguments are the network's own
    (see its class). The result remembers all of them in `.config`.
    Raises ValueError for an unknown name or argument, naming the nearest and all known ones.
    """
    network = network_class(name)
    known = inspect.signature(network.__init__).parameters
    given = {"in_channels": in_channels, "n_classes": n_classes, **arguments}
    for argument in ("in_channels", "n_classes"):
        if given[argument] is None:
            given[argument] = known[argument].default
    for argument in arguments:
        if argument not in list(known)[1:]:
            listed = _nearest_first(argument, list(known)[1:])
            raise ValueError(f"{name} has no argument {argument!r}; it has: {listed}")
    model = network(**given)
    model.config = {"model": name, **given}
    return model


def _nearest_first(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=len(known), cutoff=0.4)
    return ", ".join([*close, *(k for k in known if k not in close)])
