"""DeepLab v2: Chen, Papandreou, Kokkinos, Murphy, Yuille, "DeepLab: Semantic Image Segmentation with Deep Convolutional
Nets, Atrous Convolution, and Fully Connected CRFs" (2016, arXiv 1606.00915), figure 7: atrous spatial pyramid pooling.

             ┌ 3x3 d6  ─ scores ┐
    x ─ body ┼ 3x3 d12 ─ scores ┼ + ─ x8          321 → 41 → 321
             ├ 3x3 d18 ─ scores ┤
             └ 3x3 d24 ─ scores ┘
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from minunet import nn, ops
from minunet.models.base import Network, Output, one_of, positive
from minunet.models.deeplab_v1 import DilatedVGG, LargeFOV
from minunet.models.resnet import ResNet
from minunet.tensor import Tensor

BODIES = ("resnet101", "vgg16")
RATES = (6, 12, 18, 24)


class DeepLabV2(Network):
    """x (N, H, W, in_channels) -> logits; any H and W that the smallest of the scales leaves a pixel of.

    In training they have 1/8 of the image's size, for the labels to be shrunk to: every eighth pixel of an image of
    8 k + 1, whose corners then have scores. In evaluation they are resized to the image's size.

    body    : "resnet101": stride on the first 1x1 convolutions, layer3 dilated by 2 and layer4 by 4; a branch is one
              convolution. "vgg16": that of DeepLab v1; a branch is its fc6, fc7 and fc8
    width   : channels of the first stage (paper: 64)
    rates   : dilations of the branches (paper: 6, 12, 18, 24: ASPP-L)
    scales  : sizes of the image that are looked at, (1, 0.75, 0.5) in the paper's best results: the scores' maximum
              counts, and in training it and the scores of each scale have a loss of their own
    blocks  : of ResNet's layers, if not 3, 4, 23, 3
    freeze_norm : ResNet's batch-norms stay as they are, running statistics included: for a body that is trained already
    dropout : after fc6 and fc7 of "vgg16"
    align_corners : how scores, and images of other scales, are resized; the authors' code has True, ports have False

    The branches learn ten times as fast as the body, their biases twenty times. Ours against the original: random
    weights instead of a trained body, and no conditional random field afterwards.
    """

    paper = "Chen, Papandreou, Kokkinos, Murphy, Yuille 2016, arXiv 1606.00915"

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 21,
        width: int = 64,
        body: str = "resnet101",
        rates: Sequence[int] = RATES,
        scales: Sequence[float] = (1,),
        blocks: Sequence[int] | None = None,
        freeze_norm: bool = False,
        dropout: float = 0.5,
        align_corners: bool = False,
        seed: int = 0,
    ):
        one_of("deeplab_v2", "body", body, BODIES)
        least = min(rates, default=0)
        positive("deeplab_v2", in_channels=in_channels, n_classes=n_classes, width=width, rates=least)
        if not scales or min(scales) <= 0:
            raise ValueError(f"deeplab_v2: scales {tuple(scales)} must be one positive number or more")
        rng = np.random.default_rng(seed)
        self.scales, self.align_corners = tuple(scales), bool(align_corners)
        if len(scales) > 1:
            self.outputs = (Output(),) * (1 + len(scales))
        self.freeze_norm = freeze_norm and body != "vgg16"
        if body == "vgg16":
            self.body = DilatedVGG(rng, in_channels, width)
            self.branches = [
                LargeFOV(rng, 8 * width, 16 * width, n_classes, rate, dropout, seed + 2 * k)
                for k, rate in enumerate(rates)
            ]
            nn.lr_factors(self, 1, 2, bias_decay=0)
            for branch in self.branches:
                nn.lr_factors(branch.fc8, 10, 20, bias_decay=0)
        else:
            layout = {"caffe_style": True, "ceil_mode": True, "strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)}
            self.body = ResNet(rng, in_channels, 101, width, blocks=blocks, **layout)
            c, small = self.body.channels[-1], nn.init.normal(0.01)
            self.branches = [nn.Conv2d(rng, c, n_classes, 3, padding=r, dilation=r, init=small) for r in rates]
            for branch in self.branches:
                nn.lr_factors(branch, 10, 20)
        self.train()

    def trace(self, size: int) -> int | None:
        return size if int(size * min(self.scales)) >= 1 else None

    def train(self, mode: bool = True) -> DeepLabV2:
        super().train(mode)
        if self.freeze_norm:
            for module in self.body.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.training = module.gamma.requires_grad = module.beta.requires_grad = False
        return self

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        size = x.shape[1:3]
        scores = [self.score(self.resized(x, (int(size[0] * s), int(size[1] * s)))) for s in self.scales]
        alike = [self.resized(y, scores[0].shape[1:3]) for y in scores]
        most = reduce(lambda a, b: ops.add(a, ops.relu(ops.add(b, a, 1, -1))), alike)  # max(a, b) = a + relu(b - a)
        if self.training:
            return (most, *scores) if len(scores) > 1 else most
        return self.resized(most, size)

    def score(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, H / 8, W / 8, n_classes), the sum of the branches."""
        features = self.body(x)
        features = features[-1] if isinstance(features, list) else features
        return reduce(ops.add, (branch(features) for branch in self.branches))

    def resized(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if x.shape[1:3] == size:
            return x
        return ops.upsample(x, size=size, mode="bilinear", align_corners=self.align_corners)
