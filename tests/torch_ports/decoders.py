"""Ports with decoders of their own: FusionNet, SegNet, FCN, DeconvNet, U-Net; names only of RED-Net."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch_ports import conv_bn_relu, resizer


def build(torch: Any) -> dict[str, Any]:
    """{name: class}"""
    nn, fn = torch.nn, torch.nn.functional
    cbr, resized = conv_bn_relu(torch), resizer(torch)

    class Choi(nn.Module):  # GunhoChoi/FusionNet-Pytorch
        def __init__(self, c, classes, w):
            super().__init__()
            leaky = nn.LeakyReLU(0.2)

            def block(i, o, act):
                m = nn.Module()
                m.conv_1 = nn.Sequential(*cbr(i, o)[:2], act)
                three = [nn.Sequential(*cbr(o, o)[:2], act) for _ in range(2)]
                m.conv_2 = nn.Sequential(*three, *cbr(o, o)[:2])
                m.conv_3 = nn.Sequential(*cbr(o, o)[:2], act)
                return m

            def up(i, o):
                return nn.Sequential(*cbr(i, o, up=nn.ConvTranspose2d(i, o, 3, 2, 1, 1)))

            widths = [w << k for k in range(5)]
            for k in range(4):
                setattr(self, f"down_{k + 1}", block([c, *widths][k], widths[k], leaky))
            self.bridge = block(widths[3], widths[4], leaky)
            for k, o in enumerate(reversed(widths[:4]), 1):
                setattr(self, f"deconv_{k}", up(2 * o, o))
                setattr(self, f"up_{k}", block(o, o, nn.ReLU()))
            self.out = nn.Conv2d(w, classes, 3, padding=1)

        def forward(self, x):
            def block(m, x):
                x = m.conv_1(x)
                return m.conv_3(x + m.conv_2(x))

            skips = []
            for k in range(1, 5):
                skips.append(block(getattr(self, f"down_{k}"), x))
                x = fn.max_pool2d(skips[-1], 2)
            x = block(self.bridge, x)
            for k in range(1, 5):
                x = block(getattr(self, f"up_{k}"), (getattr(self, f"deconv_{k}")(x) + skips.pop()) / 2)
            return torch.tanh(self.out(x))

    class Numbered(nn.Module):  # SegNet with conv11, bn11, ... conv12d, conv11d
        def __init__(self, c, classes, stages):
            super().__init__()
            self.stages, names = stages, []
            for s, stage in enumerate(stages, 1):
                for k, o in enumerate(stage, 1):
                    names.append((f"{s}{k}", c, o))
                    c = o
            for name, i, o in names:
                self.add(name, i, o)
            for name, i, o in reversed(names[1:]):
                self.add(f"{name}d", o, i)
            self.conv11d = nn.Conv2d(names[0][2], classes, 3, padding=1)

        def add(self, name, i, o):
            setattr(self, f"conv{name}", nn.Conv2d(i, o, 3, padding=1))
            setattr(self, f"bn{name}", nn.BatchNorm2d(o))

        def run(self, name, x):
            return fn.relu(getattr(self, f"bn{name}")(getattr(self, f"conv{name}")(x)))

        def forward(self, x):
            kept = []
            for s, stage in enumerate(self.stages, 1):
                for k in range(1, len(stage) + 1):
                    x = self.run(f"{s}{k}", x)
                size = x.shape[2:]
                x, places = fn.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
                kept.append((places, size))
            for s in range(len(self.stages), 0, -1):
                places, size = kept.pop()
                x = fn.max_unpool2d(x, places, 2, 2, output_size=size)
                for k in range(len(self.stages[s - 1]), 1 if s == 1 else 0, -1):
                    x = self.run(f"{s}{k}d", x)
            return self.conv11d(x)

    class Kentaro(nn.Module):  # wkentaro/pytorch-fcn, FCN8s
        counts = (2, 2, 3, 3, 3)

        def __init__(self, c, classes, widths, fc):
            super().__init__()
            for s, (count, o) in enumerate(zip(self.counts, widths), 1):
                for k in range(1, count + 1):
                    setattr(self, f"conv{s}_{k}", nn.Conv2d(c, o, 3, padding=100 if s == k == 1 else 1))
                    c = o
            self.fc6, self.fc7 = nn.Conv2d(c, fc, 7), nn.Conv2d(fc, fc, 1)
            self.score_fr = nn.Conv2d(fc, classes, 1)
            self.score_pool3, self.score_pool4 = nn.Conv2d(widths[2], classes, 1), nn.Conv2d(widths[3], classes, 1)
            self.upscore2 = nn.ConvTranspose2d(classes, classes, 4, 2, bias=False)
            self.upscore8 = nn.ConvTranspose2d(classes, classes, 16, 8, bias=False)
            self.upscore_pool4 = nn.ConvTranspose2d(classes, classes, 4, 2, bias=False)

        def forward(self, x):
            def window(x, at, like):
                return x[:, :, at : at + like.shape[2], at : at + like.shape[3]]

            image, pools = x, []
            for s, count in enumerate(self.counts, 1):
                for k in range(1, count + 1):
                    x = fn.relu(getattr(self, f"conv{s}_{k}")(x))
                x = fn.max_pool2d(x, 2, 2, ceil_mode=True)
                pools.append(x)
            x = self.upscore2(self.score_fr(fn.relu(self.fc7(fn.relu(self.fc6(x))))))
            x = self.upscore_pool4(x + window(self.score_pool4(pools[3]), 5, x))
            return window(self.upscore8(x + window(self.score_pool3(pools[2]), 9, x)), 31, image)

    class Lee(nn.Module):  # Jasonlee1995/DeconvNet
        def __init__(self, c, classes, stages, fc, kernel):
            super().__init__()
            self.count = len(stages)
            for s, stage in enumerate(stages, 1):
                pairs = list(zip((c, *stage), stage))
                setattr(self, f"conv{s}", nn.Sequential(*(m for i, o in pairs for m in cbr(i, o))))
                c = stage[-1]
            self.conv67 = nn.Sequential(*cbr(c, fc, kernel, p=0), *cbr(fc, fc, 1))
            self.deconv67 = nn.Sequential(*cbr(fc, c, up=nn.ConvTranspose2d(fc, c, kernel)))
            for s in range(len(stages), 0, -1):
                stage = stages[s - 1]
                back = [*reversed(stage), stages[s - 2][-1] if s > 1 else stage[0]]
                ups = [cbr(i, o, up=nn.ConvTranspose2d(i, o, 3, 1, 1)) for i, o in pairwise(back)]
                last = [nn.ConvTranspose2d(back[-1], classes, 1)] if s == 1 else []
                setattr(self, f"deconv{s}", nn.Sequential(*(m for up in ups for m in up), *last))

        def forward(self, x):
            kept = []
            for s in range(1, self.count + 1):
                x, places = fn.max_pool2d(getattr(self, f"conv{s}")(x), 2, return_indices=True)
                kept.append(places)
            x = self.deconv67(self.conv67(x))
            for s in range(self.count, 0, -1):
                x = getattr(self, f"deconv{s}")(fn.max_unpool2d(x, kept.pop(), 2))
            return x

    class Milesial(nn.Module):  # milesial/Pytorch-UNet
        def __init__(self, c, classes, w, bilinear=False):
            super().__init__()
            self.bilinear = bilinear

            def double(i, o, mid=None):
                m, mid = nn.Module(), mid or o
                m.double_conv = nn.Sequential(*cbr(i, mid, bias=False), *cbr(mid, o, bias=False))
                return m

            f = 2 if bilinear else 1
            self.inc = double(c, w)
            for k in range(1, 5):
                m, o = nn.Module(), (w << k) // (f if k == 4 else 1)
                m.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), double(w << (k - 1), o))
                setattr(self, f"down{k}", m)
            for k in range(1, 5):
                m, i = nn.Module(), w << (5 - k)
                if not bilinear:
                    m.up = nn.ConvTranspose2d(i, i // 2, 2, 2)
                m.conv = double(i, i // 2 // (f if k < 4 else 1), i // 2 if bilinear else None)
                setattr(self, f"up{k}", m)
            self.outc = nn.Module()
            self.outc.conv = nn.Conv2d(w, classes, 1)

        def forward(self, x):
            maps = [self.inc.double_conv(x)]
            for k in range(1, 5):
                pool, double = getattr(self, f"down{k}").maxpool_conv
                maps.append(double.double_conv(pool(maps[-1])))
            x = maps.pop()
            for k in range(1, 5):
                m, skip = getattr(self, f"up{k}"), maps.pop()
                x = resized(x, [2 * n for n in x.shape[2:]]) if self.bilinear else m.up(x)
                dh, dw = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
                x = fn.pad(x, (dw // 2, dw - dw // 2, dh // 2, dh - dh // 2))
                x = m.conv.double_conv(torch.cat([skip, x], 1))
            return self.outc.conv(x)

    class Yjn(nn.Module):  # yjn870/REDNet-pytorch
        def __init__(self, c, w, depth):
            super().__init__()
            half = depth // 2
            convs = [nn.Sequential(nn.Conv2d(c if k == 0 else w, w, 3, padding=1), nn.ReLU()) for k in range(half)]
            ups = [nn.Sequential(nn.ConvTranspose2d(w, w, 3, padding=1), nn.ReLU()) for _ in range(half - 1)]
            self.conv_layers = nn.Sequential(*convs)
            self.deconv_layers = nn.Sequential(*ups, nn.ConvTranspose2d(w, c, 3, padding=1))

    return {name: value for name, value in locals().items() if isinstance(value, type)}
