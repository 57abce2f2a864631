"""ZF_UNET_224 after ZFTurbo's Keras code, its first revision and today's."""

from __future__ import annotations


def make(torch, in_channels=3, n_classes=1, width=32, form="seed", dropout=None, seed=0):
    nn = torch.nn
    seeded = form == "seed"
    rate = dropout if dropout is not None else 0.0 if seeded else 0.2

    def double(c, o, after):
        layers = []
        for i in (c, o):
            layers += [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o, eps=1e-3, momentum=0.01), nn.ReLU()]
        return nn.Sequential(*layers, after)

    def usual():
        return nn.Dropout(rate) if seeded else nn.Identity()

    class ZFUNet(nn.Module):
        def __init__(self):
            super().__init__()
            w = [width * 2**k for k in range(6)]
            self.down = nn.ModuleList(double(c, o, usual()) for c, o in zip([in_channels, *w], w))
            self.up = nn.ModuleList(double(w[k + 1] + w[k], w[k], usual()) for k in (4, 3, 2, 1))
            self.up.append(double(w[1] + w[0], w[0], nn.Identity() if seeded else nn.Dropout2d(rate)))
            final = [nn.Conv2d(width, n_classes, 1)]
            if seeded:
                final.append(nn.BatchNorm2d(n_classes, eps=1e-3, momentum=0.01))
            self.final = nn.Sequential(*final)

        def forward(self, x):
            maps = [self.down[0](x)]
            for stage in self.down[1:]:
                maps.append(stage(nn.functional.max_pool2d(maps[-1], 2)))
            x = maps.pop()
            for stage in self.up:
                x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
                x = stage(torch.cat([x, maps.pop()], 1))
            return self.final(x)

    return ZFUNet()
