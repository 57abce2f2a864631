"""DeepLab v1 LargeFOV, after the authors' definition."""

from __future__ import annotations


def vgg(torch, in_channels, width):
    """VGG16's convolutions, pools 3x3: the last two without stride, what follows the first of them dilated by 2."""
    nn = torch.nn
    layers, c = [], in_channels
    for k, count in enumerate((2, 2, 3, 3, 3)):
        o, d = width * min(2**k, 8), 2 if k == 4 else 1
        for _ in range(count):
            layers += [nn.Conv2d(c, o, 3, padding=d, dilation=d), nn.ReLU()]
            c = o
        layers.append(nn.MaxPool2d(3, 2 if k < 3 else 1, padding=1, ceil_mode=True))
    return nn.Sequential(*layers)


def classifier(torch, width, n_classes, rate, dropout):
    """fc6, fc7, fc8."""
    nn = torch.nn
    fc = 16 * width
    return nn.Sequential(
        nn.Conv2d(8 * width, fc, 3, padding=rate, dilation=rate),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(fc, fc, 1),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(fc, n_classes, 1),
    )


def make(torch, in_channels=3, n_classes=21, width=64, rate=12, dropout=0.5, align_corners=False, seed=0):
    nn = torch.nn

    class LargeFOV(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = vgg(torch, in_channels, width)
            self.pool5a = nn.AvgPool2d(3, 1, padding=1)
            self.classifier = classifier(torch, width, n_classes, rate, dropout)

        def forward(self, x):
            y = self.classifier(self.pool5a(self.features(x)))
            if self.training:
                return y
            return nn.functional.interpolate(y, x.shape[2:], mode="bilinear", align_corners=align_corners)

    return LargeFOV()
