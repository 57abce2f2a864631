"""FusionNet: Quan, Hildebrand, Jeong, "FusionNet: A deep fully residual convolutional neural network for image
segmentation in connectomics" (2016, arXiv 1612.05360), figure 1.

    x ─ block ───────────────────── fuse ─ block ─ out      640 x 640, 64 channels
          └ halve ─ block ── fuse ─ block ─ up ┘            320 x 320, 128; then 160 and 80
                      └ halve ... up ┘                      40 x 40, 1024: the bridge
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from minunet import nn, ops
from minunet.models.base import Network, one_of, positive
from minunet.tensor import Tensor


class LeakyConvBN(nn.ConvBN):
    """Convolution, batch-norm, leaky ReLU of slope 0.2."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.leaky_relu(super().forward(x), 0.2)


class NormLast(nn.ConvBN):
    """Convolution, ReLU, batch-norm: the article's order, which no folding can undo."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(ops.relu(self.conv(x)))


class NormLastUp(nn.UpBN):
    """Transposed convolution, ReLU, batch-norm."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(ops.relu(self.conv(x)))


class Form(NamedTuple):
    """What differs between the definitions of FusionNet."""

    down: Callable[..., nn.ConvBN]  # the convolutions on the way down and in the bridge
    up: Callable[..., nn.ConvBN]  # and on the way up
    third: Callable[..., nn.ConvBN]  # the last of the three beside an identity
    double: Callable[..., nn.UpBN]  # the transposed convolutions
    halve: bool = False  # by a convolution of stride 2; otherwise by pooling
    fuse: float = 0.5  # a long skip: fuse (a + b)
    tanh: bool = False  # at the end


_linear = partial(nn.ConvBN, activation=None)
FORMS = {
    "seed": Form(nn.ConvBN, partial(nn.ConvBN, activation="elu"), _linear, partial(nn.UpBN, activation="elu"), True),
    "article": Form(*[partial(NormLast, activation=None)] * 3, partial(NormLastUp, activation=None), fuse=1.0),
    "port": Form(partial(LeakyConvBN, activation=None), nn.ConvBN, _linear, nn.UpBN, tanh=True),
}


class Block(nn.Module):
    """y = conv(z + three(z)), z = conv(x): FusionNet's residual unit. c -> o channels."""

    def __init__(self, rng: np.random.Generator, c: int, o: int, unit: Callable[..., nn.ConvBN], third: Callable):
        self.conv1 = unit(rng, c, o)
        self.conv2 = nn.Sequential(unit(rng, o, o), unit(rng, o, o), third(rng, o, o))
        self.conv3 = unit(rng, o, o)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv3(ops.add(x, self.conv2(x)))


class Down(nn.Module):
    """A block, whose output is the skip, and its halving."""

    def __init__(self, rng: np.random.Generator, c: int, o: int, form: Form):
        self.block = Block(rng, c, o, form.down, form.third)
        self.pool = form.down(rng, o, o, stride=2, padding=1) if form.halve else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        skip = self.block(x)
        return skip, self.pool(skip) if self.pool else ops.max_pool2d(skip, 2)


class Up(nn.Module):
    """Twice the size, half the channels; fused with the skip; a block."""

    def __init__(self, rng: np.random.Generator, c: int, o: int, form: Form):
        self.up = form.double(rng, c, o, 3, stride=2, padding=1, output_padding=1)
        self.block = Block(rng, o, o, form.up, form.third)
        self.fuse = form.fuse

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.block(ops.add(self.up(x), skip, self.fuse, self.fuse))


class FusionNet(Network):
    """x (N, H, W, in_channels) -> logits (N, H, W, n_classes); H and W multiples of 16 (of 2^depth).

    width : channels of the first level; each level below doubles them (article: 64)
    depth : halvings (article: 4)
    form  : "seed"     halves by convolutions of stride 2, ELU on the way up, long skips (a + b) / 2
            "article"  halves by pooling, batch-norm after ReLU everywhere, long skips a + b
            "port"     that of the common PyTorch port: pooling, leaky ReLU 0.2 on the way down, (a + b) / 2, and tanh
                       at the end: its outputs are an image in (-1, 1), not logits

    Ours against the originals: He-normal weights, where "seed" leaves PyTorch's default and "port" draws N(0, 0.02).
    The article does not say how it doubles the size: 3x3, stride 2, as the others do.
    """

    paper = "Quan, Hildebrand, Jeong 2016, arXiv 1612.05360"

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 12,
        width: int = 64,
        depth: int = 4,
        form: str = "seed",
        seed: int = 0,
    ):
        positive("fusionnet", in_channels=in_channels, n_classes=n_classes, width=width, depth=depth)
        one_of("fusionnet", "form", form, tuple(FORMS))
        how, rng = FORMS[form], np.random.default_rng(seed)
        widths = [width << level for level in range(depth + 1)]  # 64, 128, 256, 512, 1024
        self.multiple = self.least = 2**depth
        self.down = [Down(rng, c, o, how) for c, o in zip((in_channels, *widths), widths[:-1])]
        self.bridge = Block(rng, widths[-2], widths[-1], how.down, how.third)
        self.up = [Up(rng, 2 * o, o, how) for o in reversed(widths[:-1])]
        self.out = nn.Conv2d(rng, width, n_classes, 3, padding=1)
        self.tanh = how.tanh

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.down:
            skip, x = down(x)
            skips.append(skip)
        x = self.bridge(x)
        for up in self.up:
            x = up(x, skips.pop())
        x = self.out(x)
        return ops.tanh(x) if self.tanh else x
