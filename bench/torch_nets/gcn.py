"""GCN, after the paper's figure and the common PyTorch ports."""

from __future__ import annotations

from bench.torch_nets import resnet


def make(
    torch,
    in_channels=3,
    n_classes=21,
    width=64,
    depth=152,
    k=15,
    upsampling="bilinear",
    align_corners=True,
    blocks=None,
    seed=0,
):
    nn = torch.nn
    p = (k - 1) // 2

    class Global(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.conv_l1 = nn.Conv2d(c, n_classes, (k, 1), padding=(p, 0))
            self.conv_l2 = nn.Conv2d(n_classes, n_classes, (1, k), padding=(0, p))
            self.conv_r1 = nn.Conv2d(c, n_classes, (1, k), padding=(0, p))
            self.conv_r2 = nn.Conv2d(n_classes, n_classes, (k, 1), padding=(p, 0))

        def forward(self, x):
            return self.conv_l2(self.conv_l1(x)) + self.conv_r2(self.conv_r1(x))

    class Refine(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(n_classes, n_classes, 3, padding=1)
            self.conv2 = nn.Conv2d(n_classes, n_classes, 3, padding=1)

        def forward(self, x):
            return x + self.conv2(self.conv1(x).relu())

    class GCN(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = resnet.make(torch, in_channels, depth, width, blocks)
            _, c1, c2, c3, c4 = self.body.channels
            self.gcm = nn.ModuleList(Global(c) for c in (c4, c3, c2, c1))
            self.brm = nn.ModuleList(Refine() for _ in range(9))
            if upsampling == "deconvolution":
                self.up = nn.ModuleList(nn.ConvTranspose2d(n_classes, n_classes, 4, 2, 1, bias=False) for _ in range(5))

        def larger(self, n, y, like):
            if upsampling == "deconvolution":
                return self.up[n](y)
            return nn.functional.interpolate(y, like.shape[2:], mode="bilinear", align_corners=align_corners)

        def forward(self, x):
            f0, f1, f2, f3, f4 = self.body(x)
            g4, g3, g2, g1 = (self.brm[n](self.gcm[n](f)) for n, f in enumerate((f4, f3, f2, f1)))
            y = self.brm[4](self.larger(0, g4, f3) + g3)
            y = self.brm[5](self.larger(1, y, f2) + g2)
            y = self.brm[6](self.larger(2, y, f1) + g1)
            y = self.brm[7](self.larger(3, y, f0))
            return self.brm[8](self.larger(4, y, x))

    return GCN()
