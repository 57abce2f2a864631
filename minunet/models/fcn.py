"""FCN: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation" (2014, arXiv 1411.4038),
figure 3, as in the authors' released definitions. VGG16 up to fc7, its classifier a 1x1 convolution, and scores of
finer levels cropped and added on the way back to the image's size.

    x ─ conv1 ─ conv2 ─ conv3 ─ conv4 ─ conv5 ─ fc6 ─ fc7 ─ score ─ up x2 ─ + ─ up x2 ─ + ─ up x8 ─ crop
                          │       └─────────── score ─ crop ────────────────┘           │
                          └─────────────────── score ─ crop ────────────────────────────┘
    500 → (698) 349     175      88      44      22     16   16     16      34          70    568     500
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minunet import nn, ops
from minunet.models import vgg
from minunet.models.base import Network, one_of, positive
from minunet.tensor import Tensor

FORMS = ("8s", "16s", "32s")
CONVOLUTIONS = (2, 2, 3, 3, 3)  # of VGG16's stages
MARGIN = 100  # zeros around the image: the smallest one still fills fc6's 7x7 window
# Where an image begins in the maps below. Output pixel 0 of each layer lies at an offset in the image; the definitions'
# crop layers add them up. They depend on the padding and the kernels, not on the image's size.
CROP = {"pool4": 5, "pool3": 9, "32s": 19, "16s": 27, "8s": 31}


class FCN(Network):
    """x (N, H, W, in_channels) -> logits (N, H, W, n_classes); any H and W.

    form    : "8s", "16s" or "32s": the stride of the finest scores that are used
    at_once : "8s" trained in one go: pool4 is multiplied by 0.01 and pool3 by 0.0001 before they are scored
    learned : train the up-sampling kernels, as the paper says. Released: bilinear and frozen
    width   : channels of the first stage; `widths`: those of the five stages, `fc`: those of fc6 and fc7, if not
        1, 2, 4, 8, 8 and 64 times as many

    Scoring layers start at zero; what comes before them starts from a trained VGG16 in the paper, He-normal here.
    Biases learn at twice the rate and do not decay.
    """

    paper = "Long, Shelhamer, Darrell 2014, arXiv 1411.4038"

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 21,
        width: int = 64,
        widths: Sequence[int] | None = None,
        fc: int | None = None,
        form: str = "8s",
        at_once: bool = False,
        learned: bool = False,
        dropout: float = 0.5,
        seed: int = 0,
    ):
        widths = [stage[-1] for stage in vgg.widths(width)] if widths is None else list(widths)
        fc = 64 * width if fc is None else fc
        if len(widths) != len(CONVOLUTIONS):
            raise ValueError(f"fcn: widths has {len(widths)} numbers; it needs one for each of the 5 stages")
        positive("fcn", in_channels=in_channels, n_classes=n_classes, width=min(widths), fc=fc)
        one_of("fcn", "form", form, FORMS)
        if at_once and form != "8s":
            raise ValueError(f'fcn: at_once belongs to form="8s", not to {form!r}')
        self.form, self.factor = form, (0.01, 0.0001) if at_once else (1.0, 1.0)
        rng = np.random.default_rng(seed)

        def score(c: int) -> nn.Conv2d:
            return nn.Conv2d(rng, c, n_classes, 1, init=nn.init.zero)

        def up(kernel: int, stride: int) -> nn.ConvTranspose2d:
            layer = nn.ConvTranspose2d(
                rng, n_classes, n_classes, kernel, stride=stride, bias=False, init=nn.init.bilinear
            )
            layer.w.requires_grad = learned
            return layer

        stages = [(c,) * count for c, count in zip(widths, CONVOLUTIONS)]
        first = nn.Sequential(
            nn.Conv2d(rng, in_channels, widths[0], 3, padding=MARGIN, activation="relu"),
            nn.Conv2d(rng, widths[0], widths[0], 3, padding=1, activation="relu"),
        )
        self.stages = [first, *vgg.encoder(rng, widths[0], stages[1:])]
        self.fc6 = nn.Conv2d(rng, widths[4], fc, 7, activation="relu")
        self.drop6 = nn.Dropout(dropout, seed)
        self.fc7 = nn.Conv2d(rng, fc, fc, 1, activation="relu")
        self.drop7 = nn.Dropout(dropout, seed + 1)
        self.score_fr = score(fc)
        if form == "8s":
            self.score_pool3 = score(widths[2])
        if form != "32s":
            self.score_pool4 = score(widths[3])
            self.upscore2 = up(4, 2)
        if form == "8s":
            self.upscore8 = up(16, 8)
            self.upscore_pool4 = up(4, 2)
        elif form == "16s":
            self.upscore16 = up(32, 16)
        else:
            self.upscore = up(64, 32)
        nn.lr_factors(self, biases=2, bias_decay=0)

    def forward(self, x: Tensor) -> Tensor:
        size, pools = x.shape[1:3], []
        for stage in self.stages:
            x = ops.max_pool2d(stage(x), 2, ceil_mode=True)
            pools.append(x)
        x = self.drop6(self.fc6(x))
        x = self.score_fr(self.drop7(self.fc7(x)))  # (N, H / 32 or so, W / 32, n_classes)
        if self.form == "32s":
            return self.window(self.upscore(x), size, "32s")
        x = self.upscore2(x)  # / 16
        x = x + self.window(self.score_pool4(self.weaker(pools[3], 0)), x.shape[1:3], "pool4")
        if self.form == "16s":
            return self.window(self.upscore16(x), size, "16s")
        x = self.upscore_pool4(x)  # / 8
        x = x + self.window(self.score_pool3(self.weaker(pools[2], 1)), x.shape[1:3], "pool3")
        return self.window(self.upscore8(x), size, "8s")

    def weaker(self, pool: Tensor, k: int) -> Tensor:
        return pool if self.factor[k] == 1 else ops.scale(pool, self.factor[k])

    def window(self, x: Tensor, size: tuple[int, int], what: str) -> Tensor:
        return ops.crop(x, size, (CROP[what], CROP[what]))
