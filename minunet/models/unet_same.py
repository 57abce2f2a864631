"""U-Net with padding and batch-norm: what most people mean by U-Net today (Ronneberger, Fischer, Brox 2015, arXiv
1505.04597, with batch-norm of Ioffe and Szegedy 2015, arXiv 1502.03167). The output is as large as the input.

    x ─ enc1 ──────────────────────────────────────── concat ─ dec1 ─ head              512      64 channels
          └ pool ─ enc2 ────────────────── concat ─ dec2 ─ up ┘                         256      128
                     └ pool ┄ bottom ┄ up ┘                                             128, 64  256, 512; 1024
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet import nn, ops
from minunet.models.base import Network, one_of, positive
from minunet.tensor import Tensor

DEPTH = 4  # poolings
OPTIONS: dict[str, dict[str, Any]] = {
    "seed": {"eps": 1e-3, "momentum": 0.01, "init": nn.init.glorot_uniform},  # Keras' own; its momentum is 0.99
    "milesial": {"bias": False, "init": nn.init.torch_default},
}


def block(rng: np.random.Generator, c: int, mid: int, o: int, options: dict[str, Any]) -> nn.Sequential:
    """Two 3x3 convolutions, c -> mid -> o, each with batch-norm and ReLU."""
    return nn.Sequential(nn.ConvBN(rng, c, mid, 3, **options), nn.ConvBN(rng, mid, o, 3, **options))


class Up(nn.Module):
    """One level of the way up: (N, H, W, below) and (N, 2H, 2W, skip) -> (N, 2H, 2W, o)."""

    def __init__(self, rng: np.random.Generator, below: int, skip: int, o: int, form: str, bilinear: bool):
        self.form, options = form, OPTIONS[form]
        if bilinear:
            self.up = None
        else:
            self.up = nn.ConvTranspose2d(rng, below, skip, 2, stride=2, init=options["init"])
        self.block = block(rng, 2 * skip, skip, o, options)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = ops.upsample(x, 2, mode="bilinear", align_corners=True) if self.up is None else self.up(x)
        if self.form == "seed":
            return self.block(ops.concat([x, skip]))
        dh, dw = (s - n for s, n in zip(skip.shape[1:3], x.shape[1:3]))  # 1 where the pool dropped a row
        if dh or dw:
            x = ops.pad(x, (dh // 2, dh - dh // 2, dw // 2, dw - dw // 2))
        return self.block(ops.concat([skip, x]))


class UNetSame(Network):
    """x (N, H, W, in_channels) -> logits (N, H, W, n_classes).

    form     : "seed", the common Keras code: biases, Glorot-uniform start, batch-norm eps 1e-3, [up, skip] joined;
        H and W multiples of 16. "milesial", of milesial/Pytorch-UNet: no biases before batch-norm, PyTorch's start,
        [skip, up] joined; any H and W of at least 16, zeros around a map that came up smaller than its skip
    bilinear : of "milesial": bilinear up-sampling (align_corners=True) in place of transposed convolutions
    width    : channels of the first level; each level below doubles them

    A sigmoid, where there is one class, is the loss's.
    """

    paper = "Ronneberger, Fischer, Brox 2015, arXiv 1505.04597, and batch-norm"
    multiple = least = 2**DEPTH

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 1,
        width: int = 64,
        form: str = "seed",
        bilinear: bool = False,
        seed: int = 0,
    ):
        positive("unet_same", in_channels=in_channels, n_classes=n_classes, width=width)
        one_of("unet_same", "form", form, tuple(OPTIONS))
        if bilinear and form != "milesial":
            raise ValueError(f'unet_same: bilinear belongs to form="milesial", not to {form!r}')
        if form == "milesial":
            self.multiple = 1
        rng = np.random.default_rng(seed)
        options = OPTIONS[form]
        widths = [width << level for level in range(DEPTH + 1)]  # 64, 128 ... 1024
        # without a transposed convolution to halve its channels, each level hands half of them on: 512, 256 ... 64
        given = [width, *widths[:-2]] if bilinear else widths[:-1]
        if bilinear:
            widths[-1] = widths[-2]
        self.down = [block(rng, c, o, o, options) for c, o in zip([in_channels, *widths], widths)]
        self.up = [Up(rng, widths[k + 1], widths[k], given[k], form, bilinear) for k in reversed(range(DEPTH))]
        self.head = nn.Conv2d(rng, width, n_classes, 1, init=options["init"])

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, stage in enumerate(self.down):
            x = stage(ops.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up in self.up:
            x = up(x, skips.pop())
        return self.head(x)
