"""GCN: Peng, Zhang, Yu, Luo, Sun, "Large Kernel Matters: Improve Semantic Segmentation by Global Convolutional Network"
(2017, arXiv 1703.02719), figure 2. A classifier as large as the map it looks at, from two bands: k x 1 and 1 x k.

    x ─ stem ─ layer1 ─ layer2 ─ layer3 ─ layer4          512 → 256, 128, 64, 32, 16
                 │        │        │        │
                GCM      GCM      GCM      GCM            21 channels from here on
                 BR       BR       BR       BR
    y ─ BR ─ BR ─┴─── BR ─┴─── BR ─┴────────┘             BR after every sum and doubling of the size
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minunet import nn, ops
from minunet.models.base import Network, one_of, positive
from minunet.models.resnet import ResNet
from minunet.tensor import Tensor


class GlobalConvolution(nn.Module):
    """y = (k x 1, then 1 x k)(x) + (1 x k, then k x 1)(x), c -> o channels, nothing between them (figure 2B, "GCM")."""

    def __init__(self, rng: np.random.Generator, c: int, o: int, k: int):
        column = {"kernel": (k, 1), "padding": (k // 2, 0)}
        row = {"kernel": (1, k), "padding": (0, k // 2)}
        self.left = nn.Sequential(nn.Conv2d(rng, c, o, **column), nn.Conv2d(rng, o, o, **row))
        self.right = nn.Sequential(nn.Conv2d(rng, c, o, **row), nn.Conv2d(rng, o, o, **column))

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


class BoundaryRefinement(nn.Module):
    """y = x + conv2(relu(conv1(x))), 3x3 (figure 2C, "BR")."""

    def __init__(self, rng: np.random.Generator, c: int):
        self.conv1 = nn.Conv2d(rng, c, c, 3, padding=1, activation="relu")
        self.conv2 = nn.Conv2d(rng, c, c, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


class GCN(Network):
    """x (N, H, W, in_channels) -> logits (N, H, W, n_classes); any H and W, with "deconvolution" multiples of 32.

    width  : channels of ResNet's stem (paper: 64)
    depth  : of ResNet (paper: 152); `blocks`: of each of its layers, if not that depth's own
    k      : length of the bands, odd (paper: 15)
    upsampling : "bilinear", with `align_corners` or without, as the public ports do it, or "deconvolution": the paper's
        word; its kernel, which it does not state, is 4x4 here, and starts as bilinear

    Ours against the original: random weights in ResNet instead of those of ImageNet.
    """

    paper = "Peng, Zhang, Yu, Luo, Sun 2017, arXiv 1703.02719"

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 21,
        width: int = 64,
        depth: int = 152,
        k: int = 15,
        upsampling: str = "bilinear",
        align_corners: bool = True,
        blocks: Sequence[int] | None = None,
        seed: int = 0,
    ):
        positive("gcn", in_channels=in_channels, n_classes=n_classes, width=width, k=k)
        one_of("gcn", "upsampling", upsampling, ("bilinear", "deconvolution"))
        if k % 2 == 0:
            raise ValueError(f"gcn: k is {k}; it must be odd, for the bands to have a middle")
        rng = np.random.default_rng(seed)
        self.align_corners = bool(align_corners)
        self.body = ResNet(rng, in_channels, depth, width, blocks=blocks)
        self.gcm = [GlobalConvolution(rng, c, n_classes, k) for c in self.body.channels[:0:-1]]
        self.refine = [BoundaryRefinement(rng, n_classes) for _ in range(4)]  # after the GCMs, deepest first
        self.merge = [BoundaryRefinement(rng, n_classes) for _ in range(5)]  # after the doublings
        self.double = []
        if upsampling == "deconvolution":
            self.multiple = self.least = 32
            bilinear = {"stride": 2, "padding": 1, "bias": False, "init": nn.init.bilinear}
            self.double = [nn.ConvTranspose2d(rng, n_classes, n_classes, 4, **bilinear) for _ in range(5)]

    def forward(self, x: Tensor) -> Tensor:
        maps = self.body(x)
        levels = [refine(gcm(m)) for gcm, refine, m in zip(self.gcm, self.refine, maps[:0:-1])]
        sizes = [m.shape[1:3] for m in (*maps[3::-1], x)]  # 32, 64, 128, 256, 512
        y = levels[0]
        for k, (size, merge) in enumerate(zip(sizes, self.merge)):
            y = self.larger(k, y, size)
            y = merge(y + levels[k + 1] if k < 3 else y)
        return y

    def larger(self, k: int, y: Tensor, size: tuple[int, int]) -> Tensor:
        if self.double:
            return self.double[k](y)
        return ops.upsample(y, size=size, mode="bilinear", align_corners=self.align_corners)
