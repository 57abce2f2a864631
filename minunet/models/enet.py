"""ENet: Paszke, Chaurasia, Kim, Culurciello, "ENet: A Deep Neural Network Architecture for Real-Time Semantic
Segmentation" (2016, arXiv 1606.02147), table 1, with the layers of the authors' code (e-lab/ENet-training).

    x ─ initial ─ 1.0 down ─ 1.1 ┄ 1.4 ─ 2.0 down ─ 2.1 ┄ 2.8 ─ 3.1 ┄ 3.8 ─ 4.0 up ─ 4.1 4.2 ─ 5.0 up ─ 5.1 ─ full
                       │                        └ positions of the maxima ───┘                  │
                       └ positions of the maxima ───────────────────────────────────────────────┘
    /1     /2         /4                 /8                                    /4                /2           /1
    3      16         64                 128                                   64                16           classes
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minunet import nn, ops
from minunet.models.base import Network, positive
from minunet.tensor import Tensor

START = {"eps": 1e-3, "init": nn.init.torch_default}
DILATED = [{}, {"dilation": 2}, {"long": 5}, {"dilation": 4}, {}, {"dilation": 8}, {"long": 5}, {"dilation": 16}]


def unit(
    rng: np.random.Generator, c: int, o: int, kernel: Any, prelu: bool, layer: Any = nn.ConvBN, **options: Any
) -> nn.Module:
    """Convolution, batch-norm, and PReLU (encoder) or ReLU (decoder)."""
    if not prelu:
        return layer(rng, c, o, kernel, **START, **options)
    return nn.Sequential(layer(rng, c, o, kernel, activation=None, **START, **options), nn.PReLU(o))


class Bottleneck(nn.Module):
    """y = act(shortcut(x) + F(x)), F = 1x1 convolution to o / 4 channels, 3x3, 1x1 to o (figure 2b).

    dilation : of the 3x3 convolution
    long     : 1 x long and long x 1 convolutions instead of the 3x3 one, if not 0
    dropout  : in the encoder, of whole channels of F(x); None in the decoder, whose activations are ReLU
    """

    def __init__(
        self,
        rng: np.random.Generator,
        c: int,
        o: int,
        dilation: int = 1,
        long: int = 0,
        dropout: nn.DropoutChannels | None = None,
    ):
        prelu = dropout is not None
        self.reduce = self.first(rng, c, o // 4, prelu)
        self.conv = self.middle(rng, o // 4, prelu, dilation, long)
        self.expand = nn.ConvBN(rng, o // 4, o, 1, bias=False, activation=None, **START)
        self.drop = dropout
        self.slope = nn.PReLU(o) if prelu else None

    def first(self, rng: np.random.Generator, c: int, mid: int, prelu: bool) -> nn.Module:
        return unit(rng, c, mid, 1, prelu, bias=False)

    def middle(self, rng: np.random.Generator, mid: int, prelu: bool, dilation: int, long: int) -> nn.Module:
        if long:
            flat = nn.Conv2d(rng, mid, mid, (1, long), padding="same", bias=False, init=START["init"])
            return nn.Sequential(flat, unit(rng, mid, mid, (long, 1), prelu, bias=False))
        return unit(rng, mid, mid, 3, prelu, padding=dilation, dilation=dilation)

    def join(self, x: Tensor, shortcut: Tensor) -> Tensor:
        x = self.expand(self.conv(self.reduce(x)))
        if self.drop is None:
            return ops.relu(shortcut + x)
        return self.slope(shortcut + self.drop(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, x)


class Down(Bottleneck):
    """The first convolution is 2x2 with stride 2; the shortcut is pooled and gets channels of zeros.

    (N, H, W, c) -> (N, H / 2, W / 2, o) and the positions of the maxima, int32 (N, H / 2, W / 2, c)
    """

    def first(self, rng: np.random.Generator, c: int, mid: int, prelu: bool) -> nn.Module:
        return unit(rng, c, mid, 2, prelu, stride=2, padding=0, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        pooled, positions = ops.max_pool2d(x, 2, return_indices=True)
        return self.join(x, ops.pad_channels(pooled, self.expand.conv.w.shape[0])), positions


class Up(Bottleneck):
    """The middle convolution is transposed, with stride 2; the shortcut, 1x1 to o channels, is unpooled to where the
    maxima were: (N, H, W, c) and positions (N, H, W, o) -> (N, 2 H, 2 W, o).
    """

    def __init__(self, rng: np.random.Generator, c: int, o: int):
        super().__init__(rng, c, o)
        self.other = nn.ConvBN(rng, c, o, 1, bias=False, activation=None, **START)

    def middle(self, rng: np.random.Generator, mid: int, prelu: bool, dilation: int, long: int) -> nn.Module:
        return unit(rng, mid, mid, 3, prelu, nn.UpBN, stride=2, padding=1, output_padding=1)

    def forward(self, x: Tensor, positions: Any) -> Tensor:
        h, w = x.shape[1:3]
        return self.join(x, ops.max_unpool2d(self.other(x), positions, (2 * h, 2 * w)))


class ENet(Network):
    """x (N, H, W, in_channels) -> logits (N, H, W, n_classes); H and W multiples of 8.

    width   : channels after the initial block; `widths`: those of the three levels, if not 1, 4 and 8 times as many
    dropout : rates in stage 1, and in stages 2 and 3

    Of the authors' code, where it and the paper differ: 1x5 before 5x1 with nothing between them, ReLU and no dropout
    in the decoder, inner channels a quarter of the outputs throughout. Its 5x1 convolutions have a bias, which the
    batch-norm right after them takes out again; here they have none.
    """

    paper = "Paszke, Chaurasia, Kim, Culurciello 2016, arXiv 1606.02147"
    multiple = least = 8

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 19,
        width: int = 16,
        widths: Sequence[int] | None = None,
        dropout: Sequence[float] = (0.01, 0.1),
        seed: int = 0,
    ):
        widths = (width, 4 * width, 8 * width) if widths is None else tuple(widths)
        if len(widths) != 3 or len(dropout) != 2:
            raise ValueError(f"enet: needs three widths and two dropout rates; got {widths} and {tuple(dropout)}")
        (a, b, c), (low, high) = widths, dropout
        positive("enet", in_channels=in_channels, n_classes=n_classes)
        if min(a, b, c) < 4 or not in_channels < a <= b <= c:
            raise ValueError(
                f"enet: widths {(a, b, c)} must not decrease, be at least 4, and more than the {in_channels} channels"
                " of the image, which the initial block passes on"
            )
        rng = np.random.default_rng(seed)
        masks = iter(range(seed, seed + 32))  # a seed for each dropout layer

        def drop(rate: float) -> nn.DropoutChannels:
            return nn.DropoutChannels(rate, next(masks))

        self.initial = nn.Conv2d(rng, in_channels, a - in_channels, 3, stride=2, padding=1, init=START["init"])
        self.initial_bn = nn.BatchNorm2d(a, eps=START["eps"])
        self.initial_slope = nn.PReLU(a)
        self.down1 = Down(rng, a, b, dropout=drop(low))
        self.stage1 = nn.Sequential(*(Bottleneck(rng, b, b, dropout=drop(low)) for _ in range(4)))
        self.down2 = Down(rng, b, c, dropout=drop(high))
        self.stage2 = nn.Sequential(*(Bottleneck(rng, c, c, dropout=drop(high), **kind) for kind in DILATED))
        self.stage3 = nn.Sequential(*(Bottleneck(rng, c, c, dropout=drop(high), **kind) for kind in DILATED))
        self.up4 = Up(rng, c, b)
        self.stage4 = nn.Sequential(Bottleneck(rng, b, b), Bottleneck(rng, b, b))
        self.up5 = Up(rng, b, a)
        self.stage5 = Bottleneck(rng, a, a)
        self.full = nn.ConvTranspose2d(rng, a, n_classes, 2, stride=2, init=START["init"])

    def forward(self, x: Tensor) -> Tensor:
        x = ops.concat([self.initial(x), ops.max_pool2d(x, 2)])  # (N, H / 2, W / 2, 16)
        x = self.initial_slope(self.initial_bn(x))
        x, first = self.down1(x)  # / 4
        x, second = self.down2(self.stage1(x))  # / 8
        x = self.stage3(self.stage2(x))
        x = self.stage4(self.up4(x, second))
        return self.full(self.stage5(self.up5(x, first)))
