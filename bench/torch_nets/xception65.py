"""Xception-65 after the authors' definition for DeepLab v3+, and its separable convolution."""

from __future__ import annotations

from itertools import pairwise


def separable(torch, c, o, stride=1, dilation=1, inside=False, eps=1e-3):
    """Depthwise 3x3, pointwise 1x1, each with batch-norm; ReLU before both, or after each."""
    nn = torch.nn
    depthwise = nn.Conv2d(c, c, 3, stride, dilation, dilation, groups=c, bias=False)
    layers = [depthwise, nn.BatchNorm2d(c, eps), nn.Conv2d(c, o, 1, bias=False), nn.BatchNorm2d(o, eps)]
    if inside:
        return nn.Sequential(layers[0], layers[1], nn.ReLU(), layers[2], layers[3], nn.ReLU())
    return nn.Sequential(nn.ReLU(), *layers)


def make(torch, in_channels, width, middle, output_stride):
    """A module whose forward gives (map of 1/4 the size, map of 1/16 or 1/8)."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, channels, stride, dilation):
            super().__init__()
            strides = (1, 1, stride)
            convs = (separable(torch, c, o, s, dilation) for (c, o), s in zip(pairwise(channels), strides))
            self.convs, self.shortcut = nn.ModuleList(convs), None
            if stride > 1 or channels[0] != channels[-1]:
                conv = nn.Conv2d(channels[0], channels[-1], 1, stride, bias=False)
                self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels[-1], 1e-3))

        def forward(self, x):
            y = x
            self.seen = []
            for conv in self.convs:
                y = conv(y)
                self.seen.append(y)
            return y + (self.shortcut(x) if self.shortcut else x)

    class Xception65(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(
                nn.Conv2d(in_channels, width // 2, 3, 2, 1, bias=False),
                nn.BatchNorm2d(width // 2, 1e-3),
                nn.ReLU(),
                nn.Conv2d(width // 2, width, 3, 1, 1, bias=False),
                nn.BatchNorm2d(width, 1e-3),
                nn.ReLU(),
            )
            # (channels, stride wanted) of every block; where the output's stride is reached, strides become dilations
            wide = 91 * width // 8
            plan = [([width] + [2 * width] * 3, 2), ([2 * width] + [4 * width] * 3, 2), ([4 * width] + [wide] * 3, 2)]
            plan += [([wide] * 4, 1)] * middle + [([wide, wide, 16 * width, 16 * width], 2)]
            blocks, reached, rate = [], 2, 1
            for channels, stride in plan:
                if reached == output_stride:
                    blocks.append(Block(channels, 1, rate))
                    rate *= stride
                else:
                    blocks.append(Block(channels, stride, 1))
                    reached *= stride
            self.blocks = nn.ModuleList(blocks)
            last = pairwise((16 * width, 24 * width, 24 * width, 32 * width))
            self.last = nn.Sequential(*(separable(torch, c, o, 1, rate, inside=True) for c, o in last))

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.blocks[1].seen[1], self.last(x)

    return Xception65()
