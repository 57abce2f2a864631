"""RedNet for colours and depth, after the authors' definition."""

from __future__ import annotations

from bench.torch_nets import resnet


def make(
    torch,
    in_channels=3,
    n_classes=37,
    width=64,
    depth=50,
    blocks=None,
    units=(6, 4, 3, 3, 3),
    seed=0,
):
    nn = torch.nn

    class TransUp(nn.Module):
        def __init__(self, c, o):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
            self.conv2 = nn.ConvTranspose2d(c, o, 3, 2, padding=1, output_padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(o)
            self.upsample = nn.Sequential(nn.ConvTranspose2d(c, o, 2, 2, bias=False), nn.BatchNorm2d(o))

        def forward(self, x):
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            return (y + self.upsample(x)).relu()

    def stage(c, o, count):
        return nn.Sequential(*(resnet.basic_block(torch, c) for _ in range(count - 1)), TransUp(c, o))

    class RedNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.rgb = resnet.make(torch, in_channels, depth, width, blocks)
            self.d = resnet.make(torch, 1, depth, width, blocks)
            w, c = width, self.rgb.channels
            self.deconv1 = stage(8 * w, 4 * w, units[0])
            self.deconv2 = stage(4 * w, 2 * w, units[1])
            self.deconv3 = stage(2 * w, w, units[2])
            self.deconv4 = stage(w, w, units[3])
            self.agent = nn.ModuleList(
                nn.Sequential(nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
                for i, o in zip(c, (w, w, 2 * w, 4 * w, 8 * w))
            )
            self.final_conv = nn.Sequential(*(resnet.basic_block(torch, w) for _ in range(units[4])))
            self.final_deconv = nn.ConvTranspose2d(w, n_classes, 2, 2)
            self.out5 = nn.Conv2d(4 * w, n_classes, 1)
            self.out4 = nn.Conv2d(2 * w, n_classes, 1)
            self.out3 = nn.Conv2d(w, n_classes, 1)
            self.out2 = nn.Conv2d(w, n_classes, 1)

        def forward(self, x):
            rgb, d = x[:, :in_channels], x[:, in_channels:]
            if d.shape[1] == 0:
                d = rgb.mean(1, keepdim=True)
            rgb, d = self.rgb.first(rgb), self.d.first(d)
            fuse = [rgb + d]
            rgb, d = self.rgb.maxpool(fuse[0]), self.d.maxpool(d)
            for rgb_layer, d_layer in zip(self.rgb.layers, self.d.layers):
                rgb, d = rgb_layer(rgb), d_layer(d)
                rgb = rgb + d
                fuse.append(rgb)
            a0, a1, a2, a3, a4 = (agent(m) for agent, m in zip(self.agent, fuse))
            y5 = self.deconv1(a4)
            y4 = self.deconv2(y5 + a3)
            y3 = self.deconv3(y4 + a2)
            y2 = self.deconv4(y3 + a1)
            y = self.final_deconv(self.final_conv(y2 + a0))
            if not self.training:
                return y
            return y, self.out2(y2), self.out3(y3), self.out4(y4), self.out5(y5)

    return RedNet()
