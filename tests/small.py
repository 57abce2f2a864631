"""Every network at a width and size that a test can afford: (name, arguments, image size). One line a form."""

from __future__ import annotations

SMALL = {
    "unet": ("unet", {"in_channels": 2, "n_classes": 3, "width": 2, "depth": 1}, (20, 22)),
    "unet, same": ("unet", {"in_channels": 1, "n_classes": 3, "width": 2, "depth": 2, "padding": "same"}, (8, 12)),
    "unet, released": (
        "unet", {"in_channels": 1, "n_classes": 2, "width": 2, "depth": 2, "form": "released"}, (44, 48),
    ),
    "fusionnet": ("fusionnet", {"in_channels": 2, "n_classes": 3, "width": 2, "depth": 2}, (8, 12)),
    "fusionnet, article": (
        "fusionnet", {"in_channels": 1, "n_classes": 2, "width": 2, "depth": 2, "form": "article"}, (8, 12),
    ),
    "fusionnet, port": (
        "fusionnet", {"in_channels": 2, "n_classes": 2, "width": 2, "depth": 2, "form": "port"}, (8, 12),
    ),
    "segnet": (
        "segnet", {"in_channels": 2, "n_classes": 3, "width": 2, "stages": ((1, 1), (2, 2), (2, 3, 2))}, (11, 14),
    ),
    "segnet, dropout": (
        "segnet",
        {"in_channels": 3, "n_classes": 3, "width": 2, "stages": ((1,), (1, 1), (2,), (2, 2)), "dropout": 0.5},
        (17, 13),
    ),
    "segnet_basic": ("segnet_basic", {"in_channels": 3, "n_classes": 3, "width": 2, "depth": 2}, (9, 7)),
    "segnet_basic, no lrn": (
        "segnet_basic",
        {"in_channels": 1, "n_classes": 2, "width": 2, "depth": 3, "lrn": False, "dropout": 0.25}, (9, 11),
    ),
}  # fmt: skip
