"""DeepLab v3 and v3+ after the authors' definitions, and torchvision's v3."""

from __future__ import annotations

from bench.torch_nets import resnet, xception65


def make(
    torch,
    in_channels=3,
    n_classes=21,
    width=64,
    form="v3",
    body="resnet101",
    output_stride=None,
    blocks=None,
    dropout=None,
    align_corners=False,
    seed=0,
):
    nn = torch.nn
    library, separable = form == "torchvision", body == "xception65"
    stride = output_stride or (8 if library else 16)
    rates = [6, 12, 18] if stride == 16 else [12, 24, 36]
    o, few = 4 * width, max(3 * width // 4, 1)
    layouts = {  # of layer1 to layer4
        "16": ((1, 2, 2, 1), (1, 1, 1, [2, 4, 8])),
        "8": ((1, 2, 1, 1), (1, 1, 2, [4, 8, 16])),
        "library": ((1, 2, 1, 1), (1, 1, [1, 2], [2, 4])),
    }

    def cbr(c, out, k, dilation=1):
        conv = nn.Conv2d(c, out, k, 1, dilation * (k // 2), dilation, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())

    def three(c, dilation=1):
        return xception65.separable(torch, c, o, 1, dilation, True, 1e-5) if separable else cbr(c, o, 3, dilation)

    def resize(x, size):
        return nn.functional.interpolate(x, tuple(size), mode="bilinear", align_corners=align_corners)

    class DeepLab(nn.Module):
        def __init__(self):
            super().__init__()
            if separable:
                self.body = xception65.make(torch, in_channels, width, blocks[0] if blocks else 16, stride)
                low, high = 4 * width, 32 * width
            else:
                strides, dilations = layouts["library" if library else str(stride)]
                options = {"blocks": blocks, "strides": strides, "dilations": dilations}
                self.body = resnet.make(torch, in_channels, int(body.removeprefix("resnet")), width, **options)
                low, high = self.body.channels[1], self.body.channels[-1]
            self.branches = nn.ModuleList([cbr(high, o, 1), *(three(high, rate) for rate in rates)])
            self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), cbr(high, o, 1))
            self.project = nn.Sequential(cbr(5 * o, o, 1), nn.Dropout(0.1))
            if form == "v3+":
                self.low = cbr(low, few, 1)
                self.decoder = nn.Sequential(three(o + few), three(o))
            elif library:
                self.decoder = cbr(o, o, 3)
            self.classifier = nn.Conv2d(o, n_classes, 1)
            if library:
                c = self.body.channels[3]
                self.aux = nn.Sequential(cbr(c, c // 4, 3), nn.Dropout(0.1), nn.Conv2d(c // 4, n_classes, 1))

        def forward(self, x):
            size, maps = x.shape[2:], self.body(x)
            low, high = maps if separable else (maps[1], maps[4])
            several = [branch(high) for branch in self.branches]
            mean = self.mean(high).expand(-1, -1, *high.shape[2:])
            y = self.project(torch.cat([*several, mean] if library else [mean, *several], 1))
            if form == "v3+":
                low = self.low(low)
                y = torch.cat([resize(y, low.shape[2:]), low], 1)
            y = resize(self.classifier(y if form == "v3" else self.decoder(y)), size)
            return (y, resize(self.aux(maps[3]), size)) if library and self.training else y

    return DeepLab()
