"""DeepLab v1, LargeFOV: Chen, Papandreou, Kokkinos, Murphy, Yuille, "Semantic Image Segmentation with Deep
Convolutional Nets and Fully Connected CRFs" (2014, arXiv 1412.7062). VGG16 whose last two pools keep the size; what
lost its stride is dilated instead, and so is fc6.

    x ─ conv1 ─ /2 ─ conv2 ─ /2 ─ conv3 ─ /2 ─ conv4 ─ pool ─ conv5 d2 ─ pool ─ mean ─ fc6 d12 ─ fc7 ─ fc8 ─ x8
    321         161          81           41           41               41             1024       1024  21    321
"""

from __future__ import annotations

import numpy as np

from minunet import nn, ops
from minunet.models import vgg
from minunet.models.base import Network, positive
from minunet.tensor import Tensor


class DilatedVGG(nn.Module):
    """VGG16's convolutions at 1/8 of the image's size: H becomes (H - 1) / 8 + 1, rounded up; 8 width channels."""

    def __init__(self, rng: np.random.Generator, in_channels: int, width: int):
        channels = vgg.widths(width)
        self.stages = vgg.encoder(rng, in_channels, channels[:4])
        self.stages.append(vgg.stage(rng, channels[3][-1], channels[4], padding=2, dilation=2))

    def forward(self, x: Tensor) -> Tensor:
        for stage, stride in zip(self.stages, (2, 2, 2, 1, 1)):
            x = ops.max_pool2d(stage(x), 3, stride=stride, padding=1, ceil_mode=True)
        return x


class LargeFOV(nn.Module):
    """fc6 as a dilated 3x3 convolution, fc7 and fc8: features -> scores of classes."""

    def __init__(self, rng: np.random.Generator, c: int, fc: int, n_classes: int, rate: int, dropout: float, seed: int):
        self.fc6 = nn.Conv2d(rng, c, fc, 3, padding=rate, dilation=rate, activation="relu")
        self.drop6 = nn.Dropout(dropout, seed)
        self.fc7 = nn.Conv2d(rng, fc, fc, 1, activation="relu")
        self.drop7 = nn.Dropout(dropout, seed + 1)
        self.fc8 = nn.Conv2d(rng, fc, n_classes, 1, init=nn.init.normal(0.01))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc8(self.drop7(self.fc7(self.drop6(self.fc6(x)))))


class DeepLabV1(Network):
    """x (N, H, W, in_channels) -> logits; any H and W.

    In training they have 1/8 of the image's size, for the labels to be shrunk to: every eighth pixel of an image of
    8 k + 1, whose corners then have scores. In evaluation they are resized to the image's size.

    width   : channels of the first stage (paper: 64); fc6 and fc7 have 16 times as many
    rate    : dilation of fc6 (paper: 12)
    dropout : after fc6 and fc7 (paper: 0.5)
    align_corners : how the scores are resized; the authors' code has True, the common PyTorch ports False

    Biases learn at twice the rate and do not decay; fc8 learns ten times as fast as the rest. Ours against the
    original: He-normal weights instead of a trained VGG16, and no conditional random field afterwards.
    """

    paper = "Chen, Papandreou, Kokkinos, Murphy, Yuille 2014, arXiv 1412.7062"

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 21,
        width: int = 64,
        rate: int = 12,
        dropout: float = 0.5,
        align_corners: bool = False,
        seed: int = 0,
    ):
        positive("deeplab_v1", in_channels=in_channels, n_classes=n_classes, width=width, rate=rate)
        rng = np.random.default_rng(seed)
        self.align_corners = bool(align_corners)
        self.body = DilatedVGG(rng, in_channels, width)
        self.head = LargeFOV(rng, 8 * width, 16 * width, n_classes, rate, dropout, seed)
        nn.lr_factors(self, 1, 2, bias_decay=0)
        nn.lr_factors(self.head.fc8, 10, 20, bias_decay=0)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[1:3]
        x = self.head(ops.avg_pool2d(self.body(x), 3, stride=1, padding=1))
        if self.training:
            return x
        return ops.upsample(x, size=size, mode="bilinear", align_corners=self.align_corners)
