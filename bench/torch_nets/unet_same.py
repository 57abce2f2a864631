"""U-Net with padding and batch-norm: the Keras form and milesial/Pytorch-UNet's."""

from __future__ import annotations


def make(torch, in_channels=3, n_classes=1, width=64, form="seed", bilinear=False, seed=0):
    nn, functional = torch.nn, torch.nn.functional
    keras = form == "seed"
    norm = {"eps": 1e-3, "momentum": 0.01} if keras else {}

    def double(c, mid, o):
        layers = []
        for i, j in ((c, mid), (mid, o)):
            layers += [nn.Conv2d(i, j, 3, padding=1, bias=keras), nn.BatchNorm2d(j, **norm), nn.ReLU()]
        return nn.Sequential(*layers)

    class Up(nn.Module):
        def __init__(self, c, o):  # c: channels of the skip and what comes up, together
            super().__init__()
            if bilinear:
                self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            else:
                self.up = nn.ConvTranspose2d(c, c // 2, 2, 2)
            self.conv = double(c, c // 2, o)

        def forward(self, x, skip):
            x = self.up(x)
            if keras:
                return self.conv(torch.cat([x, skip], 1))
            dh, dw = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
            x = functional.pad(x, (dw // 2, dw - dw // 2, dh // 2, dh - dh // 2))
            return self.conv(torch.cat([skip, x], 1))

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            f = 2 if bilinear else 1
            a, b, c, d, e = (width * 2**k for k in range(5))
            self.inc = double(in_channels, a, a)
            self.down = nn.ModuleList([double(a, b, b), double(b, c, c), double(c, d, d), double(d, e // f, e // f)])
            self.up = nn.ModuleList([Up(e, d // f), Up(d, c // f), Up(c, b // f), Up(b, a)])
            self.outc = nn.Conv2d(a, n_classes, 1)

        def forward(self, x):
            maps = [self.inc(x)]
            for stage in self.down:
                maps.append(stage(functional.max_pool2d(maps[-1], 2)))
            x = maps.pop()
            for up in self.up:
                x = up(x, maps.pop())
            return self.outc(x)

    return UNet()
