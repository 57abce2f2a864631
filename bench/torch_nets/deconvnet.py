"""DeconvNet after the authors' training definition."""

from __future__ import annotations

import itertools


def make(torch, in_channels=3, n_classes=21, width=64, widths=None, fc=None, fc_kernel=7, seed=0):
    nn = torch.nn
    widths = widths or [[width * unit] * count for unit, count in zip((1, 2, 4, 8, 8), (2, 2, 3, 3, 3))]
    fc = fc or 64 * width

    def unit(layer, o):
        return nn.Sequential(layer, nn.BatchNorm2d(o), nn.ReLU())

    class DeconvNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, ends, c = nn.ModuleList(), [], in_channels
            for stage in widths:
                pairs = list(itertools.pairwise([c, *stage]))
                self.encoder.append(nn.Sequential(*(unit(nn.Conv2d(i, o, 3, padding=1), o) for i, o in pairs)))
                ends.append(pairs)
                c = stage[-1]
            first = ends[0][0][1]
            ends[0][0] = (first, first)  # the mirror of the first convolution keeps its channels
            self.fc6 = unit(nn.Conv2d(c, fc, fc_kernel), fc)
            self.fc7 = unit(nn.Conv2d(fc, fc, 1), fc)
            self.fc6_deconv = unit(nn.ConvTranspose2d(fc, c, fc_kernel), c)
            self.decoder = nn.ModuleList()
            for pairs in reversed(ends):
                layers = (unit(nn.ConvTranspose2d(o, i, 3, padding=1), i) for i, o in reversed(pairs))
                self.decoder.append(nn.Sequential(*layers))
            self.score = nn.Conv2d(first, n_classes, 1)

        def forward(self, x):
            kept = []
            for stage in self.encoder:
                x, where = nn.functional.max_pool2d(stage(x), 2, 2, return_indices=True)
                kept.append(where)
            x = self.fc6_deconv(self.fc7(self.fc6(x)))
            for stage in self.decoder:
                x = stage(nn.functional.max_unpool2d(x, kept.pop(), 2, 2))
            return self.score(x)

    return DeconvNet()
