"""Xception: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (2016, arXiv 1610.02357), in the
forms that segmentation networks stand on.

    separable convolution = 3x3 within each channel (depthwise), then 1x1 across channels, batch-norm
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minunet import nn, ops
from minunet.models.base import one_of, positive
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


class SeparableBN(nn.Module):
    """3x3 depthwise and 1x1 convolution with a batch-norm after each; ReLU before them, or `inside`: after each."""

    def __init__(
        self,
        rng: np.random.Generator,
        c: int,
        o: int,
        stride: int = 1,
        dilation: int = 1,
        inside: bool = False,
        eps: float = 1e-3,
    ):
        options = {"bias": False, "activation": "relu" if inside else None, "eps": eps}
        window = {"stride": stride, "padding": dilation, "dilation": dilation, "groups": c}
        self.inside = inside
        self.depthwise = nn.ConvBN(rng, c, c, 3, **window, **options)
        self.pointwise = nn.ConvBN(rng, c, o, 1, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x if self.inside else ops.relu(x)))


class Block65(nn.Module):
    """y = shortcut(x) + F(x), F = three separable convolutions, the last of which has the stride."""

    def __init__(self, rng: np.random.Generator, c: int, channels: Sequence[int], stride: int = 1, dilation: int = 1):
        steps = zip((c, *channels), channels, (1, 1, stride))
        self.residual = nn.Sequential(*(SeparableBN(rng, i, o, s, dilation) for i, o, s in steps))
        changes = stride > 1 or c != channels[-1]
        options = {"stride": stride, "bias": False, "activation": None, "eps": 1e-3}
        self.shortcut = nn.ConvBN(rng, c, channels[-1], 1, **options) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        return self.end(x, self.begin(x))

    def begin(self, x: Tensor) -> Tensor:
        """After two of the three."""
        return self.residual[1](self.residual[0](x))

    def end(self, x: Tensor, y: Tensor) -> Tensor:
        """The third, and the sum."""
        return (self.shortcut(x) if self.shortcut else x) + self.residual[2](y)


class Xception65(nn.Module):
    """x (N, H, W, in_channels) -> [stem, low, high], maps of 1/2, 1/4 and 1/`output_stride` the size: the body of
    DeepLab v3+ (arXiv 1802.02611, figure 4), all poolings made strided convolutions. `low` is taken inside the second
    block, at its full resolution and before ReLU. `channels` are those of the maps: 64, 256, 2048.

    width         : channels of the stem's second convolution; all others in proportion
    middle        : blocks between entry and exit
    output_stride : 16 or 8; where it is reached, strides become dilations
    """

    def __init__(
        self,
        rng: np.random.Generator,
        in_channels: int = 3,
        width: int = 64,
        middle: int = 16,
        output_stride: int = 16,
    ):
        positive("xception65", in_channels=in_channels, width=width // 2, middle=middle)
        one_of("xception65", "output_stride", output_stride, (8, 16))
        fine = output_stride == 8
        c128, c256, c728 = 2 * width, 4 * width, 91 * width // 8
        c1024, c1536, c2048 = 16 * width, 24 * width, 32 * width
        self.channels = [width, c256, c2048]
        options = {"padding": 1, "bias": False, "eps": 1e-3}
        self.stem = nn.Sequential(
            nn.ConvBN(rng, in_channels, width // 2, 3, stride=2, **options),
            nn.ConvBN(rng, width // 2, width, 3, **options),
        )
        self.entry = [
            Block65(rng, width, 3 * [c128], 2),
            Block65(rng, c128, 3 * [c256], 2),
            Block65(rng, c256, 3 * [c728], 1 if fine else 2),
        ]
        rate = 2 if fine else 1  # a block whose stride is dropped keeps its rate; those behind it double theirs
        self.middle = nn.Sequential(*(Block65(rng, c728, 3 * [c728], 1, rate) for _ in range(middle)))
        self.exit = Block65(rng, c728, (c728, c1024, c1024), 1, rate)
        last = zip((c1024, c1536, c1536), (c1536, c1536, c2048))
        self.last = nn.Sequential(*(SeparableBN(rng, c, o, 1, 2 * rate, inside=True) for c, o in last))

    def forward(self, x: Tensor) -> list[Tensor]:
        stem = self.stem(x)
        first, second, third = self.entry
        x = first(stem)
        low = second.begin(x)
        x = third(second.end(x, low))
        return [stem, low, self.last(self.exit(self.middle(x)))]
