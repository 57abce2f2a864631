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
    "fcn-8s": ("fcn", {"in_channels": 2, "n_classes": 2, "widths": (2, 2, 2, 2, 3), "fc": 3}, (5, 3)),
    "fcn-8s, at once": (
        "fcn",
        {"in_channels": 2, "n_classes": 2, "widths": (2, 2, 2, 2, 3), "fc": 3, "at_once": True, "learned": True},
        (1, 6),
    ),
    "fcn-16s": ("fcn", {"in_channels": 2, "n_classes": 2, "widths": (2, 2, 2, 2, 3), "fc": 3, "form": "16s"}, (3, 1)),
    "fcn-32s": ("fcn", {"in_channels": 2, "n_classes": 2, "widths": (2, 2, 3, 3, 4), "fc": 5, "form": "32s"}, (2, 9)),
    "deconvnet": (
        "deconvnet",
        {"in_channels": 2, "n_classes": 3, "widths": ((2, 3), (3, 2, 3)), "fc": 4, "fc_kernel": 2}, (8, 12),
    ),
    "zf_unet": ("zf_unet", {"in_channels": 2, "n_classes": 1, "width": 1, "dropout": 0.1}, (32, 96)),
    "zf_unet, head": ("zf_unet", {"in_channels": 1, "n_classes": 2, "width": 1, "form": "head"}, (64, 32)),
    "unet_same": ("unet_same", {"in_channels": 2, "n_classes": 1, "width": 1}, (16, 32)),
    "unet_same, milesial": (
        "unet_same", {"in_channels": 3, "n_classes": 2, "width": 1, "form": "milesial"}, (21, 18),
    ),
    "unet_same, bilinear": (
        "unet_same", {"in_channels": 1, "n_classes": 2, "width": 2, "form": "milesial", "bilinear": True}, (35, 40),
    ),
    "enet": ("enet", {"in_channels": 2, "n_classes": 3, "widths": (8, 16, 16), "dropout": (0.1, 0.3)}, (16, 24)),
    "rednet": (
        "rednet",
        {"in_channels": 3, "n_classes": 3, "width": 2, "blocks": (1, 1, 1, 1), "units": (2, 1, 1, 1, 1)}, (64, 96),
    ),
    "rednet, basic blocks": (
        "rednet",
        {"in_channels": 1, "n_classes": 2, "width": 2, "depth": 18, "blocks": (1, 2, 1, 1), "units": (1, 1, 1, 1, 1)},
        (96, 64),
    ),
    "rednet_restoration": (
        "rednet_restoration", {"in_channels": 1, "n_classes": 1, "width": 2, "depth": 10}, (5, 7),
    ),
    "rednet_restoration, stride 2": (
        "rednet_restoration", {"in_channels": 3, "n_classes": 3, "width": 2, "depth": 12, "stride": 2}, (6, 8),
    ),
    "deeplab_v1": ("deeplab_v1", {"in_channels": 3, "n_classes": 3, "width": 1, "rate": 2}, (19, 25)),
    "deeplab_v2": (
        "deeplab_v2",
        {"in_channels": 3, "n_classes": 3, "width": 2, "rates": (1, 2), "blocks": (1, 1, 2, 1)}, (33, 42),
    ),
    "deeplab_v2, vgg16, three scales": (
        "deeplab_v2",
        {
            "in_channels": 1, "n_classes": 2, "width": 1, "body": "vgg16", "rates": (1, 2), "scales": (1, 0.75, 0.5),
            "align_corners": True,
        },
        (26, 19),
    ),
    "deeplab_v2, frozen norm": (
        "deeplab_v2",
        {"in_channels": 3, "n_classes": 2, "width": 2, "rates": (3,), "blocks": (1, 1, 1, 1), "freeze_norm": True},
        (20, 17),
    ),
    "gcn": (
        "gcn", {"in_channels": 3, "n_classes": 3, "width": 2, "depth": 50, "k": 3, "blocks": (1, 1, 1, 1)}, (70, 45),
    ),
    "gcn, deconvolution": (
        "gcn",
        {
            "in_channels": 1, "n_classes": 2, "width": 2, "depth": 18, "k": 5, "blocks": (1, 1, 1, 1),
            "upsampling": "deconvolution",
        },
        (32, 64),
    ),
    "dfn": (
        "dfn",
        {"in_channels": 3, "n_classes": 2, "width": 2, "depth": 50, "border": 3, "blocks": (1, 1, 1, 1)}, (96, 64),
    ),
    "dfn, 7x7 stem": (
        "dfn",
        {
            "in_channels": 1, "n_classes": 2, "width": 1, "depth": 18, "border": 2, "blocks": (1, 1, 1, 1),
            "deep_stem": False,
        },
        (64, 96),
    ),
    "bisenet": ("bisenet", {"in_channels": 2, "n_classes": 3, "width": 4}, (104, 72)),
    "bisenet, xception39": (
        "bisenet", {"in_channels": 1, "n_classes": 2, "width": 8, "body": "xception39"}, (40, 72),
    ),
    "fanet": ("fanet", {"in_channels": 2, "n_classes": 3, "width": 4}, (67, 131)),
    "deeplab_v3": (
        "deeplab_v3",
        {"in_channels": 3, "n_classes": 3, "width": 2, "body": "resnet50", "blocks": (1, 1, 1, 3)}, (33, 41),
    ),
    "deeplab_v3, stride 8": (
        "deeplab_v3",
        {
            "in_channels": 2, "n_classes": 3, "width": 2, "blocks": (1, 1, 2, 2), "output_stride": 8,
            "align_corners": True,
        },
        (33, 24),
    ),
    "deeplab_v3, torchvision": (
        "deeplab_v3",
        {"in_channels": 3, "n_classes": 2, "width": 2, "blocks": (2, 1, 2, 2), "form": "torchvision"}, (25, 34),
    ),
    "deeplab_v3, v3+": (
        "deeplab_v3", {"in_channels": 3, "n_classes": 3, "width": 3, "blocks": (1, 1, 1, 2), "form": "v3+"}, (34, 33),
    ),
    "deeplab_v3, v3+, xception65": (
        "deeplab_v3",
        {"in_channels": 3, "n_classes": 3, "width": 2, "blocks": (2,), "form": "v3+", "body": "xception65"}, (33, 47),
    ),
    "deeplab_v3, xception65, stride 8": (
        "deeplab_v3",
        {"in_channels": 1, "n_classes": 3, "width": 2, "blocks": (1,), "output_stride": 8, "body": "xception65"},
        (33, 31),
    ),
}  # fmt: skip
