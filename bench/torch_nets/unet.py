"""U-Net: the paper's figure, and the released file."""

from __future__ import annotations


def make(
    torch,
    in_channels=1,
    n_classes=2,
    width=64,
    depth=4,
    padding="valid",
    dropout=0.5,
    form="paper",
    seed=0,
):
    nn = torch.nn
    p = 1 if padding == "same" else 0
    released = form == "released"

    def block(c, o):
        return nn.Sequential(nn.Conv2d(c, o, 3, padding=p), nn.ReLU(), nn.Conv2d(o, o, 3, padding=p), nn.ReLU())

    def kept(o):  # channels that the up-convolution to level width o gives
        return 2 * o if released and o == width else o

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [width * 2**level for level in range(depth + 1)]
            self.down = nn.ModuleList(block(c, o) for c, o in zip([in_channels, *widths], widths))
            self.up = nn.ModuleList(nn.ConvTranspose2d(2 * o, kept(o), 2, 2) for o in widths[-2::-1])
            self.merge = nn.ModuleList(block(kept(o) + o, o) for o in widths[-2::-1])
            self.head = nn.Conv2d(width, n_classes, 1)
            self.drop = nn.Dropout(dropout)

        def forward(self, x):
            skips = []
            for k, down in enumerate(self.down):
                x = down(x if k == 0 else nn.functional.max_pool2d(x, 2))
                x = self.drop(x) if k >= depth - 1 else x
                skips.append(x)
            skips.pop()
            for up, merge in zip(self.up, self.merge):
                x, skip = up(x), skips.pop()
                x = x.relu() if released else x
                top, left = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
                x = merge(torch.cat([x, skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]], 1))
            return self.head(x)

    return UNet()
