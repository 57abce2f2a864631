"""The recipes that the networks were published with, as settings for `minunet train --preset NAME`.

Loss, optimiser, schedule, batch and augmentation as in the paper or its authors' code; the budget, the image size and
the network's width stay the user's. Most papers started from weights trained on ImageNet: from fresh weights a recipe
with a very low rate is only of use with a budget like theirs.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from minunet.errors import UserError


class Preset(NamedTuple):
    """settings: for every data set; cells: added to them for cells, which are two classes."""

    source: str
    settings: Mapping[str, Any]
    cells: Mapping[str, Any] = MappingProxyType({})


PLAIN = {
    "flips": 0,
    "rotations": 0,
    "elastic": 0.0,
    "zoom": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "gamma": 0.0,
    "colour": 0.0,
}
MIRROR = PLAIN | {"flips": 1}


def _sgd(lr: float, momentum: float = 0.9, decay: float = 0.0, schedule: str = "constant", **more: Any) -> dict:
    base = {
        "optimizer": "sgd",
        "lr": lr,
        "momentum": momentum,
        "weight_decay": decay,
        "schedule": schedule,
        "warmup": 0.0,
    }
    return base | more


def _steps(every: float, factor: float = 0.1) -> dict[str, Any]:
    return {"schedule": "step", "step_every": every, "step_factor": factor}


PRESETS: dict[str, dict[str, Preset]] = {
    "unet": {
        "paper": Preset(
            "arXiv 1505.04597, section 3; the rate is ours: with momentum 0.99 a step is 100 times as long",
            _sgd(1e-4, 0.99, dropout=0.5),
            cells={"weights": "paper", "elastic": 10.0, "average": 7},
        )
    },
    "fusionnet": {
        "paper": Preset(  # Nadam there: Adam here. Noise of sd 25.5 grey levels is 0.6 of ISBI's own sd
            "arXiv 1612.05360, the authors' Keras code",
            {"optimizer": "adam", "lr": 1e-4, "schedule": "constant", "warmup": 0.0, "noise": 0.6},
            cells={"loss": "mae", "flips": 1, "rotations": 1, "elastic": 8.0, "average": 8},
        ),
        "port": Preset(
            "github GunhoChoi/FusionNet-Pytorch",
            {"optimizer": "adam", "lr": 2e-4, "schedule": "constant", "warmup": 0.0, "batch": 16},
            cells={"loss": "smooth_l1"},
        ),
    },
    "segnet": {
        "paper": Preset(
            "arXiv 1511.00561, section 4.1",
            PLAIN | _sgd(0.1, batch=12, shuffle=1, class_weights="median"),
        ),
        "released": Preset(
            "github alexgkendall/SegNet-Tutorial, segnet_solver.prototxt",
            PLAIN | _sgd(1e-3, decay=5e-4, batch=4, shuffle=1, class_weights="median"),
        ),
    },
    "segnet_basic": {
        "paper": Preset(
            "arXiv 1511.00561, section 4.1",
            PLAIN | _sgd(0.1, batch=12, shuffle=1, class_weights="median"),
        ),
        "released": Preset(
            "github alexgkendall/SegNet-Tutorial, segnet_basic_solver.prototxt",
            PLAIN | _sgd(0.1, decay=5e-4, batch=4, shuffle=1, class_weights="median"),
        ),
    },
    "fcn": {
        "paper": Preset("arXiv 1411.4038, section 4.3", PLAIN | _sgd(1e-4, decay=5e-4, batch=20)),
        "released": Preset(
            "github shelhamer/fcn.berkeleyvision.org, voc-fcn32s: the loss is a sum over pixels",
            PLAIN | _sgd(1e-10, 0.99, 5e-4, batch=1, reduction="sum", class_weights="none"),
        ),
    },
    "deconvnet": {
        "paper": Preset(
            "github HyeonwooNoh/DeconvNet, stage 1: 8 images x 8 accumulated, a drop every 9,000 of 20,000 steps",
            MIRROR | _sgd(0.01, decay=5e-4, batch=8, accumulate=8) | _steps(0.45),
        )
    },
    "zf_unet": {
        "paper": Preset(
            "github ZFTurbo/ZF_UNET_224_Pretrained_Model; there the rate is halved after 5 epochs without progress",
            _sgd(1e-3, nesterov=1, batch=16, loss="dice", class_weights="none"),
        )
    },
    "unet_same": {
        "paper": Preset("its tutorial; it states no rate", {"optimizer": "adam", "lr": 1e-3}, cells={"loss": "bce"})
    },
    "rednet": {
        "paper": Preset(
            "arXiv 1806.01054 and its code: 1,500 epochs, a drop every 100",
            MIRROR
            | _sgd(2e-3, decay=1e-4, batch=5, class_weights="median", colour=0.1, zoom=0.4)
            | _steps(1 / 15, 0.8),
        )
    },
    "rednet_restoration": {
        "paper": Preset(
            "arXiv 1603.09056, github yjn870/REDNet-pytorch",
            {"optimizer": "adam", "lr": 1e-4, "schedule": "constant", "warmup": 0.0},
            cells={"loss": "mse"},
        )
    },
    "deeplab_v1": {
        "paper": Preset(
            "arXiv 1412.7062, LargeFOV: a drop every 2,000 of 6,000 steps",
            MIRROR | _sgd(1e-3, decay=5e-4, batch=20) | _steps(1 / 3),
        )
    },
    "deeplab_v2": {
        "paper": Preset("arXiv 1606.00915", MIRROR | _sgd(2.5e-4, decay=5e-4, schedule="poly", batch=10, zoom=0.5)),
    },
    "deeplab_v3": {
        "paper": Preset("arXiv 1706.05587", MIRROR | _sgd(7e-3, decay=1e-4, schedule="poly", batch=16, zoom=1.0)),
    },
    "gcn": {
        "paper": Preset(
            "arXiv 1703.02719; it states no rate: this one is ours, for momentum 0.99", _sgd(1e-4, 0.99, 5e-4)
        ),
    },
    "bisenet": {
        "paper": Preset(
            "arXiv 1808.00897, the authors' TorchSeg",
            MIRROR | _sgd(1e-2, decay=5e-4, schedule="poly", batch=16, loss="ohem", class_weights="none", zoom=1.0),
        )
    },
    "dfn": {
        "paper": Preset(
            "arXiv 1804.09337, the authors' TorchSeg",
            MIRROR | _sgd(8e-4, decay=1e-5, schedule="poly", batch=32, class_weights="none", zoom=1.0),
        )
    },
    "enet": {
        "paper": Preset(  # 300 epochs, a drop every 100
            "arXiv 1606.02147, github e-lab/ENet-training",
            MIRROR
            | {
                "optimizer": "adam",
                "lr": 5e-4,
                "weight_decay": 2e-4,
                "warmup": 0.0,
                "batch": 10,
                "class_weights": "enet",
            }
            | _steps(1 / 3),
        )
    },
    "fanet": {
        "paper": Preset(
            "arXiv 2007.03815, github feinanshan/FANet: warm-up over 1,000 of 40,000 steps",
            MIRROR | _sgd(1e-2, decay=5e-4, schedule="poly", batch=16, loss="ohem", class_weights="none", warmup=0.025),
        )
    },
}


def recipe(network: str, preset: str, n_classes: int) -> dict[str, Any]:
    """The settings of a network's preset for data of so many classes; {} for the empty name. Raises UserError for a
    preset that the network does not have.
    """
    if not preset:
        return {}
    known = PRESETS.get(network, {})
    if preset not in known:
        near = difflib.get_close_matches(preset, known, n=1) or list(known)[:1]
        raise UserError(
            f"--preset {preset}: {network} has {', '.join(known) or 'none'}"
            + (f"; did you mean {near[0]}? See --preset list" if near else "; leave it out")
        )
    found = known[preset]
    return {**found.settings, **(found.cells if n_classes == 2 else {})}


def listing() -> str:
    """All presets in plain words, one a paragraph."""
    lines = []
    for network, presets in PRESETS.items():
        for name, p in presets.items():
            shown = {k: v for k, v in p.settings.items() if not (k in PLAIN and v == 0)}
            lines.append(f"{network} --preset {name}   ({p.source})")
            for kind, settings in (("", shown), ("cells: ", p.cells)):
                if settings:
                    lines.append("    " + kind + _options(settings))
    return "\n".join(lines)


def _options(settings: dict[str, Any]) -> str:
    return " ".join(
        f"--{k.replace('_', '-')} {v:g}" if isinstance(v, float) else f"--{k.replace('_', '-')} {v}"
        for k, v in settings.items()
    )
