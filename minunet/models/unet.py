"""U-Net: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015,
arXiv 1505.04597), figure 1.

    x ─ block ─────────────────────── crop ──────────────── concat ─ block ─ head       572 → 570, 568 ... 390, 388
            └ pool ─ block ────────── crop ─── concat ─ block ─ up ┘                    284 → 282, 280 ... 198, 196
                         └ pool ─ block ... block ─ up ┘                                140 → 138, 136 ... 102, 100
"""

from __future__ import annotations

import numpy as np

from minunet import nn, ops
from minunet.models.base import Network, one_of, positive
from minunet.tensor import Tensor


class Block(nn.Module):
    """Two 3x3 convolutions, each with ReLU; the first sees [x, centre crop of skip], where there is a skip."""

    def __init__(self, rng: np.random.Generator, c: int, o: int, padding: str):
        self.conv1 = nn.Conv2d(rng, c, o, 3, padding=padding, activation="relu")
        self.conv2 = nn.Conv2d(rng, o, o, 3, padding=padding, activation="relu")

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        return self.conv2(self.conv1(x, skip))


class UNet(Network):
    """x (N, H, W, in_channels) -> logits (N, OH, OW, n_classes).

    width   : channels of the first level; each level below doubles them (paper: 64)
    depth   : poolings (paper: 4)
    padding : "valid" (paper): the output is smaller, 572 -> 388, and exact; "same": output as large as the input
    dropout : rate at the end of the contracting path, after the last two levels (paper: there, rate not stated)
    form    : "paper"; "released": the authors' file phseg_v5, where ReLU follows every up-convolution, and the last of
              them keeps its 128 channels: 128 + 64 enter the last block

    As in the released file, dropout stands before the skip leaves, in both forms.
    """

    paper = "Ronneberger, Fischer, Brox 2015, arXiv 1505.04597"

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 2,
        width: int = 64,
        depth: int = 4,
        padding: str = "valid",
        dropout: float = 0.5,
        form: str = "paper",
        seed: int = 0,
    ):
        one_of("unet", "padding", padding, ("valid", "same"))
        one_of("unet", "form", form, ("paper", "released"))
        positive("unet", in_channels=in_channels, n_classes=n_classes, width=width, depth=depth)
        rng = np.random.default_rng(seed)
        widths = [width << level for level in range(depth + 1)]  # 64, 128, 256, 512, 1024
        inputs = [in_channels, *widths[:-1]]
        self.depth, self.loss_per_block = depth, 4 if padding == "valid" else 0  # pixels that a block takes off
        self.down = [Block(rng, c, o, padding) for c, o in zip(inputs, widths)]
        self.drop = [nn.Dropout(dropout, seed + level) for level in (depth - 1, depth)]
        skips, act = widths[-2::-1], "relu" if form == "released" else None  # channels of the skips: 512, 256, 128, 64
        ups = [*skips[:-1], skips[-1] * (2 if form == "released" else 1)]  # and of what the up-convolutions give
        self.up = [nn.ConvTranspose2d(rng, 2 * o, u, 2, stride=2, activation=act) for o, u in zip(skips, ups)]
        self.merge = [Block(rng, u + o, o, padding) for o, u in zip(skips, ups)]
        self.head = nn.Conv2d(rng, width, n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(x)
            if level >= self.depth - 1:
                x = self.drop[level - self.depth + 1](x)
            if level < self.depth:
                skips.append(x)
                x = ops.max_pool2d(x, 2)
        for up, block in zip(self.up, self.merge):
            x = block(up(x), skips.pop())
        return self.head(x)

    def trace(self, size: int) -> int | None:
        for _ in range(self.depth):
            size -= self.loss_per_block
            if size < 2 or size % 2:  # the pool would drop a row, and the crop would no longer be centred
                return None
            size //= 2
        for _ in range(self.depth):
            size = 2 * (size - self.loss_per_block)
        size -= self.loss_per_block
        return size if size >= 1 else None
