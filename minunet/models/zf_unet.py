"""ZF_UNET_224: R. Solovyev's U-Net for 224 x 224 images (2017, repository ZFTurbo/ZF_UNET_224_Pretrained_Model). U-Net
with padding and batch-norm, five poolings, and nearest-neighbour up-sampling instead of transposed convolutions.

    x ─ enc0 ────────────────────────────────────────── concat ─ dec0 ─ final           224        32 channels
          └ pool ─ enc1 ─────────────────── concat ─ dec1 ─ x2 ┘                        112        64
                     └ pool ┄ enc5 ┄ dec2 ─ x2 ┘                                         56 ... 7  128 ... 1024
"""

from __future__ import annotations

import numpy as np

from minunet import nn, ops
from minunet.models.base import Network, one_of, positive
from minunet.tensor import Tensor

FORMS = ("seed", "head")
DEPTH = 5  # poolings
KERAS = {"eps": 1e-3, "momentum": 0.01, "init": nn.init.glorot_uniform}  # Keras' own defaults; its momentum is 0.99


def block(rng: np.random.Generator, c: int, o: int, dropout: nn.Module | None = None) -> nn.Sequential:
    """Two 3x3 convolutions, each with batch-norm and ReLU, and dropout where it is wanted."""
    layers = [nn.ConvBN(rng, c, o, 3, **KERAS), nn.ConvBN(rng, o, o, 3, **KERAS)]
    return nn.Sequential(*layers, *([] if dropout is None else [dropout]))


class ZFUNet(Network):
    """x (N, H, W, in_channels) -> logits (N, H, W, n_classes); H and W multiples of 32. The sigmoid is the loss's.

    form    : "seed", the first revision: batch-norm after the final convolution, dropout after every block but
        the last; "head", the repository today: neither, but whole channels dropped after the last block
    dropout : the rate; None: the form's own, 0 and 0.2
    width   : channels of the first level; each level below doubles them
    """

    paper = "Solovyev 2017, ZFTurbo/ZF_UNET_224_Pretrained_Model"
    multiple = least = 2**DEPTH

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 1,
        width: int = 32,
        form: str = "seed",
        dropout: float | None = None,
        seed: int = 0,
    ):
        positive("zf_unet", in_channels=in_channels, n_classes=n_classes, width=width)
        one_of("zf_unet", "form", form, FORMS)
        rate = {"seed": 0.0, "head": 0.2}[form] if dropout is None else dropout
        rng = np.random.default_rng(seed)
        widths = [width << level for level in range(DEPTH + 1)]  # 32, 64 ... 1024

        def drop(place: int) -> nn.Dropout | None:
            """After block number `place`, of which the last is 2 DEPTH."""
            if form == "head":
                return nn.DropoutChannels(rate, seed) if place == 2 * DEPTH else None
            return nn.Dropout(rate, seed + place) if place < 2 * DEPTH else None

        self.down = [block(rng, c, o, drop(k)) for k, (c, o) in enumerate(zip([in_channels, *widths], widths))]
        self.up = [
            block(rng, below + o, o, drop(DEPTH + 1 + k))
            for k, (below, o) in enumerate(zip(widths[:0:-1], widths[-2::-1]))
        ]
        if form == "seed":
            final = KERAS | {"activation": None}
            self.final = nn.ConvBN(rng, width, n_classes, 1, **final)
        else:
            self.final = nn.Conv2d(rng, width, n_classes, 1, init=nn.init.glorot_uniform)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, stage in enumerate(self.down):
            x = stage(ops.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for stage in self.up:
            x = stage(ops.concat([ops.upsample(x, 2), skips.pop()]))
        return self.final(x)
