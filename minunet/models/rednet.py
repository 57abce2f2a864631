"""RedNet: Jiang, Zheng, Luo, Zhang, "RedNet: Residual Encoder-Decoder Network for indoor RGB-D Semantic Segmentation"
(2018, arXiv 1806.01054), figure 2. Colours and depth have a ResNet-50 each; every layer's sum goes on as the colours'.

    colours ─ stem ─ + ─ pool ─ layer1 ─ + ─ layer2 ─ + ─ layer3 ─ + ─ layer4 ─ + ─┐    480 x 640 → 240 ... 15 x 20
    depth ─── stem ──┴── pool ─ layer1 ──┴── layer2 ──┴── layer3 ──┴── layer4 ──┘  │
                     │                   │            │            │               │    a: 1x1 "agents"
                     a                   a            a            a               a
    y ─ up ─ final ─ + ─── deconv4 ───── + ─ deconv3 ─ + ─ deconv2 ─ + ─ deconv1 ──┘    a side head before every +
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from minunet import nn, ops
from minunet.models.base import Network, Output, positive
from minunet.models.resnet import BasicBlock, ResNet
from minunet.ops.shared import as_tensor, like
from minunet.tensor import Tensor

SKIPS = (1, 1, 2, 4, 8)  # channels of the agents, of stem ... layer4, in units of the width
UNITS = (6, 4, 3, 3, 3)  # residual units of deconv1 ... deconv4 and of the final convolution


def he_fan_out(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int | None = None) -> Any:
    """N(0, sqrt(2 / (KH KW O))): the authors count what a weight reaches, not what it comes from."""
    return nn.init.he_normal(rng, shape, prod(shape[:3]))


def as_torch(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int | None = None) -> Any:
    """PyTorch's default for a transposed convolution, whose fan-in it takes for KH KW C_out."""
    return nn.init.torch_default(rng, shape)


class UpBlock(nn.Module):
    """y = relu(up(x) + F(x)), twice the size: F = 3x3 convolution, 3x3 transposed convolution of stride 2; up is a
    transposed convolution of 2x2. Each with batch-norm; c -> o channels.
    """

    def __init__(self, rng: np.random.Generator, c: int, o: int):
        last = {"bias": False, "activation": None, "init": as_torch}
        self.conv1 = nn.ConvBN(rng, c, c, 3, bias=False, init=he_fan_out)
        self.conv2 = nn.UpBN(rng, c, o, 3, stride=2, padding=1, output_padding=1, **last)
        self.up = nn.UpBN(rng, c, o, 2, stride=2, **last)

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(self.up(x) + self.conv2(self.conv1(x)))


class RedNet(Network):
    """x (N, H, W, in_channels + 1), depth last -> logits (N, H, W, n_classes); H and W multiples of 32.

    Also `model(colours, depth)`. An image without depth, (N, H, W, in_channels), has the mean of its colours instead.

    width  : channels of the stems (paper: 64)
    depth  : of the two ResNets (paper: 50); `blocks`: of each of their layers, if not that depth's own
    units  : residual units of the four stages of the decoder, the last of which doubles the size, and of the final one

    In training five maps, of full, 1/2, 1/4, 1/8 and 1/16 size, each with its loss ("pyramid supervision").
    Ours against the original: both encoders start from random weights; the authors' from those of ImageNet, the depth
    stem from the mean of the colours' over its inputs.
    """

    paper = "Jiang, Zheng, Luo, Zhang 2018, arXiv 1806.01054"
    multiple = least = 32
    outputs = (Output(),) * 5

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 37,
        width: int = 64,
        depth: int = 50,
        blocks: Sequence[int] | None = None,
        units: Sequence[int] = UNITS,
        seed: int = 0,
    ):
        positive("rednet", in_channels=in_channels, n_classes=n_classes, width=width, units=min(units, default=0))
        if len(units) != len(UNITS):
            raise ValueError(f"rednet: units has {len(units)} numbers; it needs {len(UNITS)}")
        rng = np.random.default_rng(seed)
        self.in_channels = in_channels
        self.colours = ResNet(rng, in_channels, depth, width, blocks=blocks, init=he_fan_out)
        self.depth = ResNet(rng, 1, depth, width, blocks=blocks, init=he_fan_out)
        skips = [width * unit for unit in SKIPS]  # 64, 64, 128, 256, 512
        self.deconv = [
            nn.Sequential(*self.same(rng, c, n - 1), UpBlock(rng, c, o))
            for n, c, o in zip(units, skips[:0:-1], skips[-2::-1])
        ]
        plain = {"bias": False, "init": he_fan_out}
        self.agent = [nn.ConvBN(rng, c, o, 1, **plain) for c, o in zip(self.colours.channels, skips)]
        self.final_conv = nn.Sequential(*self.same(rng, width, units[4]))
        self.final_deconv = nn.ConvTranspose2d(rng, width, n_classes, 2, stride=2, init=as_torch)
        self.side = [nn.Conv2d(rng, c, n_classes, 1, init=he_fan_out) for c in skips[-2::-1]]

    @staticmethod
    def same(rng: np.random.Generator, c: int, units: int) -> list[BasicBlock]:
        """Residual units that change nothing about the size."""
        return [BasicBlock(rng, c, c, bias=False, init=he_fan_out) for _ in range(units)]

    @property
    def channels(self) -> tuple[int, ...]:
        return self.in_channels + 1, self.in_channels

    def forward(self, x: Tensor, depth: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        x, d = self.streams(x, depth)
        x, d = self.colours.stem(x), self.depth.stem(d)
        fused = [x + d]
        x, d = self.colours.pool(fused[0]), self.depth.pool(d)
        for colours, depths in zip(self.colours.layers(), self.depth.layers()):
            d = depths(d)
            x = colours(x) + d
            fused.append(x)
        x, side = self.agent[4](x), []
        for k, deconv in enumerate(self.deconv):
            x = deconv(x)
            if self.training:
                side.append(self.side[k](x))
            x = x + self.agent[3 - k](fused[3 - k])
        y = self.final_deconv(self.final_conv(x))
        return (y, *reversed(side)) if self.training else y

    def streams(self, x: Tensor, depth: Tensor | None) -> tuple[Tensor, Tensor]:
        """Colours (N, H, W, in_channels) and depth (N, H, W, 1)."""
        x, c = as_tensor(x), self.in_channels
        if depth is not None:
            return x, as_tensor(depth)
        if x.shape[3] == c + 1:
            return tuple(ops.split(x, [c, 1]))
        if x.shape[3] != c:
            raise ValueError(f"rednet: {x.shape[3]} channels; it takes {c} colours and depth, or the colours alone")
        return x, ops.conv2d(x, like(np.full((1, 1, 1, c), 1 / c, x.dtype), x))
