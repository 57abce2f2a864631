"""RED-Net: Mao, Shen, Yang, "Image Restoration Using Very Deep Convolutional Encoder-Decoder Networks with Symmetric
Skip Connections" (2016, arXiv 1603.09056), figure 1. It learns what is wrong with an image, and adds the opposite.

    x ─ c1 ─ c2 ─ c3 ─ c4 ... c14 ─ c15        3x3 convolutions of 64 channels, all as large as the image
    │         │         │        │      │
    + ─ d15 ─ d14 ...── + d11 ── + d1 ──┘      3x3 transposed convolutions; every second one gets the mirrored map
    y
"""

from __future__ import annotations

import numpy as np

from minunet import nn, ops
from minunet.models.base import Network, one_of, positive
from minunet.tensor import Tensor


class RedNetRestoration(Network):
    """x (N, H, W, in_channels) -> restored image of the same shape, to be trained with `ops.mse_loss`.

    n_classes : as many as in_channels, since the image itself is added at the end
    width  : channels of all layers but the last (paper: 64)
    depth  : layers, half of them convolutions, half transposed (paper: 10, 20, 30)
    stride : 1, or 2 in the first convolution and the last transposed one, which makes the rest four times cheaper

    Ours against the common PyTorch port: no ReLU after the image is added, so that an error can point either way.
    """

    paper = "Mao, Shen, Yang 2016, arXiv 1603.09056"

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 1,
        width: int = 64,
        depth: int = 30,
        stride: int = 1,
        seed: int = 0,
    ):
        positive("rednet_restoration", in_channels=in_channels, width=width)
        one_of("rednet_restoration", "stride", stride, (1, 2))
        if n_classes != in_channels:
            raise ValueError(
                f"rednet_restoration: n_classes is {n_classes}; it must be in_channels, {in_channels}: x is added"
            )
        if depth < 2 or depth % 2:
            raise ValueError(f"rednet_restoration: depth is {depth}; it must be even, and at least 2")
        rng, half = np.random.default_rng(seed), depth // 2
        self.multiple = self.least = stride
        ends = {"stride": stride, "padding": 1}
        same = {"stride": 1, "padding": 1, "activation": "relu"}
        self.conv = [nn.Conv2d(rng, in_channels, width, 3, activation="relu", **ends)]
        self.conv += [nn.Conv2d(rng, width, width, 3, **same) for _ in range(half - 1)]
        self.deconv = [nn.ConvTranspose2d(rng, width, width, 3, **same) for _ in range(half - 1)]
        self.deconv.append(nn.ConvTranspose2d(rng, width, in_channels, 3, output_padding=stride - 1, **ends))

    def forward(self, x: Tensor) -> Tensor:
        image, maps = x, []
        for conv in self.conv:
            x = conv(x)
            maps.append(x)  # c1, c2 ... c15
        for k, deconv in enumerate(self.deconv, start=1):
            x = deconv(x)
            mirrored = len(maps) - k  # d1 meets c14, d3 c12 ... d13 c2
            if mirrored >= 2 and mirrored % 2 == 0:
                x = ops.relu(ops.add(x, maps[mirrored - 1]))
        return ops.add(x, image)
