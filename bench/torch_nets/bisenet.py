"""BiSeNet after TorchSeg, the first author's code."""

from __future__ import annotations

from bench.torch_nets import resnet


def xception39(torch, in_channels, width):
    """Forward gives the maps at 1/8, 1/16 and 1/32."""
    nn = torch.nn

    def separable(c, o, stride=1, last=()):
        depthwise = nn.Conv2d(c, c, 3, stride, 1, groups=c, bias=False)
        return nn.Sequential(depthwise, nn.Conv2d(c, o, 1, bias=False), nn.BatchNorm2d(o), *last)

    class Block(nn.Module):
        def __init__(self, c, mid, stride):
            super().__init__()
            self.proj = separable(c, 4 * mid, stride) if stride == 2 else nn.Identity()
            self.residual_branch = nn.Sequential(
                separable(c, mid, stride, [nn.ReLU()]), separable(mid, mid, 1, [nn.ReLU()]), separable(mid, 4 * mid)
            )

        def forward(self, x):
            return (self.proj(x) + self.residual_branch(x)).relu()

    class Xception(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(in_channels, width, 3, 2, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.layers, c = nn.ModuleList(), width
            for mid, count in ((2 * width, 4), (4 * width, 8), (8 * width, 4)):
                row = [Block(c if k == 0 else 4 * mid, mid, 2 if k == 0 else 1) for k in range(count)]
                self.layers.append(nn.Sequential(*row))
                c = 4 * mid
            self.channels = [8 * width, 16 * width, 32 * width]

        def forward(self, x):
            x, maps = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1), []
            for layer in self.layers:
                x = layer(x)
                maps.append(x)
            return maps

    return Xception()


def make(torch, in_channels=3, n_classes=19, width=64, body="resnet18", seed=0):
    nn = torch.nn

    def cbr(c, o, k=3, stride=1, last=True):
        layers = [nn.Conv2d(c, o, k, stride, k // 2, bias=False), nn.BatchNorm2d(o)]
        return nn.Sequential(*layers, nn.ReLU()) if last else nn.Sequential(*layers)

    def zoom(x, like):
        return nn.functional.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)

    class Attention(nn.Module):
        def __init__(self, c, o):
            super().__init__()
            self.conv_3x3 = cbr(c, o)
            self.channel_attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), cbr(o, o, 1, last=False), nn.Sigmoid())

        def forward(self, x):
            x = self.conv_3x3(x)
            return x * self.channel_attention(x)

    class Fusion(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.conv_1x1 = cbr(c, c, 1)
            self.channel_attention = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(c, c, 1, bias=False),
                nn.ReLU(),
                nn.Conv2d(c, c, 1, bias=False),
                nn.Sigmoid(),
            )

        def forward(self, spatial, context):
            x = self.conv_1x1(torch.cat([spatial, context], 1))
            return x + x * self.channel_attention(x)

    def head(c, mid):
        return nn.Sequential(cbr(c, mid), nn.Conv2d(mid, n_classes, 1))

    class BiSeNet(nn.Module):
        def __init__(self):
            super().__init__()
            if body == "xception39":
                self.context_path = xception39(torch, in_channels, width // 8)
            elif body == "resnet18":
                self.context_path = resnet.make(torch, in_channels, 18, width)
            else:
                self.context_path = resnet.make(torch, in_channels, 101, width, deep_stem=True)
            mid16, mid32 = self.context_path.channels[-2:]
            c, aux = 2 * width, 2 * width if body == "xception39" else 4 * width
            self.spatial_path = nn.Sequential(
                cbr(in_channels, width, 7, 2), cbr(width, width, 3, 2), cbr(width, width, 3, 2), cbr(width, c, 1)
            )
            self.global_context = nn.Sequential(nn.AdaptiveAvgPool2d(1), cbr(mid32, c, 1))
            self.ffm = Fusion(2 * c)
            self.arms = nn.ModuleList([Attention(mid32, c), Attention(mid16, c)])
            self.refines = nn.ModuleList([cbr(c, c), cbr(c, c)])
            main = 4 * width if body == "resnet101" else width
            self.heads = nn.ModuleList([head(c, aux), head(c, aux), head(2 * c, main)])

        def forward(self, image):
            spatial = self.spatial_path(image)
            at8, at16, at32 = self.context_path(image)[-3:]
            x, passed = self.global_context(at32), []  # one pixel: the sum below repeats it
            for fm, larger, arm, refine in zip((at32, at16), (at16, at8), self.arms, self.refines):
                x = refine(zoom(arm(fm) + x, larger))
                passed.append(x)
            maps = [self.ffm(spatial, x), *passed]
            maps = [zoom(head(m), image) for head, m in zip([self.heads[2], *self.heads[:2]], maps)]
            return tuple(maps) if self.training else maps[0]

    return BiSeNet()
