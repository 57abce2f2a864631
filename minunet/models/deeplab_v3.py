"""DeepLab v3: Chen, Papandreou, Schroff, Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation" (2017,
arXiv 1706.05587), figure 5; and v3+: Chen, Zhu, Papandreou, Schroff, Adam, "Encoder-Decoder with Atrous Separable
Convolution for Semantic Image Segmentation" (2018, arXiv 1802.02611), figure 2.

             ┌ 1x1 ───────────┐                                          513 → 33 → 513
             ├ 3x3 d6  ───────┤                    v3 : ─ 1x1 ─ resize
    x ─ body ┼ 3x3 d12 ───────┼ concat ─ 1x1 ┤
       │     ├ 3x3 d18 ───────┤                    v3+: ─ resize ─ concat ─ 3x3 ─ 3x3 ─ 1x1 ─ resize
       │     └ mean of all ───┘                                      │
       └─ 1x1 of the map of 1/4 the size ────────────────────────────┘       129
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minunet import nn, ops
from minunet.models.base import Network, Output, one_of, positive
from minunet.models.resnet import ResNet
from minunet.models.xception import SeparableBN, Xception65
from minunet.tensor import Tensor

FORMS, BODIES = ("v3", "v3+", "torchvision"), ("resnet101", "resnet50", "xception65")


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: maps (N, H, W, c) -> (N, H, W, o), seen through windows of several sizes.

    convs : the 3x3 branches         mean_first : the mean over the image comes first in the concatenation, not last
    """

    def __init__(self, rng: np.random.Generator, c: int, o: int, convs: list[nn.Module], mean_first: bool, drop):
        self.branches = [nn.ConvBN(rng, c, o, 1, bias=False), *convs]
        self.mean = nn.ConvBN(rng, c, o, 1, bias=False)
        self.project = nn.ConvBN(rng, (2 + len(convs)) * o, o, 1, bias=False)
        self.mean_first, self.drop = mean_first, drop

    def forward(self, x: Tensor) -> Tensor:
        maps = [branch(x) for branch in self.branches]
        mean = ops.upsample(self.mean(ops.global_avg_pool(x)), size=x.shape[1:3])  # of 1 x 1: every pixel the same
        return self.drop(self.project(ops.concat([mean, *maps] if self.mean_first else [*maps, mean])))


class DeepLabV3(Network):
    """x (N, H, W, in_channels) -> logits (N, H, W, n_classes), any size. Training needs a batch of two or more, since
    batch-norm meets maps of 1 x 1.

    form   : "v3"; "v3+", with a decoder that joins the body's map of 1/4 the size; "torchvision": v3 as that library
             has it, without multi-grid (dilations 1, 2, 4 in layer4's blocks, times its own), a 3x3 convolution before
             the classifier, and in training the logits of an auxiliary head on layer3 too, whose loss counts by 0.5
    body   : "resnet101", "resnet50", or "xception65", with separable convolutions behind the body too
    width  : channels of the body's stem (paper: 64); all others in proportion
    output_stride : 16 or 8: the image's size over that of the body's last map; None: 16, torchvision's 8
    blocks : of ResNet's four layers, or (middle,) of Xception, if not the published ones
    dropout : before the classifier; None: 0.1, torchvision's 0.5
    align_corners : how maps are resized: False as in the ports, True as in the authors' code

    Ours against the authors': ResNet has its strides where torchvision has them, and a 7x7 stem; batch-norm's running
    averages move by 0.1 a step instead of 0.0003. The order of concatenation is theirs.
    """

    paper = "Chen, Papandreou, Schroff, Adam 2017, arXiv 1706.05587; v3+: 2018, arXiv 1802.02611"

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 21,
        width: int = 64,
        form: str = "v3",
        body: str = "resnet101",
        output_stride: int | None = None,
        blocks: Sequence[int] | None = None,
        dropout: float | None = None,
        align_corners: bool = False,
        seed: int = 0,
    ):
        one_of("deeplab_v3", "form", form, FORMS)
        one_of("deeplab_v3", "body", body, BODIES if form != "torchvision" else BODIES[:2])
        positive("deeplab_v3", in_channels=in_channels, n_classes=n_classes, width=width)
        library, separable, plus = form == "torchvision", body == "xception65", form == "v3+"
        stride = output_stride or (8 if library else 16)
        one_of("deeplab_v3", "output_stride", stride, (8,) if library else (16, 8))
        if blocks is not None and len(blocks) != (1 if separable else 4):
            raise ValueError(f"deeplab_v3: blocks {tuple(blocks)} must be {1 if separable else 4} for {body}")
        rng, o = np.random.default_rng(seed), 4 * width  # 256
        self.align_corners = bool(align_corners)
        if separable:
            (middle,) = (16,) if blocks is None else blocks
            self.body = Xception65(rng, in_channels, width, middle, stride)
        else:
            self.body = ResNet(rng, in_channels, int(body[6:]), width, blocks=blocks, **_dilated(stride, library))
        c = self.body.channels

        def conv3x3(i: int, dilation: int = 1) -> nn.Module:
            if separable:
                return SeparableBN(rng, i, o, dilation=dilation, inside=True, eps=1e-5)
            return nn.ConvBN(rng, i, o, 3, padding=dilation, dilation=dilation, bias=False)

        def drop(rate: float) -> nn.Dropout:
            return nn.Dropout(rate if dropout is None else dropout, seed)

        convs = [conv3x3(c[-1], rate * 16 // stride) for rate in (6, 12, 18)]
        self.aspp = ASPP(rng, c[-1], o, convs, not library, drop(0.5 if library else 0.1))
        few = max(3 * width // 4, 1)  # 48 of 256 channels, so that the ASPP's count for more
        self.low = nn.ConvBN(rng, c[1], few, 1, bias=False) if plus else None
        steps = (o + few, o) if plus else (o,) if library else ()
        self.decoder = nn.Sequential(*(conv3x3(i) for i in steps))
        self.classifier = nn.Conv2d(rng, o, n_classes, 1, init=nn.init.normal(0.01))
        self.auxiliary = None
        if library:
            self.outputs = (Output(), Output(weight=0.5))
            inner = c[3] // 4
            self.auxiliary = nn.Sequential(
                nn.ConvBN(rng, c[3], inner, 3, bias=False), drop(0.1), nn.Conv2d(rng, inner, n_classes, 1)
            )

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        size, maps = x.shape[1:3], self.body(x)
        y = self.aspp(maps[-1])
        if self.low:
            low = self.low(maps[1])
            y = ops.concat([self.resized(y, low.shape[1:3]), low])
        y = self.resized(self.classifier(self.decoder(y)), size)
        if self.training and self.auxiliary:
            return y, self.resized(self.auxiliary(maps[3]), size)
        return y

    def resized(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return ops.upsample(x, size=size, mode="bilinear", align_corners=self.align_corners)


def _dilated(stride: int, library: bool) -> dict[str, Sequence]:
    """ResNet's strides and dilations for a last map of 1/16 or 1/8 the size."""
    if library:  # a layer's first block keeps the dilation of the layer before
        return {"strides": (1, 2, 1, 1), "dilations": (1, 1, (1, 2), (2, 4))}
    if stride == 16:
        return {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, (2, 4, 8))}
    return {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, (4, 8, 16))}
