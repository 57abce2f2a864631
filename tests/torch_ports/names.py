"""Names only: RedNet, DeepLab v1 and v2, BiSeNet, DFN and FANet as their ports call the layers."""

from __future__ import annotations

from typing import Any

from torch_ports import conv_bn_relu


def build(torch: Any, known: dict[str, Any]) -> dict[str, Any]:
    """{name: function that makes the port}; `known`: bodies.py's classes."""
    nn, resnet, block = torch.nn, known["ResNet"], known["Block"]
    cbr = conv_bn_relu(torch)

    def module(**children):
        m = nn.Module()
        for name, child in children.items():
            m.add_module(name, child)
        return m

    def conv(i, o, k=1, bias=False):
        return nn.Conv2d(i, o, k, padding=k // 2, bias=bias)

    def named(i, o, k=3, s=1, groups=1):  # conv, bn
        return module(**dict(zip(("conv", "bn"), cbr(i, o, k, s, bias=False, groups=groups))))

    def jiang(c, classes, w, blocks, units):  # JindongJiang/RedNet
        def same(i, o, up):
            m = block(i, i, 1, 1, False)
            m.conv2 = nn.ConvTranspose2d(i, o, 3, 2, 1, 1, bias=False) if up else m.conv2
            m.bn2, m.downsample = nn.BatchNorm2d(o), None
            m.upsample = nn.Sequential(*cbr(i, o, up=nn.ConvTranspose2d(i, o, 2, 2, bias=False))[:2]) if up else None
            return m

        net = resnet(c, w, blocks, True)
        depth = resnet(1, w, blocks, True)
        for name, child in list(depth.named_children()):
            net.add_module(f"{name}_d", child)
        skips = [w, w, 2 * w, 4 * w, 8 * w]
        for k, n in enumerate(units[:4], 1):
            i, o = skips[5 - k], skips[4 - k]
            net.add_module(f"deconv{k}", nn.Sequential(*(same(i, i, False) for _ in range(n - 1)), same(i, o, True)))
        for k, (i, o) in enumerate(zip([w, 4 * w, 8 * w, 16 * w, 32 * w], skips)):
            net.add_module(f"agant{k}", nn.Sequential(*cbr(i, o, 1, bias=False)))
        net.final_conv = nn.Sequential(*(same(w, w, False) for _ in range(units[4])))
        net.final_deconv = nn.ConvTranspose2d(w, classes, 2, 2)
        for k, i in zip((5, 4, 3, 2), (4 * w, 2 * w, w, w)):
            net.add_module(f"out{k}_conv", conv(i, classes, bias=True))
        return net

    def kazuto(c, classes, w, blocks, old=False):  # kazuto1011/deeplab-pytorch, DeepLabV2
        shortcut, net, i = "proj" if old else "shortcut", nn.Sequential(), w
        net.add_module("layer1", module(conv1=named(c, w, 7, 2)))
        for k, n in enumerate(blocks):
            mid, o, layer = w << k, 4 * w << k, nn.Sequential()
            for b in range(1, n + 1):
                m = module(reduce=named(i, mid, 1), conv3x3=named(mid, mid), increase=named(mid, o, 1))
                if b == 1:
                    m.add_module(shortcut, named(i, o, 1))
                layer.add_module(f"block{b}", m)
                i = o
            net.add_module(f"layer{k + 2}", layer)
        branches = module(**{f"c{k}": conv(i, classes, 3, bias=True) for k in range(4)})
        net.add_module("aspp", module(stages=branches) if old else branches)
        return module(scale=net) if old else module(base=net)

    def cheung(c, classes, w):  # CoinCheung/Deeplab-Large-FOV
        fc = (nn.AvgPool2d(3), conv(8 * w, 16 * w, 3, True), nn.ReLU(), conv(16 * w, 16 * w, 1, True), nn.ReLU())
        classifier = nn.Sequential(*fc, nn.Dropout(), conv(16 * w, classes, 1, True))
        return module(features=known["Vgg"](c, w, False, 1).features, classifier=classifier)

    def xception39(c, w):
        def separable(i, o, s=1):
            return module(conv1=nn.Conv2d(i, i, 3, s, 1, groups=i, bias=False), point_wise_cbr=named(i, o, 1))

        net, i = module(conv1=named(c, w, 3, 2)), w
        for k, n in enumerate((4, 8, 4)):
            mid, layer = 2 * w << k, []
            for b in range(n):
                s = 2 if b == 0 else 1
                three = separable(i, mid, s), separable(mid, mid), separable(mid, 4 * mid)
                layer.append(module(**({"proj": separable(i, 4 * mid, 2)} if b == 0 else {})))
                layer[-1].residual_branch = nn.Sequential(*three)
                i = 4 * mid
            net.add_module(f"layer{k + 1}", nn.Sequential(*layer))
        return net

    def bisenet(c, classes, body):  # ycszen/TorchSeg, BiSeNet at its own width
        net = resnet(c, 64, (2, 2, 2, 2), False) if body == "resnet18" else xception39(c, 8)
        fine, coarse, wide = (256, 512, 256) if body == "resnet18" else (128, 256, 128)

        def head(i, o):
            return module(conv_3x3=named(i, o), conv_1x1=conv(o, classes, bias=True))

        def arm(i):
            return module(conv_3x3=named(i, 128), channel_attention=nn.Sequential(nn.Identity(), named(128, 128, 1)))

        gate = nn.Sequential(nn.Identity(), module(conv=conv(256, 256)), module(conv=conv(256, 256)))
        spatial = {"conv_7x7": named(c, 64, 7), "conv_3x3_1": named(64, 64), "conv_3x3_2": named(64, 64)}
        return module(
            context_path=net,
            spatial_path=module(**spatial, conv_1x1=named(64, 128, 1)),
            global_context=nn.Sequential(nn.AdaptiveAvgPool2d(1), named(coarse, 128, 1)),
            ffm=module(conv_1x1=named(256, 256, 1), channel_attention=gate),
            arms=nn.ModuleList([arm(coarse), arm(fine)]),
            refines=nn.ModuleList([named(128, 128), named(128, 128)]),
            heads=nn.ModuleList([head(128, wide), head(128, wide), head(256, 64)]),
        )

    def dfn(c, classes, w, blocks, border):  # ycszen/TorchSeg, DFN
        def rrb(i, o):
            return module(conv_1x1=conv(i, o), cbr=named(o, o), conv_refine=conv(o, o, 3))

        def head(i, n):
            return module(rrb=rrb(i, 9 * n), conv=conv(9 * n, n, bias=True))

        smooth, up = 8 * w, [4 * w, 8 * w, 16 * w, 32 * w]

        def cab():
            fc = nn.Linear(2 * smooth, smooth), nn.ReLU(), nn.Linear(smooth, smooth)
            return module(channel_attention=module(fc=nn.Sequential(*fc)))

        lists = {
            "smooth_pre_rrbs": [rrb(i, smooth) for i in reversed(up)],
            "cabs": [cab() for _ in up],
            "smooth_aft_rrbs": [rrb(smooth, smooth) for _ in up],
            "smooth_heads": [head(smooth, classes) for _ in up],
            "border_pre_rrbs": [rrb(i, border) for i in up],
            "border_aft_rrbs": [rrb(border, border) for _ in up],
            "border_heads": [head(border, 1) for _ in up],
        }
        context = nn.Sequential(nn.AdaptiveAvgPool2d(1), named(up[-1], smooth, 1))
        children = {name: nn.ModuleList(layers) for name, layers in lists.items()}
        return module(backbone=resnet(c, w, blocks, True, deep=True), global_context=context, **children)

    def fanet(c, classes, w):  # feinanshan/FANet
        net = module(resnet=resnet(c, w, (2, 2, 2, 2), False, (2, 2, 2, 2)))
        for stride, i in (32, 8 * w), (16, 4 * w), (8, 2 * w), (4, w):
            ones = {"w_qs": w // 2, "w_ks": w // 2, "w_vs": i, "latlayer3": i, "up": i // 2}
            layers = {name: named(i, o, 1) for name, o in ones.items()}
            net.add_module(f"ffm_{stride}", module(**layers, smooth=named(i, 2 * w)))
        for stride, i, o in (32, 2 * w, w), (16, 2 * w, w), (8, 4 * w, 4 * w):
            net.add_module(f"clslayer_{stride}", module(conv=named(i, o), conv_out=conv(o, classes)))
        return net

    return {
        "jiang": jiang,
        "kazuto": kazuto,
        "cheung": cheung,
        "bisenet": bisenet,
        "dfn": dfn,
        "fanet": fanet,
    }
