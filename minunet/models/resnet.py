"""ResNet without its classifier: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (2015,
arXiv 1512.03385), table 1. The body of most networks of the family.

    x ─ 7x7 /2 ─ pool 3x3 /2 ─ layer1 ─ layer2 /2 ─ layer3 /2 ─ layer4 /2       x + F(x) in every block
         stem 64                256      512         1024        2048          channels at depth 50 and more

A layer that is dilated instead of strided keeps the size of its maps: DeepLab's way to a finer output.
Parameters stand in the order of torchvision's, so that its weights can be taken over by order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat

import numpy as np

from minunet import nn, ops
from minunet.models.base import one_of, positive
from minunet.nn.init import Initialiser, he_normal
from minunet.tensor import Tensor

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # blocks


class BasicBlock(nn.Module):
    """y = relu(x + F(x)), F = 3x3 convolution (strided), 3x3 convolution, each with batch-norm (figure 5, left)."""

    expansion = 1

    def __init__(
        self,
        rng: np.random.Generator,
        c: int,
        width: int,
        stride: int = 1,
        dilation: int = 1,
        caffe_style: bool = False,
        **options,
    ):
        around, last = {"padding": dilation, "dilation": dilation}, options | {"activation": None}
        self.conv1 = nn.ConvBN(rng, c, width, 3, stride=stride, **around, **options)
        self.conv2 = nn.ConvBN(rng, width, width, 3, **around, **last)
        self.downsample = nn.ConvBN(rng, c, width, 1, stride=stride, **last) if stride != 1 or c != width else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu((self.downsample(x) if self.downsample else x) + self.residual(x))

    def residual(self, x: Tensor) -> Tensor:
        """F(x)."""
        return self.conv2(self.conv1(x))


class Bottleneck(BasicBlock):
    """y = relu(x + F(x)), F = 1x1 convolution to `width`, 3x3 (strided), 1x1 to four times it (figure 5, right).

    caffe_style : the first 1x1 convolution has the stride, as in the authors' own networks
    """

    expansion = 4

    def __init__(
        self,
        rng: np.random.Generator,
        c: int,
        width: int,
        stride: int = 1,
        dilation: int = 1,
        caffe_style: bool = False,
        **options,
    ):
        around, last = {"padding": dilation, "dilation": dilation}, options | {"activation": None}
        first, second = (stride, 1) if caffe_style else (1, stride)
        out = self.expansion * width
        self.conv1 = nn.ConvBN(rng, c, width, 1, stride=first, **options)
        self.conv2 = nn.ConvBN(rng, width, width, 3, stride=second, **around, **options)
        self.conv3 = nn.ConvBN(rng, width, out, 1, **last)
        self.downsample = nn.ConvBN(rng, c, out, 1, stride=stride, **last) if stride != 1 or c != out else None

    def residual(self, x: Tensor) -> Tensor:
        """F(x)."""
        return self.conv3(self.conv2(self.conv1(x)))


class ResNet(nn.Module):
    """x (N, H, W, in_channels) -> [stem, layer1, layer2, layer3, layer4], maps of 1/2, 1/4, 1/8, 1/16, 1/32 the size.

    `stem`, `pool`, `layer1` ... `layer4` can be called one by one; `channels` are those of the five maps.

    depth       : 18, 34 (basic blocks), 50, 101, 152 (bottlenecks)
    width       : channels of the stem and of layer1's 3x3 convolutions (paper: 64)
    blocks      : of layer1 ... layer4; the depth's own where None
    deep_stem   : three 3x3 convolutions (width, width, 2 width) instead of one 7x7
    caffe_style : bottlenecks with the stride on their first 1x1 convolution
    ceil_mode   : the stem's pool rounds its output's size up
    strides     : of layer1 ... layer4, taken by their first blocks
    dilations   : of layer1 ... layer4: a number, or one a block, the last for all that follow: (4, 8, 16) is
                  DeepLab v3's multi-grid, (1, 2) is torchvision's
    activation  : inside the blocks and in the stem; after the sums it is ReLU
    eps, momentum, init : of the batch-norms; of the convolutions, which have no bias
    """

    def __init__(
        self,
        rng: np.random.Generator,
        in_channels: int = 3,
        depth: int = 50,
        width: int = 64,
        *,
        blocks: Sequence[int] | None = None,
        deep_stem: bool = False,
        caffe_style: bool = False,
        ceil_mode: bool = False,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int | Sequence[int]] = (1, 1, 1, 1),
        activation: str = "relu",
        eps: float = 1e-5,
        momentum: float = 0.1,
        init: Initialiser = he_normal,
    ):
        one_of("resnet", "depth", depth, tuple(DEPTHS))
        blocks = DEPTHS[depth] if blocks is None else tuple(blocks)
        if not len(blocks) == len(strides) == len(dilations) == 4:
            raise ValueError("resnet: blocks, strides and dilations need one entry for each of the four layers")
        positive("resnet", in_channels=in_channels, width=width, blocks=min(blocks))
        options = {"bias": False, "activation": activation, "eps": eps, "momentum": momentum, "init": init}
        if deep_stem:
            channels = (in_channels, width, width, 2 * width)
            steps = zip(channels, channels[1:], (2, 1, 1))
            self.stem = nn.Sequential(*(nn.ConvBN(rng, i, o, 3, stride=s, padding=1, **options) for i, o, s in steps))
        else:
            channels = (in_channels, width)
            self.stem = nn.Sequential(nn.ConvBN(rng, in_channels, width, 7, stride=2, padding=3, **options))
        self.ceil_mode = bool(ceil_mode)
        block = BasicBlock if depth < 50 else Bottleneck
        self.channels = [channels[-1], *(block.expansion * (width << k) for k in range(4))]

        def layer(k: int) -> nn.Sequential:
            inputs = chain([self.channels[k]], repeat(self.channels[k + 1]))
            steps = zip(range(blocks[k]), inputs, chain([strides[k]], repeat(1)), each_block(dilations[k]))
            return nn.Sequential(*(block(rng, c, width << k, s, d, caffe_style, **options) for _, c, s, d in steps))

        self.layer1, self.layer2, self.layer3, self.layer4 = layer(0), layer(1), layer(2), layer(3)

    def pool(self, x: Tensor) -> Tensor:
        """Between stem and layer1: the maximum over 3x3, every second pixel."""
        return ops.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=self.ceil_mode)

    def layers(self) -> tuple[nn.Sequential, ...]:
        """layer1 ... layer4."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.stem(x)]
        x = self.pool(maps[0])
        for layer in self.layers():
            x = layer(x)
            maps.append(x)
        return maps


def each_block(dilation: int | Sequence[int]) -> chain[int]:
    """2 -> 2, 2, 2 ...; (4, 8, 16) -> 4, 8, 16, 16 ..."""
    first = (dilation,) if isinstance(dilation, int) else tuple(dilation)
    return chain(first, repeat(first[-1]))
