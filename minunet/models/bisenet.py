"""BiSeNet: Yu, Wang, Peng, Gao, Yu, Sang, "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation"
(2018, arXiv 1808.00897), figure 2, with the layers of the first author's code (TorchSeg).

    x ─ spatial path ─────────────────────────────────────────────────────────────── fuse ─ head ─ up x8
      ├ body ─ /8 ─ /16 ───────────── refine ────── + ─ up x2 ─ conv ─────────────────┘
                      └ /32 ───────── refine ─ + ─ up x2 ─ conv ┘                          refine = attention refinement
                         └ mean ─ conv ────────┘
"""

from __future__ import annotations

import numpy as np

from minunet import nn, ops
from minunet.models.base import Network, Output, one_of, positive
from minunet.models.resnet import ResNet
from minunet.models.xception import Xception39
from minunet.tensor import Tensor

# body: channels of the auxiliary heads and of the main one, in units of the width
HEADS = {"resnet18": (4, 1), "xception39": (2, 1), "resnet101": (4, 4)}


def conv(rng: np.random.Generator, c: int, o: int, kernel: int = 3, **options) -> nn.ConvBN:
    """Convolution without a bias, batch-norm, ReLU; as large as its input, or half of it."""
    return nn.ConvBN(rng, c, o, kernel, padding=kernel // 2, bias=False, **options)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return ops.upsample(x, size=size, mode="bilinear", align_corners=True)


class AttentionRefinement(nn.Module):
    """y = f g, f = conv(x), g = sigmoid(bn(1x1(mean of f))): one weight a channel (figure 2b)."""

    def __init__(self, rng: np.random.Generator, c: int, o: int):
        self.conv = conv(rng, c, o)
        self.weigh = conv(rng, o, o, 1, activation="sigmoid")

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return ops.gate(x, self.weigh(ops.global_avg_pool(x)))


class FeatureFusion(nn.Module):
    """y = f + f g, f = conv1x1([spatial, context]), g = sigmoid(1x1(relu(1x1(mean of f)))) (figure 2c)."""

    def __init__(self, rng: np.random.Generator, c: int):
        self.conv = conv(rng, c, c, 1)
        self.squeeze = nn.Conv2d(rng, c, c, 1, bias=False, activation="relu")
        self.weigh = nn.Conv2d(rng, c, c, 1, bias=False, activation="sigmoid")

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        x = self.conv(ops.concat([spatial, context]))
        return x + ops.gate(x, self.weigh(self.squeeze(ops.global_avg_pool(x))))


class BiSeNet(Network):
    """x (N, H, W, in_channels) -> logits (N, H, W, n_classes); H and W multiples of 8.

    In training also the logits of two auxiliary heads, on the context path at 1/16 and at 1/8, with the same weight in
    the loss. Batches must be of two images at least there: the global branch normalises maps of one pixel.

    body  : "resnet18", "xception39" or "resnet101" (with a stem of three 3x3 convolutions)
    width : channels of the spatial path and of ResNet's stem; Xception-39 begins with an eighth of it

    Convolutions start He-normal; the paper's ResNet starts from ImageNet. Batch-norms and biases do not decay; the
    recipe's tenfold learning rate for what comes after a trained body is for `nn.lr_factors` to give.
    """

    paper = "Yu et al. 2018, arXiv 1808.00897"
    multiple = least = 8
    outputs = (Output(), Output(), Output())  # main, auxiliary at 1/16, auxiliary at 1/8

    def __init__(
        self, in_channels: int = 3, n_classes: int = 19, width: int = 64, body: str = "resnet18", seed: int = 0
    ):
        positive("bisenet", in_channels=in_channels, n_classes=n_classes, width=width)
        one_of("bisenet", "body", body, tuple(HEADS))
        rng = np.random.default_rng(seed)
        if body == "xception39":
            self.body = Xception39(rng, in_channels, max(width // 8, 1))
        elif body == "resnet18":
            self.body = ResNet(rng, in_channels, 18, width)
        else:
            self.body = ResNet(rng, in_channels, 101, width, deep_stem=True)
        _, middle, coarse = self.body.channels[-3:]
        c, (auxiliary, main) = 2 * width, HEADS[body]

        def head(channels: int, units: int) -> nn.Sequential:
            mid = units * width
            return nn.Sequential(conv(rng, channels, mid), nn.Conv2d(rng, mid, n_classes, 1))

        self.spatial = nn.Sequential(
            conv(rng, in_channels, width, 7, stride=2),
            conv(rng, width, width, stride=2),
            conv(rng, width, width, stride=2),
            conv(rng, width, c, 1),
        )
        self.globally = conv(rng, coarse, c, 1)
        self.fuse = FeatureFusion(rng, 2 * c)
        self.refine = [AttentionRefinement(rng, coarse, c), AttentionRefinement(rng, middle, c)]
        self.smooth = [conv(rng, c, c), conv(rng, c, c)]
        self.heads = [head(c, auxiliary), head(c, auxiliary), head(2 * c, main)]
        nn.lr_factors(self, bias_decay=0)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        size = x.shape[1:3]
        spatial = self.spatial(x)  # (N, H / 8, W / 8, 128)
        *_, fine, middle, coarse = self.body(x)  # / 8, / 16, / 32
        context = self.globally(ops.global_avg_pool(coarse))
        context = ops.upsample(context, size=coarse.shape[1:3])  # one pixel, everywhere
        at16 = self.smooth[0](resize(self.refine[0](coarse) + context, middle.shape[1:3]))
        at8 = self.smooth[1](resize(self.refine[1](middle) + at16, fine.shape[1:3]))
        main = resize(self.heads[2](self.fuse(spatial, at8)), size)
        if not self.training:
            return main
        return main, resize(self.heads[0](at16), size), resize(self.heads[1](at8), size)
