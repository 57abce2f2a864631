"""ResNet as torchvision defines it, for the mirrors whose body it is; and its basic block."""

from __future__ import annotations

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def make(
    torch,
    in_channels=3,
    depth=50,
    width=64,
    blocks=None,
    deep_stem=False,
    caffe_style=False,
    ceil_mode=False,
    strides=(1, 2, 2, 2),
    dilations=(1, 1, 1, 1),
    slope=0.0,
    eps=1e-5,
):
    """A module whose forward gives [stem, layer1, layer2, layer3, layer4].

    dilations : a number a layer, or a list with one a block, the last of which goes on
    slope : of the activations below zero; after the sums there is ReLU
    """
    nn = torch.nn

    def act(x):
        return nn.functional.leaky_relu(x, slope) if slope else x.relu()

    class Residual(nn.Module):
        def __init__(self, c, planes, stride, dilation):
            super().__init__()
            three = {"padding": dilation, "dilation": dilation, "bias": False}
            if depth < 50:
                out = planes
                convs = [nn.Conv2d(c, out, 3, stride, **three), nn.Conv2d(out, out, 3, **three)]
            else:
                out = 4 * planes
                convs = [
                    nn.Conv2d(c, planes, 1, stride if caffe_style else 1, bias=False),
                    nn.Conv2d(planes, planes, 3, 1 if caffe_style else stride, **three),
                    nn.Conv2d(planes, out, 1, bias=False),
                ]
            self.steps = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels, eps)) for conv in convs)
            self.downsample = None
            if stride > 1 or c != out:
                self.downsample = nn.Sequential(nn.Conv2d(c, out, 1, stride, bias=False), nn.BatchNorm2d(out, eps))

        def forward(self, x):
            y = x
            for k, step in enumerate(self.steps):
                y = step(y if k == 0 else act(y))
            return (y + (x if self.downsample is None else self.downsample(x))).relu()

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            if deep_stem:
                convs = [
                    nn.Conv2d(in_channels, width, 3, 2, 1, bias=False),
                    nn.Conv2d(width, width, 3, 1, 1, bias=False),
                    nn.Conv2d(width, 2 * width, 3, 1, 1, bias=False),
                ]
            else:
                convs = [nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)]
            self.stem = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels, eps)) for conv in convs)
            self.maxpool = nn.MaxPool2d(3, 2, 1, ceil_mode=ceil_mode)
            self.layers = nn.ModuleList()
            self.channels = [convs[-1].out_channels]
            for k, count in enumerate(blocks or BLOCKS[depth]):
                rates = [dilations[k]] if isinstance(dilations[k], int) else list(dilations[k])
                rates += rates[-1:] * count
                planes, row = width * 2**k, []
                for n in range(count):
                    c = self.channels[-1] if n == 0 else planes * (1 if depth < 50 else 4)
                    row.append(Residual(c, planes, strides[k] if n == 0 else 1, rates[n]))
                self.layers.append(nn.Sequential(*row))
                self.channels.append(planes * (1 if depth < 50 else 4))

        def first(self, x):
            for step in self.stem:
                x = act(step(x))
            return x

        def forward(self, x):
            maps = [self.first(x)]
            x = self.maxpool(maps[0])
            for layer in self.layers:
                x = layer(x)
                maps.append(x)
            return maps

    return ResNet()


def basic_block(torch, c):
    """The residual unit that changes nothing about the size: two 3x3 convolutions beside an identity."""
    nn = torch.nn

    class Unit(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
            self.conv2, self.bn2 = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)

        def forward(self, x):
            return (x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))).relu()

    return Unit()
