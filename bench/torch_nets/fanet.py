"""FANet after the authors' training definition."""

from __future__ import annotations

from bench.torch_nets import resnet


def make(torch, in_channels=3, n_classes=19, width=64, body="resnet18", seed=0):
    nn = torch.nn

    def cbl(c, o, k=1, padding=0, last=True):
        layers = [nn.Conv2d(c, o, k, padding=padding, bias=False), nn.BatchNorm2d(o)]
        return nn.Sequential(*layers, nn.LeakyReLU(0.01)) if last else nn.Sequential(*layers)

    def zoom(x, like):
        return nn.functional.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)

    class Fusion(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.w_qs = cbl(c, width // 2, last=False)
            self.w_ks = cbl(c, width // 2, last=False)
            self.w_vs = cbl(c, c)
            self.latlayer = cbl(c, c)
            self.up = cbl(c, c // 2, padding=1)
            self.smooth = cbl(c, 2 * width, 3, padding=1)

        def forward(self, x, below=None):
            q = nn.functional.normalize(self.w_qs(x).flatten(2), dim=1)  # (N, keys, HW)
            k = nn.functional.normalize(self.w_ks(x).flatten(2), dim=1)
            table = torch.einsum("nkp,ncp->nkc", k, self.w_vs(x).flatten(2))
            y = torch.einsum("nkp,nkc->ncp", q, table).reshape(x.shape)
            y = self.latlayer(y) + x
            return y if below is None else zoom(below, y) + y

    def head(c, mid):
        return nn.Sequential(cbl(c, mid, 3, 1), nn.Conv2d(mid, n_classes, 1, bias=False))

    class FANet(nn.Module):
        def __init__(self):
            super().__init__()
            depth = int(body.removeprefix("resnet"))
            self.resnet = resnet.make(torch, in_channels, depth, width, strides=(2, 2, 2, 2), slope=0.01)
            self.ffm = nn.ModuleList(Fusion(width * 2**k) for k in (3, 2, 1, 0))
            self.clslayer_32 = head(2 * width, width)
            self.clslayer_16 = head(2 * width, width)
            self.clslayer_8 = head(4 * width, 4 * width)

        def forward(self, image):
            _, f4, f8, f16, f32 = self.resnet(image)
            p32 = self.ffm[0](f32)
            p16 = self.ffm[1](f16, self.ffm[0].up(p32))
            p8 = self.ffm[2](f8, self.ffm[1].up(p16))
            p4 = self.ffm[3](f4, self.ffm[2].up(p8))
            smooth16, smooth4 = self.ffm[1].smooth(p16), self.ffm[3].smooth(p4)
            main = zoom(self.clslayer_8(torch.cat([zoom(smooth16, smooth4), smooth4], 1)), image)
            if not self.training:
                return main
            smooth32 = self.ffm[0].smooth(p32)
            return main, zoom(self.clslayer_32(smooth32), image), zoom(self.clslayer_16(smooth16), image)

    return FANet()
