"""Xception: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (2016, arXiv 1610.02357), in the
forms that segmentation networks stand on.

    separable convolution = 3x3 within each channel (depthwise), then 1x1 across channels, batch-norm
"""

from __future__ import annotations

import numpy as np

from minunet import nn, ops
from minunet.models.base import positive
from minunet.tensor import Tensor


class Separable(nn.Module):
    """3x3 depthwise convolution, 1x1 convolution, batch-norm and `activation`; nothing between the two."""

    def __init__(self, rng: np.random.Generator, c: int, o: int, stride: int = 1, activation: str | None = "relu"):
        self.depthwise = nn.Conv2d(rng, c, c, 3, stride=stride, padding=1, groups=c, bias=False)
        self.pointwise = nn.ConvBN(rng, c, o, 1, bias=False, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class Block39(nn.Module):
    """y = relu(shortcut(x) + F(x)), F = three separable convolutions, c -> mid -> mid -> 4 mid. A block with a stride
    changes the channels too, so its shortcut is a separable convolution.
    """

    def __init__(self, rng: np.random.Generator, c: int, mid: int, stride: int):
        self.shortcut = Separable(rng, c, 4 * mid, stride, None) if stride > 1 else None
        self.residual = nn.Sequential(
            Separable(rng, c, mid, stride), Separable(rng, mid, mid), Separable(rng, mid, 4 * mid, 1, None)
        )

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu((self.shortcut(x) if self.shortcut else x) + self.residual(x))


class Xception39(nn.Module):
    """x (N, H, W, in_channels) -> [stem, layer1, layer2, layer3], maps of 1/2, 1/8, 1/16, 1/32 the size: the small body
    of BiSeNet (arXiv 1808.00897), with 4, 8 and 4 blocks. `channels` are those of the maps: 8, 64, 128, 256.

    width : channels of the stem
    """

    def __init__(self, rng: np.random.Generator, in_channels: int = 3, width: int = 8):
        positive("xception39", in_channels=in_channels, width=width)
        mids = [2 * width, 4 * width, 8 * width]
        self.channels = [width, *(4 * mid for mid in mids)]
        self.stem = nn.ConvBN(rng, in_channels, width, 3, stride=2, padding=1, bias=False)

        def layer(k: int, blocks: int) -> nn.Sequential:
            first = Block39(rng, self.channels[k], mids[k], 2)
            return nn.Sequential(first, *(Block39(rng, 4 * mids[k], mids[k], 1) for _ in range(blocks - 1)))

        self.layer1, self.layer2, self.layer3 = layer(0, 4), layer(1, 8), layer(2, 4)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.stem(x)]
        x = ops.max_pool2d(maps[0], 3, stride=2, padding=1)
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
            maps.append(x)
        return maps
