"""SegNet: Badrinarayanan, Kendall, Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
Segmentation" (2015, arXiv 1511.00561), figure 2. What a pooling keeps of each window's place goes to the unpooling.

    x ─ stage ┬ pool ─ stage ┬ pool ─ ... ─ unpool ─ stage ─ unpool ─ stage ─ logits      360 x 480: 180, 90, 45, 23, 12
              └ places ──────┼───────────────────────────────┘
                             └ places ─────────┘
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minunet import nn, ops
from minunet.models import vgg
from minunet.models.base import Network, positive
from minunet.tensor import Tensor


class SegNet(Network):
    """x (N, H, W, in_channels) -> logits (N, H, W, n_classes); any size from 17 x 17

    width   : channels of the first stage (paper: 64)
    stages  : the encoder's convolutions in units of `width`, a pooling after each stage; the decoder mirrors them.
              Default: VGG16
    dropout : rate after the poolings and decoder stages from the third on: 0.5 in Bayesian SegNet (arXiv 1511.02680)
              and the authors' models for SUN RGB-D and Pascal, none in SegNet itself

    As the authors' Caffe definitions: biases everywhere, ReLU in the decoder too; batch-norm's shift starts at 0.001;
    convolutions' biases learn at twice the rate and do not decay.
    Ours against theirs: batch-norm with running averages and eps 1e-5, where theirs has 1e-9 and goes over the training
    set once more after training to collect the statistics.
    """

    paper = "Badrinarayanan, Kendall, Cipolla 2015, arXiv 1511.00561"

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 11,
        width: int = 64,
        stages: vgg.Widths = vgg.VGG16,
        dropout: float = 0.0,
        seed: int = 0,
    ):
        positive("segnet", in_channels=in_channels, n_classes=n_classes, width=width)
        widths, rng = vgg.widths(width, stages), np.random.default_rng(seed)
        if not widths or not all(min(stage, default=0) >= 1 for stage in widths):
            raise ValueError(f"segnet: stages are {stages}; each needs a convolution, and each of those a channel")
        self.least = 2 ** (len(widths) - 1) + 1  # a pooling needs two rows
        self.encoder = vgg.encoder(rng, in_channels, widths, nn.ConvBN)
        self.decoder = []
        for level in reversed(range(len(widths))):
            stage = widths[level]
            mirrored = stage[-2::-1]  # back through the stage's own channels ...
            if level:  # ... to those of the stage before; before the first comes the classifier
                mirrored = (*mirrored, widths[level - 1][-1])
            self.decoder.append(vgg.stage(rng, stage[-1], mirrored, nn.ConvBN))
        self.classifier = nn.Conv2d(rng, widths[0][0], n_classes, 3, padding=1)
        self.drop = [nn.Dropout(dropout, seed + k) for k in range(2 * max(len(widths) - 2, 0))]
        caffe_rates(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(down_and_up(x, self.encoder, self.decoder, self.drop))


def down_and_up(
    x: Tensor, encoder: Sequence[nn.Module], decoder: Sequence[nn.Module], dropouts: Sequence[nn.Module]
) -> Tensor:
    """Each stage of the encoder and a pooling, then each of the decoder after the un-pooling to that pooling's places;
    the dropouts one after the other, at the levels from the third on.
    """
    drops, places = iter(dropouts), []
    for level, stage in enumerate(encoder):
        x = stage(x)
        size = x.shape[1:3]
        x, indices = ops.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
        places.append((indices, size))
        x = next(drops)(x) if level >= 2 else x
    for level, stage in zip(reversed(range(len(places))), decoder):
        x = stage(ops.max_unpool2d(x, *places.pop()))
        x = next(drops)(x) if level >= 2 else x
    return x


def caffe_rates(model: Network) -> None:
    """The authors' fillers and factors: beta of batch-norm 0.001; biases of convolutions learn at twice the rate and do
    not decay.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.beta = nn.Parameter(nn.init.full(module.beta.shape, 0.001))
        elif isinstance(module, nn.Conv2d) and module.b is not None:
            module.b.lr_factor, module.b.decay_factor = 2.0, 0.0
