"""FusionNet: the listing with strided convolutions and ELU, the article, and the common PyTorch port."""

from __future__ import annotations


def make(torch, in_channels=3, n_classes=12, width=64, depth=4, form="seed", seed=0):
    nn = torch.nn
    article, port = form == "article", form == "port"
    act_down = nn.LeakyReLU(0.2) if port else nn.ReLU()
    act_up = nn.ELU() if form == "seed" else nn.ReLU()

    def unit(conv, act):
        """conv, batch-norm, activation; in the article conv, activation, batch-norm."""
        norm = nn.BatchNorm2d(conv.out_channels)
        return nn.Sequential(conv, act, norm) if article else nn.Sequential(conv, norm, act)

    def conv(c, o, act, stride=1):
        return unit(nn.Conv2d(c, o, 3, stride, 1), act)

    class Residual(nn.Module):
        def __init__(self, c, o, act):
            super().__init__()
            last = nn.ReLU() if article else nn.Identity()
            self.first = conv(c, o, act)
            self.beside = nn.Sequential(conv(o, o, act), conv(o, o, act), conv(o, o, last))
            self.last = conv(o, o, act)

        def forward(self, x):
            x = self.first(x)
            return self.last(x + self.beside(x))

    class FusionNet(nn.Module):
        def __init__(self):
            super().__init__()
            steps, c = [], in_channels
            for level in range(depth):
                o = width * 2**level
                half = conv(o, o, act_down, 2) if form == "seed" else nn.MaxPool2d(2)
                steps.append(nn.ModuleList([Residual(c, o, act_down), half]))
                c = o
            self.down = nn.ModuleList(steps)
            self.bridge = Residual(c, 2 * c, act_down)
            steps = []
            for level in reversed(range(depth)):
                o = width * 2**level
                wide = unit(nn.ConvTranspose2d(2 * o, o, 3, 2, 1, output_padding=1), act_up)
                steps.append(nn.ModuleList([wide, Residual(o, o, act_up)]))
            self.up = nn.ModuleList(steps)
            self.out = nn.Conv2d(width, n_classes, 3, 1, 1)

        def forward(self, x):
            skips = []
            for block, half in self.down:
                skips.append(block(x))
                x = half(skips[-1])
            x = self.bridge(x)
            for wide, block in self.up:
                both = wide(x) + skips.pop()
                x = block(both if article else both / 2)
            x = self.out(x)
            return torch.tanh(x) if port else x

    return FusionNet()
