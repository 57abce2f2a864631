"""DeconvNet: Noh, Hong, Han, "Learning Deconvolution Network for Semantic Segmentation" (2015, arXiv 1505.04366),
figure 2, with the layers of the authors' training definitions. VGG16 with its fully connected layers, and the same
mirrored: each pooling is undone at the positions that it remembered, each convolution by a transposed one.

    x ─ enc1 ─ pool ┄ enc5 ─ pool ─ fc6 ─ fc7 ─ fc6-deconv ─ unpool ─ dec5 ┄ unpool ─ dec1 ─ score
                │             └ positions ────────────────────┘               │
                └ positions ──────────────────────────────────────────────────┘
    224        112             7     1     1        7          14              224
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from minunet import nn, ops
from minunet.models import vgg
from minunet.models.base import Network, positive
from minunet.tensor import Tensor

SHIFT = 0.001  # batch-norm's beta at the start


class DeconvNet(Network):
    """x (N, H, W, in_channels) -> logits (N, H, W, n_classes); H and W multiples of 32, at least 224.

    width  : channels of the first convolution; `widths`: those of every convolution, stage by stage, if not VGG16's
        multiples of it; `fc`: those of fc6 and fc7, if not 64 times as many
    fc_kernel : side of the map that fc6 reads at once

    Transposed convolutions and scores start as N(0, 0.01); the encoder starts from a trained VGG16 in the paper,
    He-normal here. Convolutions' biases learn at twice the rate and do not decay. Batch-norm keeps running averages
    with eps 1e-5; the authors computed its statistics after training, with eps 1e-9.
    """

    paper = "Noh, Hong, Han 2015, arXiv 1505.04366"

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 21,
        width: int = 64,
        widths: Sequence[Sequence[int]] | None = None,
        fc: int | None = None,
        fc_kernel: int = 7,
        seed: int = 0,
    ):
        stages = vgg.widths(width) if widths is None else [tuple(stage) for stage in widths]
        fc = 64 * width if fc is None else fc
        if not stages or not all(stages):
            raise ValueError(f"deconvnet: widths {widths!r} needs one stage at least, and one number in each")
        least = min(c for stage in stages for c in stage)
        positive("deconvnet", in_channels=in_channels, n_classes=n_classes, width=least, fc=fc, fc_kernel=fc_kernel)
        self.multiple = 2 ** len(stages)
        self.least = fc_kernel * self.multiple
        rng = np.random.default_rng(seed)
        small = nn.init.normal(0.01)
        self.encoder = vgg.encoder(rng, in_channels, stages, nn.ConvBN)
        self.fc6 = nn.ConvBN(rng, stages[-1][-1], fc, fc_kernel, padding=0)
        self.fc7 = nn.ConvBN(rng, fc, fc, 1)
        self.fc6_deconv = nn.UpBN(rng, fc, stages[-1][-1], fc_kernel, stride=1, init=small)
        self.decoder = []
        for k in reversed(range(len(stages))):  # convolutions from last to first, their ends exchanged
            channels = [*reversed(stages[k]), stages[k - 1][-1] if k else stages[0][0]]
            layers = (nn.UpBN(rng, c, o, 3, stride=1, padding=1, init=small) for c, o in pairwise(channels))
            self.decoder.append(nn.Sequential(*layers))
        self.score = nn.Conv2d(rng, stages[0][0], n_classes, 1, init=small)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.beta.data += SHIFT
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.lr_factors(module, biases=2, bias_decay=0)

    def forward(self, x: Tensor) -> Tensor:
        pooled = []  # (positions of the maxima, size before the pooling)
        for stage in self.encoder:
            size = x.shape[1:3]
            x, positions = ops.max_pool2d(stage(x), 2, return_indices=True)
            pooled.append((positions, size))
        x = self.fc6_deconv(self.fc7(self.fc6(x)))
        for stage in self.decoder:
            x = stage(ops.max_unpool2d(x, *pooled.pop()))
        return self.score(x)
