"""The family, as published: each variant's arguments, the size of its paper's images, and what must come out.

The numbers are facts about the networks, not about this code: parameter counts and sizes of the papers' definitions and
the authors' code. tests/test_models_exact.py holds every network to them, by shape inference; `minunet models` prints
them beside what it counts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Shape = tuple[int, int, int]  # H, W, C


class Variant(NamedTuple):
    """One row of the family's table."""

    title: str
    name: str  # for models.build
    arguments: dict[str, Any]
    image: Shape
    logits: Shape  # what a training step computes its loss from
    parameters: int  # trained
    frozen: int = 0
    gmac: float = 0.0  # multiply-accumulates of convolutions and matrix products, one image, evaluation, in 10^9
    statistics: int = 0  # elements of the running means and variances


def _v(title, name, image, logits, parameters, gmac, statistics=0, frozen=0, **arguments) -> Variant:
    arguments = {"in_channels": image[2], "n_classes": logits[2], **arguments}
    return Variant(title, name, arguments, image, logits, parameters, frozen, gmac, statistics)


VARIANTS = (
    _v("U-Net", "unet", (572, 572, 1), (388, 388, 2), 31_030_658, 150.43),
    _v("U-Net, as released", "unet", (572, 572, 1), (388, 388, 2), 31_100_354, 157.29, form="released"),
    _v("FusionNet", "fusionnet", (352, 480, 3), (352, 480, 12), 81_675_468, 281.74, 33_280),
    _v("FusionNet, article", "fusionnet", (640, 640, 1), (640, 640, 1), 78_531_649, 664.85, 31_360, form="article"),
    _v("FusionNet, common port", "fusionnet", (512, 512, 3), (512, 512, 3), 78_533_955, 426.11, 31_360, form="port"),
    _v("SegNet", "segnet", (360, 480, 3), (360, 480, 11), 29_449_355, 106.71, 15_872),
    _v("SegNet-Basic", "segnet_basic", (360, 480, 3), (360, 480, 11), 1_416_587, 59.19, 1_024),
    _v("FCN-8s", "fcn", (500, 500, 3), (500, 500, 21), 134_362_751, 181.53, frozen=127_008),
    _v("FCN-16s", "fcn", (500, 500, 3), (500, 500, 21), 134_357_354, 181.45, frozen=458_640, form="16s"),
    _v("FCN-32s", "fcn", (500, 500, 3), (500, 500, 21), 134_346_581, 181.37, frozen=1_806_336, form="32s"),
    _v("DeconvNet", "deconvnet", (224, 224, 3), (224, 224, 21), 251_805_653, 32.75, 33_408),
    _v("ZF_UNET_224", "zf_unet", (224, 224, 3), (224, 224, 1), 31_454_723, 13.22, 12_034),
    _v("ZF_UNET_224, head", "zf_unet", (224, 224, 3), (224, 224, 1), 31_454_721, 13.22, 12_032, form="head"),
    _v("U-Net-same", "unet_same", (512, 512, 3), (512, 512, 1), 31_043_521, 192.67, 11_776),
    _v("RedNet", "rednet", (480, 640, 4), (480, 640, 37), 81_970_233, 91.23, 127_872, in_channels=3),
    _v("RED-Net 30", "rednet_restoration", (50, 50, 1), (50, 50, 1), 1_035_201, 2.58),
    _v("DeepLab v1", "deeplab_v1", (321, 321, 3), (41, 41, 21), 20_505_429, 50.93),
    _v("DeepLab v2, VGG16", "deeplab_v2", (321, 321, 3), (41, 41, 21), 37_877_652, 80.12, body="vgg16"),
    _v("DeepLab v2, ResNet-101", "deeplab_v2", (321, 321, 3), (41, 41, 21), 44_048_532, 75.14, 105_344),
    _v("GCN", "gcn", (512, 512, 3), (512, 512, 21), 60_688_084, 68.33, 151_424),
    _v("DeepLab v3", "deeplab_v3", (513, 513, 3), (513, 513, 21), 58_040_661, 71.06, 108_416),
    _v("DeepLab v3+", "deeplab_v3", (513, 513, 3), (513, 513, 21), 59_344_309, 92.82, 109_536, form="v3+"),
    _v(
        "DeepLab v3+, Xception-65", "deeplab_v3", (513, 513, 3), (513, 513, 21), 41_055_413, 54.04, 202_800,
        form="v3+", body="xception65",
    ),
    _v("BiSeNet", "bisenet", (1024, 1024, 3), (1024, 1024, 19), 13_494_777, 51.86, 13_696),
    _v(
        "BiSeNet, Xception-39", "bisenet", (1024, 1024, 3), (1024, 1024, 19), 1_842_289, 13.88, 11_408,
        body="xception39",
    ),
    _v("DFN", "dfn", (512, 512, 3), (512, 512, 21), 90_724_344, 275.10, 116_864),
    _v("ENet", "enet", (512, 1024, 3), (512, 1024, 19), 364_183, 3.92, 8_352),
    _v("FANet", "fanet", (1024, 2048, 3), (1024, 2048, 19), 13_970_176, 47.39, 16_832),
)  # fmt: skip
