"""FANet: Hu, Perazzi, Heilbron, Wang, Lin, Saenko, Sclaroff, "Real-time Semantic Segmentation with Fast Attention"
(2020, arXiv 2007.03815), with the layers of the authors' training code (feinanshan/FANet).

    x ─ stem ─ layer1 /8 ──── FA ─ + ─ smooth ─────────────────────────── concat ─ head ─ up x8
                  layer2 /16 ─ FA ─ + ─ up ┘                                │
                     layer3 /32 ─ FA ─ + ─ up ┘ └ smooth ─ up x4 ───────────┘
                        layer4 /64 ─ FA ─ up ┘                                     FA = fast attention
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from minunet import nn, ops
from minunet.models.base import Network, Output, one_of, positive
from minunet.models.resnet import ResNet
from minunet.tensor import Tensor

BODIES = {"resnet18": 18, "resnet34": 34}


def linear_normal(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int | None = None) -> Any:
    """N(0, 1 / sqrt(fan_in)): He's, for a layer without a rectifier."""
    return nn.init.he_normal(rng, shape, 2 * prod(shape[1:]))


def conv(
    rng: np.random.Generator, c: int, o: int, kernel: int = 1, activation: str | None = "leaky_relu", **options
) -> nn.ConvBN:
    """Convolution without a bias, batch-norm, LeakyReLU(0.01)."""
    return nn.ConvBN(rng, c, o, kernel, bias=False, activation=activation, init=linear_normal, **options)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return ops.upsample(x, size=size, mode="bilinear", align_corners=True)


class FastAttention(nn.Module):
    """y = x + conv(q (k^T v)): attention without softmax, so that its products can be taken right to left, in
    H W times the keys' length times c instead of (H W)^2 c operations. q, k: of length 1 at every pixel.

    (N, H, W, c) and the level below, (N, H', W', c) or None -> the sum of y and that level, resized
    `up` halves the channels for the level above, `smooth` makes o of them for a head.
    """

    def __init__(self, rng: np.random.Generator, c: int, keys: int, o: int):
        self.query = conv(rng, c, keys, activation=None)
        self.key = conv(rng, c, keys, activation=None)
        self.value = conv(rng, c, c)
        self.lateral = conv(rng, c, c)
        self.up = conv(rng, c, c // 2, padding=1)  # the authors' padding of a 1x1 convolution: one pixel all around
        self.smooth = conv(rng, c, o, 3)

    def forward(self, x: Tensor, below: Tensor | None) -> Tensor:
        n, h, w, c = x.shape

        def rows(a: Tensor) -> Tensor:
            return ops.reshape(a, (n, h * w, a.shape[3]))

        q, k = (rows(ops.l2_normalize(f(x))) for f in (self.query, self.key))  # (N, HW, 32)
        summary = ops.matmul(k, rows(self.value(x)), transpose_a=True)  # (N, 32, c)
        y = ops.reshape(ops.matmul(q, summary), (n, h, w, c))
        y = self.lateral(y) + x
        return y if below is None else resize(below, (h, w)) + y


class FANet(Network):
    """x (N, H, W, in_channels) -> logits (N, H, W, n_classes); any H and W.

    In training also the logits of two auxiliary heads, at 1/64 and at 1/32, with half the main one's weight in the
    loss.

    body  : "resnet18" or "resnet34", with stride 2 in layer1 as well and LeakyReLU after batch-norms
    width : channels of the body's stem; keys have half of it

    As in the authors' code, two layers are there that nothing reads (`unused`). Convolutions after the body start as
    N(0, 1 / sqrt(fan_in)); the body is He-normal, the authors' starts from ImageNet. Batch-norms do not decay.
    """

    paper = "Hu et al. 2020, arXiv 2007.03815"
    outputs = (Output(), Output(0.5), Output(0.5))  # main, auxiliary at 1/64, auxiliary at 1/32
    unused = ("attention.2.smooth.", "attention.3.up.")

    def __init__(
        self, in_channels: int = 3, n_classes: int = 19, width: int = 64, body: str = "resnet18", seed: int = 0
    ):
        positive("fanet", in_channels=in_channels, n_classes=n_classes)
        if width < 2:
            raise ValueError(f"fanet: width is {width}; it must be at least 2, since keys have half of it")
        one_of("fanet", "body", body, tuple(BODIES))
        rng = np.random.default_rng(seed)

        def head(c: int, mid: int) -> nn.Sequential:
            score = nn.Conv2d(rng, mid, n_classes, 1, bias=False, init=linear_normal)
            return nn.Sequential(conv(rng, c, mid, 3), score)

        self.body = ResNet(rng, in_channels, BODIES[body], width, strides=(2, 2, 2, 2), activation="leaky_relu")
        channels = self.body.channels[:0:-1]  # 512, 256, 128, 64
        self.attention = [FastAttention(rng, c, width // 2, 2 * width) for c in channels]
        self.auxiliary = [head(2 * width, width), head(2 * width, width)]
        self.head = head(4 * width, 4 * width)
        nn.lr_factors(self, bias_decay=0)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        size = x.shape[1:3]
        _, *maps = self.body(x)
        at64, at32, at16, at8 = self.attention
        y = at64(maps[3], None)
        below, coarse = at64.up(y), at64.smooth(y)  # the second for training alone, but run and counted by the authors
        y = at32(maps[2], below)
        below, middle = at32.up(y), at32.smooth(y)
        below = at16.up(at16(maps[1], below))
        fine = at8.smooth(at8(maps[0], below))  # (N, H / 8, W / 8, 128)
        main = resize(self.head(ops.concat([resize(middle, fine.shape[1:3]), fine])), size)
        if not self.training:
            return main
        return main, *(resize(head(a), size) for head, a in zip(self.auxiliary, (coarse, middle)))
