"""FCN after the authors' net.py; layers in the order of wkentaro/pytorch-fcn."""

from __future__ import annotations

import itertools


def kernel(torch, channels, size):
    """Linear interpolation on the diagonal."""
    half = (size + 1) // 2
    centre = half - 1 if size % 2 else half - 0.5
    line = 1 - (torch.arange(size, dtype=torch.float64) - centre).abs() / half
    w = torch.zeros(channels, channels, size, size, dtype=torch.float64)
    for k in range(channels):
        w[k, k] = line[:, None] * line[None, :]
    return w


def make(
    torch,
    in_channels=3,
    n_classes=21,
    width=64,
    widths=None,
    fc=None,
    form="8s",
    at_once=False,
    learned=False,
    dropout=0.5,
    seed=0,
):
    nn = torch.nn
    c = widths or [width * unit for unit in (1, 2, 4, 8, 8)]
    fc = fc or 64 * width

    def row(*channels, first=1):
        layers = []
        for k, (i, o) in enumerate(itertools.pairwise(channels)):
            layers += [nn.Conv2d(i, o, 3, padding=first if k == 0 else 1), nn.ReLU()]
        return nn.Sequential(*layers, nn.MaxPool2d(2, 2, ceil_mode=True))

    def up(size, stride):
        layer = nn.ConvTranspose2d(n_classes, n_classes, size, stride, bias=False)
        layer.weight.data = kernel(torch, n_classes, size)
        layer.weight.requires_grad_(learned)
        return layer

    def cut(x, first, like):
        return x[:, :, first : first + like.shape[2], first : first + like.shape[3]]

    class FCN(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = row(in_channels, c[0], c[0], first=100)
            self.conv2 = row(c[0], c[1], c[1])
            self.conv3 = row(c[1], c[2], c[2], c[2])
            self.conv4 = row(c[2], c[3], c[3], c[3])
            self.conv5 = row(c[3], c[4], c[4], c[4])
            self.fc6 = nn.Sequential(nn.Conv2d(c[4], fc, 7), nn.ReLU(), nn.Dropout(dropout))
            self.fc7 = nn.Sequential(nn.Conv2d(fc, fc, 1), nn.ReLU(), nn.Dropout(dropout))
            self.score_fr = nn.Conv2d(fc, n_classes, 1)
            if form == "8s":
                self.score_pool3 = nn.Conv2d(c[2], n_classes, 1)
            if form == "32s":
                self.upscore = up(64, 32)
                return
            self.score_pool4 = nn.Conv2d(c[3], n_classes, 1)
            self.upscore2 = up(4, 2)
            if form == "16s":
                self.upscore16 = up(32, 16)
            else:
                self.upscore8 = up(16, 8)
                self.upscore_pool4 = up(4, 2)

        def forward(self, image):
            pool3 = self.conv3(self.conv2(self.conv1(image)))
            pool4 = self.conv4(pool3)
            scores = self.score_fr(self.fc7(self.fc6(self.conv5(pool4))))
            if form == "32s":
                return cut(self.upscore(scores), 19, image)
            scores = self.upscore2(scores)
            scores = scores + cut(self.score_pool4(pool4 * (0.01 if at_once else 1)), 5, scores)
            if form == "16s":
                return cut(self.upscore16(scores), 27, image)
            scores = self.upscore_pool4(scores)
            scores = scores + cut(self.score_pool3(pool3 * (0.0001 if at_once else 1)), 9, scores)
            return cut(self.upscore8(scores), 31, image)

    return FCN()
