"""SegNet-Basic: the small SegNet of Badrinarayanan, Kendall, Cipolla, "SegNet" (2015, arXiv 1511.00561), section 3:
four 7x7 convolutions down, four up, 64 channels throughout, and no ReLU on the way up.
"""

from __future__ import annotations

import numpy as np

from minunet import nn, ops
from minunet.models.base import Network, positive
from minunet.models.segnet import caffe_rates, down_and_up
from minunet.tensor import Tensor


class SegNetBasic(Network):
    """x (N, H, W, in_channels) -> logits (N, H, W, n_classes); any size from 9 x 9

    width   : channels of every level (paper: 64)
    depth   : poolings (paper: 4)
    lrn     : local response normalisation of the image, across its channels, as in the authors' definition
    dropout : rate after the poolings and decoder levels from the third on: 0.5 in Bayesian SegNet-Basic

    Ours against the authors' definition: as in `SegNet`.
    """

    paper = "Badrinarayanan, Kendall, Cipolla 2015, arXiv 1511.00561"

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 11,
        width: int = 64,
        depth: int = 4,
        lrn: bool = True,
        dropout: float = 0.0,
        seed: int = 0,
    ):
        positive("segnet_basic", in_channels=in_channels, n_classes=n_classes, width=width, depth=depth)
        rng = np.random.default_rng(seed)
        self.least = 2 ** (depth - 1) + 1  # a pooling needs two rows
        self.lrn = lrn
        self.encoder = [nn.ConvBN(rng, c, width, 7) for c in (in_channels, *[width] * (depth - 1))]
        self.decoder = [nn.ConvBN(rng, width, width, 7, activation=None) for _ in range(depth)]
        self.classifier = nn.Conv2d(rng, width, n_classes, 1)
        self.drop = [nn.Dropout(dropout, seed + k) for k in range(2 * max(depth - 2, 0))]
        caffe_rates(self)

    def forward(self, x: Tensor) -> Tensor:
        x = ops.lrn(x, size=5, alpha=1e-4, beta=0.75) if self.lrn else x
        return self.classifier(down_and_up(x, self.encoder, self.decoder, self.drop))
