"""SegNet-Basic after the authors' Caffe definitions: no ReLU on the way up."""

from __future__ import annotations


def make(torch, in_channels=3, n_classes=11, width=64, depth=4, lrn=True, dropout=0.0, seed=0):
    nn = torch.nn

    class SegNetBasic(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LocalResponseNorm(5, 1e-4, 0.75) if lrn else nn.Identity()
            self.encoder = nn.ModuleList(
                nn.Sequential(nn.Conv2d(width if k else in_channels, width, 7, padding=3), nn.BatchNorm2d(width))
                for k in range(depth)
            )
            self.decoder = nn.ModuleList(
                nn.Sequential(nn.Conv2d(width, width, 7, padding=3), nn.BatchNorm2d(width)) for _ in range(depth)
            )
            self.classifier = nn.Conv2d(width, n_classes, 1)
            self.drop = nn.Dropout(dropout)

        def forward(self, x):
            kept, x = [], self.norm(x)
            for level, layer in enumerate(self.encoder):
                x = layer(x).relu()
                size = x.shape[2:]
                x, where = nn.functional.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
                kept.append((where, size))
                x = self.drop(x) if level > 1 else x
            for level, layer in zip(range(depth - 1, -1, -1), self.decoder):
                where, size = kept.pop()
                x = layer(nn.functional.max_unpool2d(x, where, 2, 2, output_size=size))
                x = self.drop(x) if level > 1 else x
            return self.classifier(x)

    return SegNetBasic()
