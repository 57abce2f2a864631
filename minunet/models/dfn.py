"""DFN: Yu, Wang, Peng, Gao, Yu, Sang, "Learning a Discriminative Feature Network for Semantic Segmentation" (2018,
arXiv 1804.09337), figure 2, as in the authors' code. Two ways back from ResNet's layers: the smooth network goes from
deep to shallow and says the class, the border network from shallow to deep, and says where classes meet.

    x ─ stem ─ layer1 ────── layer2 ────── layer3 ────── layer4 ── mean      512 → 256, 128, 64, 32, 16, 1
                 │ └ RRB ─┐    │ └ RRB ─┐    │ └ RRB ─┐    │ └ RRB │
                RRB       │   RRB       │   RRB       │   RRB      │         512 channels
                CAB ─ RRB ┼── CAB ─ RRB ┼── CAB ─ RRB ┼── CAB ─────┼── 1x1
                          └ border ──── + ─ RRB ───── + ─ RRB ──── + ─ RRB   21 channels
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minunet import nn, ops
from minunet.models.base import Network, Output, positive
from minunet.models.resnet import ResNet
from minunet.tensor import Tensor


class RefineResidual(nn.Module):
    """RRB, figure 3c: z = 1x1(x), y = z + 3x3(relu(bn(3x3(z)))), then ReLU but in heads. c -> o channels."""

    def __init__(self, rng: np.random.Generator, c: int, o: int, activation: bool = True):
        self.conv = nn.Conv2d(rng, c, o, 1, bias=False)
        self.inner = nn.ConvBN(rng, o, o, 3, bias=False)
        self.refine = nn.Conv2d(rng, o, o, 3, padding=1, bias=False)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.refine(self.inner(x)) + x
        return ops.relu(x) if self.activation else x


class ChannelAttention(nn.Module):
    """CAB, figure 3d: y = low g + high, a weight g for each channel: sigmoid(fc2(relu(fc1(mean of [low, high]))))."""

    def __init__(self, rng: np.random.Generator, c: int):
        self.fc1 = nn.Conv2d(rng, 2 * c, c, 1, activation="relu")
        self.fc2 = nn.Conv2d(rng, c, c, 1, activation="sigmoid")

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        g = self.fc2(self.fc1(ops.global_avg_pool(ops.concat([low, high]))))  # (N, 1, 1, c)
        return ops.gate(low, g) + high


class Head(nn.Module):
    """RRB to nine channels a class, 1x1 to one, and the image's size."""

    def __init__(self, rng: np.random.Generator, c: int, n_classes: int):
        self.rrb = RefineResidual(rng, c, 9 * n_classes, activation=False)
        self.conv = nn.Conv2d(rng, 9 * n_classes, n_classes, 1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return resized(self.conv(self.rrb(x)), size)


class DFN(Network):
    """x (N, H, W, in_channels) -> logits (N, H, W, n_classes); H and W multiples of 32.

    width  : channels of ResNet's first layer (paper: 64); the smooth network has 8 times as many
    depth  : of ResNet (paper: 101); `blocks`: of each of its layers, if not that depth's own
    border : channels of the border network (authors' code: 21)
    deep_stem : ResNet begins with three 3x3 convolutions, as in the authors' code, instead of one 7x7

    In training: the logits of the smooth network's four stages, the finest first; then four maps (N, H, W, 1), logits
    of "here two classes meet", each with a tenth of the weight. What is not in the body learns ten times as fast.
    The first RRB of `border_after` is in the authors' code, and never used. Training needs two images or more: the
    batch-norm behind the global mean has one pixel of each. Ours against the original: random weights in ResNet.
    """

    paper = "Yu, Wang, Peng, Gao, Yu, Sang 2018, arXiv 1804.09337"
    multiple = least = 32
    outputs = (Output(),) * 4 + (Output(0.1, "edges"),) * 4
    unused = ("border_after.0.",)

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 21,
        width: int = 64,
        depth: int = 101,
        border: int = 21,
        deep_stem: bool = True,
        blocks: Sequence[int] | None = None,
        seed: int = 0,
    ):
        positive("dfn", in_channels=in_channels, n_classes=n_classes, width=width, border=border)
        rng, smooth = np.random.default_rng(seed), 8 * width
        self.body = ResNet(rng, in_channels, depth, width, blocks=blocks, deep_stem=deep_stem)
        up = self.body.channels[1:]  # 256, 512, 1024, 2048
        down = up[::-1]
        self.context = nn.ConvBN(rng, down[0], smooth, 1, bias=False)
        self.smooth_before = [RefineResidual(rng, c, smooth) for c in down]
        self.attention = [ChannelAttention(rng, smooth) for _ in down]
        self.smooth_after = [RefineResidual(rng, smooth, smooth) for _ in down]
        self.smooth_head = [Head(rng, smooth, n_classes) for _ in down]
        self.border_before = [RefineResidual(rng, c, border) for c in up]
        self.border_after = [RefineResidual(rng, border, border) for _ in up]
        self.border_head = [Head(rng, border, 1) for _ in up]
        for name, child in self.children():
            if name != "body":
                nn.lr_factors(child, 10, 10)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        size, maps = x.shape[1:3], self.body(x)[1:]
        stages = self.smooth(maps[::-1])
        finest = self.smooth_head[3](stages[3], size)
        if not self.training:
            return finest
        coarser = (head(y, size) for head, y in zip(self.smooth_head[2::-1], stages[2::-1]))
        edges = (head(y, size) for head, y in zip(self.border_head, self.borders(maps)))
        return finest, *coarser, *edges

    def smooth(self, maps: list[Tensor]) -> list[Tensor]:
        """The stages of the smooth network, 1/32 ... 1/4 of the image's size, from layer4 ... layer1."""
        high, stages = self.context(ops.global_avg_pool(maps[0])), []
        for before, attention, after, x in zip(self.smooth_before, self.attention, self.smooth_after, maps):
            stages.append(after(attention(before(x), resized(high, x.shape[1:3]))))
            high = stages[-1]
        return stages

    def borders(self, maps: list[Tensor]) -> list[Tensor]:
        """The stages of the border network, all 1/4 of the image's size, from layer1 ... layer4."""
        stages = [self.border_before[0](maps[0])]
        for before, after, x in zip(self.border_before[1:], self.border_after[1:], maps[1:]):
            stages.append(after(stages[-1] + resized(before(x), maps[0].shape[1:3])))
        return stages


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corner on corner."""
    return ops.upsample(x, size=size, mode="bilinear", align_corners=True)
