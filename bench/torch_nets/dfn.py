"""DFN, after the authors' code."""

from __future__ import annotations

from bench.torch_nets import resnet


def make(
    torch,
    in_channels=3,
    n_classes=21,
    width=64,
    depth=101,
    border=21,
    deep_stem=True,
    blocks=None,
    seed=0,
):
    nn = torch.nn
    smooth = 8 * width

    def zoom(x, factor):
        return nn.functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True)

    def cbr(c, o, k):
        return nn.Sequential(nn.Conv2d(c, o, k, padding=k // 2, bias=False), nn.BatchNorm2d(o), nn.ReLU())

    class RRB(nn.Module):
        def __init__(self, c, o, last=True):
            super().__init__()
            self.conv_1x1 = nn.Conv2d(c, o, 1, bias=False)
            self.cbr = cbr(o, o, 3)
            self.conv_refine = nn.Conv2d(o, o, 3, padding=1, bias=False)
            self.last = nn.ReLU() if last else nn.Identity()

        def forward(self, x):
            x = self.conv_1x1(x)
            return self.last(self.conv_refine(self.cbr(x)) + x)

    class CAB(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(2 * smooth, smooth, 1),
                nn.ReLU(),
                nn.Conv2d(smooth, smooth, 1),
                nn.Sigmoid(),
            )

        def forward(self, low, high):
            return low * self.fc(torch.cat([low, high], 1)) + high

    class Head(nn.Module):
        def __init__(self, c, o, factor):
            super().__init__()
            self.rrb, self.conv, self.factor = RRB(c, 9 * o, False), nn.Conv2d(9 * o, o, 1), factor

        def forward(self, x):
            return zoom(self.conv(self.rrb(x)), self.factor)

    class DFN(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = resnet.make(torch, in_channels, depth, width, blocks, deep_stem=deep_stem)
            stage = self.backbone.channels[1:]
            self.global_context = nn.Sequential(nn.AdaptiveAvgPool2d(1), cbr(stage[3], smooth, 1))
            self.smooth_pre = nn.ModuleList(RRB(c, smooth) for c in stage[::-1])
            self.cabs = nn.ModuleList(CAB() for _ in range(4))
            self.smooth_aft = nn.ModuleList(RRB(smooth, smooth) for _ in range(4))
            self.smooth_heads = nn.ModuleList(Head(smooth, n_classes, 2 ** (5 - i)) for i in range(4))
            self.border_pre = nn.ModuleList(RRB(c, border) for c in stage)
            self.border_aft = nn.ModuleList(RRB(border, border) for _ in range(4))
            self.border_heads = nn.ModuleList(Head(border, 1, 4) for _ in range(4))

        def forward(self, x):
            maps = self.backbone(x)[1:]
            last, smooth_out = self.global_context(maps[3]), []
            last = last.expand(-1, -1, *maps[3].shape[2:])
            for i in range(4):
                y = self.smooth_aft[i](self.cabs[i](self.smooth_pre[i](maps[3 - i]), last))
                smooth_out.append(self.smooth_heads[i](y))
                last = zoom(y, 2)
            if not self.training:
                return smooth_out[3]
            y, border_out = None, []
            for i in range(4):
                edge = self.border_pre[i](maps[i])
                y = edge if i == 0 else self.border_aft[i](y + zoom(edge, 2**i))
                border_out.append(self.border_heads[i](y))
            return *smooth_out[::-1], *border_out

    return DFN()
