"""torchvision's bodies, and the ports that stand on its ResNet: its own DeepLab v3, GCN."""

from __future__ import annotations

from typing import Any

from torch_ports import conv_bn_relu, resizer


def build(torch: Any) -> dict[str, Any]:
    """{name: class}"""
    nn, fn = torch.nn, torch.nn.functional
    cbr, resized = conv_bn_relu(torch), resizer(torch)

    class Block(nn.Module):  # torchvision's BasicBlock and Bottleneck
        def __init__(self, i, w, s, d, wide, caffe=False):
            super().__init__()
            o = 4 * w if wide else w
            kinds = [(i, w, 1, 1, 1), (w, w, 3, s, d), (w, o, 1, 1, 1)] if wide else [(i, w, 3, s, d), (w, w, 3, 1, d)]
            self.count = len(kinds)
            for k, (a, b, size, stride, dilation) in enumerate(kinds, 1):
                setattr(self, f"conv{k}", cbr(a, b, size, stride, d=dilation, bias=False)[0])
                setattr(self, f"bn{k}", nn.BatchNorm2d(b))
            self.downsample = nn.Sequential(*cbr(i, o, 1, s, bias=False, relu=False)) if s > 1 or i != o else None

        def forward(self, x):
            y = x
            for k in range(1, self.count + 1):
                y = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(y))
                y = fn.relu(y) if k < self.count else y
            return fn.relu(y + (self.downsample(x) if self.downsample else x))

    class ResNet(nn.Module):  # torchvision's; with `deep`, TorchSeg's
        def __init__(self, c, w, blocks, wide, strides=(1, 2, 2, 2), dilations=((1,),) * 4, deep=False, classes=0):
            super().__init__()
            i = 2 * w if deep else w
            three = [*cbr(c, w, s=2, bias=False), *cbr(w, w, bias=False), cbr(w, i, bias=False)[0]]
            self.conv1 = nn.Sequential(*three) if deep else nn.Conv2d(c, w, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(i)
            for k in range(4):
                o, d = (4 * w if wide else w) << k, dilations[k]
                layer = [Block(i, w << k, strides[k], d[0], wide)]
                layer += [Block(o, w << k, 1, d[-1], wide) for _ in range(blocks[k] - 1)]
                setattr(self, f"layer{k + 1}", nn.Sequential(*layer))
                i = o
            if classes:
                self.fc = nn.Linear(i, classes)

        def forward(self, x):
            maps = [fn.relu(self.bn1(self.conv1(x)))]
            x = fn.max_pool2d(maps[0], 3, 2, 1)
            for k in range(1, 5):
                x = getattr(self, f"layer{k}")(x)
                maps.append(x)
            return maps

    class Vgg(nn.Module):  # torchvision's vgg16 and vgg16_bn, for images of 32 size
        def __init__(self, c, w, norm, fc, size=7):
            super().__init__()
            layers = []
            for stage in ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8)):
                for unit in stage:
                    full = cbr(c, w * unit)
                    layers += full if norm else [full[0], full[2]]
                    c = w * unit
                layers.append(nn.MaxPool2d(2))
            self.features = nn.Sequential(*layers)
            relu, drop = nn.ReLU(), nn.Dropout()
            head = (nn.Linear(c * size * size, fc), relu, drop, nn.Linear(fc, fc), relu, drop, nn.Linear(fc, 10))
            self.classifier = nn.Sequential(*head)

    class TvDeepLab(nn.Module):  # torchvision's deeplabv3
        def __init__(self, c, classes, w, blocks):
            super().__init__()
            dilations = ((1,), (1,), (1, 2), (2, 4))
            self.backbone = ResNet(c, w, blocks, True, (1, 2, 1, 1), dilations)
            o, deep = 4 * w, 32 * w
            aspp = nn.Module()
            branches = [nn.Sequential(*cbr(deep, o, 1, bias=False))]
            branches += [nn.Sequential(*cbr(deep, o, 3, d=d, bias=False)) for d in (12, 24, 36)]
            branches.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), *cbr(deep, o, 1, bias=False)))
            aspp.convs = nn.ModuleList(branches)
            aspp.project = nn.Sequential(*cbr(5 * o, o, 1, bias=False), nn.Dropout(0.5))
            self.classifier = nn.Sequential(aspp, *cbr(o, o, bias=False), nn.Conv2d(o, classes, 1))
            self.aux_classifier = nn.Sequential(
                *cbr(16 * w, 4 * w, bias=False), nn.Dropout(0.1), nn.Conv2d(4 * w, classes, 1)
            )

        def forward(self, x):
            y = self.backbone(x)[-1]
            aspp, rest = self.classifier[0], self.classifier[1:]
            maps = [conv(y) for conv in aspp.convs]
            maps[-1] = resized(maps[-1], y.shape[2:], False)
            return resized(rest(aspp.project(torch.cat(maps, 1))), x.shape[2:], False)

    class Deng(nn.Module):  # ZijunDeng/pytorch-semantic-segmentation, GCN
        def __init__(self, c, classes, w, blocks, k):
            super().__init__()
            net, p = ResNet(c, w, blocks, True), k // 2
            self.layer0 = nn.Sequential(net.conv1, net.bn1, nn.ReLU())
            self.layer1 = nn.Sequential(nn.MaxPool2d(3, 2, 1), net.layer1)
            self.layer2, self.layer3, self.layer4 = net.layer2, net.layer3, net.layer4
            for n in range(1, 5):
                m, i = nn.Module(), 64 * w >> n
                m.conv_l1, m.conv_l2 = (
                    nn.Conv2d(i, classes, (k, 1), 1, (p, 0)),
                    nn.Conv2d(classes, classes, (1, k), 1, (0, p)),
                )
                m.conv_r1, m.conv_r2 = (
                    nn.Conv2d(i, classes, (1, k), 1, (0, p)),
                    nn.Conv2d(classes, classes, (k, 1), 1, (p, 0)),
                )
                setattr(self, f"gcm{n}", m)
            for n in range(1, 10):
                m = nn.Module()
                m.conv1, m.conv2 = cbr(classes, classes)[0], cbr(classes, classes)[0]
                setattr(self, f"brm{n}", m)

        def forward(self, x):
            def gcm(n, x):
                m = getattr(self, f"gcm{n}")
                return m.conv_l2(m.conv_l1(x)) + m.conv_r2(m.conv_r1(x))

            def brm(n, x):
                m = getattr(self, f"brm{n}")
                return x + m.conv2(fn.relu(m.conv1(x)))

            maps = [x]
            for k in range(5):
                maps.append(getattr(self, f"layer{k}")(maps[-1]))
            levels = [brm(n, gcm(n, maps[6 - n])) for n in range(1, 5)]
            y = levels[0]
            for n in range(1, 4):
                y = brm(n + 4, resized(y, levels[n].shape[2:]) + levels[n])
            y = brm(8, resized(y, maps[1].shape[2:]))
            return brm(9, resized(y, x.shape[2:]))

    return {name: value for name, value in locals().items() if isinstance(value, type)}
