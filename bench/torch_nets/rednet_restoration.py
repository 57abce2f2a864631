"""RED-Net, after its paper and the common PyTorch port, without the port's last ReLU."""

from __future__ import annotations


def make(torch, in_channels=1, n_classes=1, width=64, depth=30, stride=1, seed=0):
    nn = torch.nn
    count = depth // 2

    class REDNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.deconv = nn.ModuleList(), nn.ModuleList()
            for k in range(count):
                self.conv.append(nn.Conv2d(width if k else in_channels, width, 3, 1 if k else stride, padding=1))
            for _ in range(count - 1):
                self.deconv.append(nn.ConvTranspose2d(width, width, 3, padding=1))
            self.deconv.append(nn.ConvTranspose2d(width, in_channels, 3, stride, padding=1, output_padding=stride - 1))

        def forward(self, x):
            image, skips = x, []
            for k, conv in enumerate(self.conv, start=1):
                x = conv(x).relu()
                if k % 2 == 0 and k < count:  # of 15: 2, 4 ... 14
                    skips.append(x)
            *inner, last = self.deconv
            for k, deconv in enumerate(inner, start=1):
                x = deconv(x).relu()
                if k % 2 == count % 2:  # of 15: 1, 3 ... 13
                    x = (x + skips.pop()).relu()
            return last(x) + image

    return REDNet()
