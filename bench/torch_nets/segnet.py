"""SegNet after the authors' Caffe definitions, Bayesian SegNet's dropout included."""

from __future__ import annotations

import itertools

VGG16 = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))


def make(torch, in_channels=3, n_classes=11, width=64, stages=VGG16, dropout=0.0, seed=0):
    nn = torch.nn

    def cbr(c, o):
        return nn.Sequential(nn.Conv2d(c, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())

    def row(channels):
        return nn.Sequential(*(cbr(c, o) for c, o in itertools.pairwise(channels)))

    class SegNet(nn.Module):
        def __init__(self):
            super().__init__()
            encoder, c = [], in_channels
            for stage in stages:
                encoder.append([c, *(width * unit for unit in stage)])
                c = encoder[-1][-1]
            decoder = [channels[::-1] for channels in reversed(encoder)]
            decoder[-1].pop()  # instead of a unit that gives the image back, the classifier
            self.encoder = nn.ModuleList(row(channels) for channels in encoder)
            self.decoder = nn.ModuleList(row(channels) for channels in decoder)
            self.classifier = nn.Conv2d(decoder[-1][-1], n_classes, 3, padding=1)
            self.pool = nn.MaxPool2d(2, 2, ceil_mode=True, return_indices=True)
            self.drop = nn.Dropout(dropout)

        def forward(self, x):
            kept = []
            for level, stage in enumerate(self.encoder):
                x = stage(x)
                size = [int(n) for n in x.shape[2:]]  # numbers, also while TorchScript watches
                x, where = self.pool(x)
                kept.append((where, size))
                x = self.drop(x) if level > 1 else x
            for level, stage in zip(range(len(stages) - 1, -1, -1), self.decoder):
                where, size = kept.pop()
                x = stage(nn.functional.max_unpool2d(x, where, 2, 2, output_size=size))
                x = self.drop(x) if level > 1 else x
            return self.classifier(x)

    return SegNet()
