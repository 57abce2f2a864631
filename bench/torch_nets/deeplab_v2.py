"""DeepLab v2: ASPP and the scores' maximum over several scales, after the paper and the common PyTorch port."""

from __future__ import annotations

from bench.torch_nets import resnet
from bench.torch_nets.deeplab_v1 import classifier, vgg


def make(
    torch,
    in_channels=3,
    n_classes=21,
    width=64,
    body="resnet101",
    rates=(6, 12, 18, 24),
    scales=(1,),
    blocks=None,
    freeze_norm=False,
    dropout=0.5,
    align_corners=False,
    seed=0,
):
    nn = torch.nn

    def resized(x, size):
        return nn.functional.interpolate(x, size, mode="bilinear", align_corners=align_corners)

    class DeepLabV2(nn.Module):
        def __init__(self):
            super().__init__()
            if body == "vgg16":
                self.body = vgg(torch, in_channels, width)
                branches = [classifier(torch, width, n_classes, rate, dropout) for rate in rates]
            else:
                self.body = resnet.make(
                    torch, in_channels, 101, width, blocks,
                    caffe_style=True, ceil_mode=True, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4),
                )  # fmt: skip
                branches = [nn.Conv2d(32 * width, n_classes, 3, padding=r, dilation=r) for r in rates]
            self.aspp = nn.ModuleList(branches)
            if freeze_norm:
                for norm in self.norms():
                    norm.requires_grad_(False)

        def norms(self):
            return [m for m in self.body.modules() if isinstance(m, nn.BatchNorm2d)]

        def train(self, mode=True):
            super().train(mode)
            for norm in self.norms() if freeze_norm else ():
                norm.eval()
            return self

        def scores(self, x):
            x = self.body(x)
            x = x if body == "vgg16" else x[-1]
            return sum(branch(x) for branch in self.aspp)

        def forward(self, x):
            h, w = x.shape[2:]
            single = [self.scores(resized(x, (int(h * s), int(w * s))) if s != 1 else x) for s in scales]
            alike = [single[0], *(resized(y, single[0].shape[2:]) for y in single[1:])]
            most = torch.stack(alike).max(0).values
            if not self.training:
                return resized(most, (h, w))
            return (most, *single) if len(scales) > 1 else most

    return DeepLabV2()
