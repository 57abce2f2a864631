"""What an option that was not given means, by data set and by network; the rest are `Config`'s own defaults."""

from __future__ import annotations

from typing import Any, NamedTuple


class Facts(NamedTuple):
    """What is known of a data set before it is read, and its own defaults."""

    channels: int
    n_classes: int
    steps: int  # the default budget: minutes on two cores
    settings: dict[str, Any]


_SCENES = {
    "model": "segnet",
    "tile": 0,
    "batch": 4,
    "rotations": 0,  # the sky is above
    "colour": 0.05,
    "class_weights": "median",
    "normalise": "dataset",
    "shuffle": 1,
}
_TOUCHING = {  # cells of 100 pixels at full size: at 256 x 256 U-Net's window of 188 pixels sees whole ones
    "size": "256x256",
    "weights": "paper",
    "elastic": 5.0,
}
DATASETS = {
    "isbi": Facts(1, 2, 5500, {}),
    "synthetic": Facts(1, 2, 5500, {}),
    "camvid": Facts(3, 11, 2500, {**_SCENES, "size": "180x240"}),
    "streets": Facts(3, 7, 300, _SCENES),
    "hela": Facts(1, 2, 3000, _TOUCHING),
    "u373": Facts(1, 2, 3000, _TOUCHING),
    "folder": Facts(1, 2, 3000, {}),  # channels and classes are those of the user's files
}
OWN = "folder"
UNET = ("width", "depth", "padding", "dropout")  # whose defaults in Config are U-Net's, and None for other networks
SMALL = 4  # other networks start at their paper's width divided by this, so that a laptop can train them ...
FULL = ("enet",)  # ... but for those made for phones

# What suits a network on scenes, and on cells of two classes. The rate: mean IoU on CamVid at 60 x 80 after 1,000 steps
# was 0.236 with 1e-3, 0.247 with 3e-3, 0.270 with 6e-3, 0.290 with 12e-3; but at 180 x 240 it was 0.409 with 1e-2 after
# 5,972 steps and 0.440 with 3e-3 after 3,476. The loss: RED-Net has one output map only.
SCENES = {"segnet": {"lr": 3e-3}}
CELLS = {"rednet_restoration": {"loss": "mse"}}
