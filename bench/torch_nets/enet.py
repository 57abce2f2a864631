"""ENet after the authors' Lua files, encoder and decoder (the 5x1 convolutions without a bias)."""

from __future__ import annotations


def make(torch, in_channels=3, n_classes=19, width=16, widths=None, dropout=(0.01, 0.1), seed=0):
    nn = torch.nn
    w = widths or (width, 4 * width, 8 * width)

    def norm(c):
        return nn.BatchNorm2d(c, eps=1e-3)

    def middle(mid, kind):
        if kind == "asymmetric":
            return [
                nn.Conv2d(mid, mid, (1, 5), padding=(0, 2), bias=False),
                nn.Conv2d(mid, mid, (5, 1), padding=(2, 0), bias=False),
            ]
        if kind == "up":
            return [nn.ConvTranspose2d(mid, mid, 3, 2, padding=1, output_padding=1)]
        dilation = kind if isinstance(kind, int) else 1
        return [nn.Conv2d(mid, mid, 3, padding=dilation, dilation=dilation)]

    class Bottleneck(nn.Module):
        def __init__(self, c, o, kind="regular", rate=None):
            super().__init__()
            mid, size = o // 4, 2 if kind == "down" else 1
            self.o, self.kind = o, kind

            def act(channels):
                return nn.ReLU() if rate is None else nn.PReLU(channels)

            self.main = nn.Sequential(
                nn.Conv2d(c, mid, size, size, bias=False),
                norm(mid),
                act(mid),
                *middle(mid, kind),
                norm(mid),
                act(mid),
                nn.Conv2d(mid, o, 1, bias=False),
                norm(o),
                nn.Dropout2d(rate or 0.0),
            )
            if kind == "up":
                self.other = nn.Sequential(nn.Conv2d(c, o, 1, bias=False), norm(o))
            self.act = act(o)

        def forward(self, x, where=None):
            if self.kind == "down":
                other, where = nn.functional.max_pool2d(x, 2, 2, return_indices=True)
                missing = self.o - other.shape[1]
                other = torch.cat([other, other.new_zeros(len(x), missing, *other.shape[2:])], 1)
                return self.act(self.main(x) + other), where
            other = nn.functional.max_unpool2d(self.other(x), where, 2, 2) if self.kind == "up" else x
            return self.act(self.main(x) + other)

    class ENet(nn.Module):
        def __init__(self):
            super().__init__()
            kinds = ["regular", 2, "asymmetric", 4, "regular", 8, "asymmetric", 16]
            low, high = dropout
            self.conv = nn.Conv2d(in_channels, w[0] - in_channels, 3, 2, 1)
            self.start = nn.Sequential(norm(w[0]), nn.PReLU(w[0]))
            self.down1 = Bottleneck(w[0], w[1], "down", low)
            self.stage1 = nn.Sequential(*(Bottleneck(w[1], w[1], "regular", low) for _ in range(4)))
            self.down2 = Bottleneck(w[1], w[2], "down", high)
            self.stage23 = nn.Sequential(*(Bottleneck(w[2], w[2], kind, high) for kind in kinds + kinds))
            self.up4 = Bottleneck(w[2], w[1], "up")
            self.stage4 = nn.Sequential(Bottleneck(w[1], w[1]), Bottleneck(w[1], w[1]))
            self.up5 = Bottleneck(w[1], w[0], "up")
            self.stage5 = Bottleneck(w[0], w[0])
            self.full = nn.ConvTranspose2d(w[0], n_classes, 2, 2)

        def forward(self, x):
            x = self.start(torch.cat([self.conv(x), nn.functional.max_pool2d(x, 2)], 1))
            x, where1 = self.down1(x)
            x, where2 = self.down2(self.stage1(x))
            x = self.stage4(self.up4(self.stage23(x), where2))
            return self.full(self.stage5(self.up5(x, where1)))

    return ENet()
