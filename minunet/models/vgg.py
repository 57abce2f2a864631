"""VGG16's convolutional part: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition" (2014, arXiv 1409.1556), configuration D. Five stages of 3x3 convolutions, a pooling after each.

    64 64 | 128 128 | 256 256 256 | 512 512 512 | 512 512 512         14,714,688 parameters; with batch-norm 14,723,136
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minunet import nn

VGG16 = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))  # channels of each convolution, in units of the width
Widths = Iterable[Sequence[int]]


def widths(width: int = 64, stages: Widths = VGG16) -> list[tuple[int, ...]]:
    """The stages' channels: (64, 64), (128, 128), ... at width 64."""
    return [tuple(width * unit for unit in stage) for stage in stages]


def stage(rng: np.random.Generator, c: int, channels: Sequence[int], layer: Any = nn.Conv2d, **options: Any) -> Any:
    """3x3 convolutions with ReLU, c -> channels[0] -> channels[1] ..., as large as their input, in a Sequential.

    layer : `nn.Conv2d` or `nn.ConvBN`, with `options`
    """
    options = {"padding": 1, "activation": "relu"} | options
    return nn.Sequential(*(layer(rng, i, o, 3, **options) for i, o in zip((c, *channels), channels)))


def encoder(rng: np.random.Generator, c: int, stages: Widths, layer: Any = nn.Conv2d, **options: Any) -> list[Any]:
    """One `stage` after the other."""
    out = []
    for channels in stages:
        out.append(stage(rng, c, channels, layer, **options))
        c = channels[-1]
    return out
