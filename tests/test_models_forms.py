"""What the family's table and the vectors leave open of FCN, DeconvNet, ZF_UNET, U-Net-same, ENet, BiSeNet and FANet:
the parameters of their other forms, which sizes they take, how they start, what their optimiser is told, what they
refuse.
"""

from __future__ import annotations

import numpy as np
import pytest

from minunet import backends, models, nn
from minunet.backends.shapes import ShapeArray
from minunet.tensor import Tensor, no_grad

TINY = {"in_channels": 2, "n_classes": 3, "widths": (2, 2, 2, 2, 3), "fc": 3}


@pytest.mark.parametrize(
    ("name", "arguments", "trained", "frozen"),
    [
        ("fcn", {"form": "32s", "learned": True}, 136_152_917, 0),
        ("fcn", {"form": "16s", "learned": True}, 134_815_994, 0),
        ("fcn", {"form": "8s", "learned": True}, 134_489_759, 0),
        ("fcn", {"form": "8s", "at_once": True}, 134_362_751, 127_008),
        ("unet_same", {"n_classes": 2, "form": "milesial"}, 31_037_698, 0),
        ("unet_same", {"n_classes": 2, "form": "milesial", "bilinear": True}, 17_263_042, 0),
        ("enet", {"n_classes": 12}, 363_728, 0),
        ("enet", {"n_classes": 11}, 363_663, 0),
        ("bisenet", {"body": "resnet101"}, 48_239_417, 0),
        ("fanet", {"body": "resnet34"}, 24_078_336, 0),
    ],
)
def test_parameters_of_other_forms(name, arguments, trained, frozen):
    with models.shapes_only():
        parameters = models.build(name, **arguments).parameters()
    assert sum(p.data.size for p in parameters if p.requires_grad) == trained
    assert sum(p.data.size for p in parameters if not p.requires_grad) == frozen


@pytest.mark.parametrize(("name", "less"), [("bisenet", 13_494_777 - 12_894_163), ("fanet", 13_970_176 - 13_820_032)])
def test_auxiliary_heads_are_counted_and_not_run_in_evaluation(name, less):
    with models.shapes_only(), no_grad():
        model = models.build(name)
        heads = model.auxiliary if name == "fanet" else model.heads[:2]
        assert sum(p.data.size for head in heads for p in head.parameters()) == less
        x = Tensor(ShapeArray((2, 64, 128, 3)))
        with backends.count() as training:
            main, *others = model(x)
        with backends.count() as evaluation:
            y = model.eval()(x)
    assert [y.shape, *(a.shape for a in others)] == [main.shape] * 3
    assert evaluation.by_kernel["conv2d"][0] == training.by_kernel["conv2d"][0] - 4  # calls: two layers a head


@pytest.mark.parametrize(
    ("name", "arguments", "legal", "not_legal"),
    [
        ("fcn", {"width": 1}, (1, 2, 31, 32, 33, 63, 65, 97, 500), (0,)),
        ("fcn", {"width": 1, "form": "16s"}, (1, 2, 15, 17, 31, 33, 65, 500), (0,)),
        ("fcn", {"width": 1, "form": "32s"}, (1, 2, 31, 32, 33, 65, 500), (0,)),
        ("deconvnet", {"width": 1}, (224, 256, 320), (192, 225, 240)),
        ("zf_unet", {"width": 1}, (32, 64, 224), (16, 33, 48)),
        ("unet_same", {"width": 1}, (16, 48, 512), (8, 24, 17)),
        ("unet_same", {"width": 1, "form": "milesial"}, (16, 17, 31, 45, 63), (15,)),
        ("unet_same", {"width": 1, "form": "milesial", "bilinear": True}, (16, 17, 31, 45, 63), (15,)),
        ("enet", {}, (8, 24, 512), (4, 12, 33)),
        ("bisenet", {"width": 8}, (8, 24, 40, 1024), (4, 12, 33)),
        ("bisenet", {"width": 8, "body": "xception39"}, (8, 24, 40), (4, 12)),
        ("fanet", {"width": 2}, (1, 2, 31, 63, 65, 130, 511), (0,)),
    ],
)
def test_sizes(name, arguments, legal, not_legal):
    """Every legal height with every other legal width gives an output as large, in training too."""
    with models.shapes_only(), no_grad():
        model = models.build(name, **arguments)
        for h, w in zip(legal, reversed(legal)):
            maps = model.train()(Tensor(ShapeArray((2, h, w, 3))))
            for y in maps if isinstance(maps, tuple) else (maps,):
                assert y.shape == (2, h, w, model.config["n_classes"])
            assert model.eval()(Tensor(ShapeArray((1, h, w, 3)))).shape[1:3] == (h, w) == model.output_size(h, w)
    for size in not_legal:
        assert model.trace(size) is None


def test_fcn_starts_with_scores_of_zero():
    """Scoring layers are zero, so whatever the image, there is nothing to see; the kernels' gradient is not wanted."""
    model = models.build("fcn", **TINY)
    with backends.use_backend("reference"):
        y = model(Tensor(np.ones((1, 4, 5, 2), np.float32)))
        y.backward(np.ones(y.shape, np.float32))
    assert not y.numpy().any()
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == [
        "upscore2.w",
        "upscore8.w",
        "upscore_pool4.w",
    ]
    assert model.upscore8.w.grad is None
    assert model.score_fr.w.grad is not None


def test_fcn_at_once_scales_the_pools_before_they_are_scored():
    """It is the network whose pool4 scores have 0.01 times the weights, and pool3's 0.0001 times."""
    usual, at_once = (models.build("fcn", **TINY, at_once=a).astype(np.float64).eval() for a in (False, True))
    rng = np.random.default_rng(0)
    for p, q in zip(usual.parameters(), at_once.parameters()):
        if p.requires_grad:
            p.data[...] = rng.normal(size=p.shape)
        q.data[...] = p.data
    usual.score_pool4.w.data *= 0.01
    usual.score_pool3.w.data *= 0.0001
    x = rng.normal(size=(1, 6, 3, 2))
    with backends.use_backend("reference"), no_grad():
        y, known = at_once(Tensor(x)).numpy(), usual(Tensor(x)).numpy()
    error = np.abs(y - known).max() / np.abs(known).max()
    assert np.isfinite(error)
    assert error <= 1e-12


def test_biases_learn_at_twice_the_rate_and_do_not_decay():
    for name in ("fcn", "deconvnet"):
        with models.shapes_only():
            model = models.build(name, width=1)
        normal = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
        for p in model.parameters():
            rates = (2.0, 0.0) if p.data.ndim == 1 and id(p) not in normal else (1.0, 1.0)
            assert (p.lr_factor, p.decay_factor) == rates
    for name in ("bisenet", "fanet"):
        with models.shapes_only():
            model = models.build(name, width=8)
        assert {(p.data.ndim, p.lr_factor, p.decay_factor) for p in model.parameters()} == {(1, 1, 0), (4, 1, 1)}


def test_deconvnet_starts_small():
    model = models.build("deconvnet", width=4)
    assert all(np.allclose(m.beta.data, 0.001) for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    w = np.concatenate([m.w.data.ravel() for m in model.modules() if isinstance(m, nn.ConvTranspose2d)])
    assert abs(w.std() / 0.01 - 1) <= 0.05
    assert abs(model.encoder[4][0].conv.w.data.std() / np.sqrt(2 / (9 * 32)) - 1) <= 0.05


def test_fanet_starts_as_a_linear_layer_should():
    w = models.build("fanet", width=8).head[0].conv.w.data
    assert abs(w.std() * np.sqrt(w[0].size) - 1) <= 0.05


def test_zf_unet_drops_where_its_form_says():
    with models.shapes_only():
        seed, head = (models.build("zf_unet", form=form, dropout=0.1) for form in ("seed", "head"))
    assert sum(isinstance(m, nn.DropoutChannels) for m in seed.modules()) == 0
    assert sum(isinstance(m, nn.Dropout) for m in seed.modules()) == 10
    assert not any(isinstance(m, nn.Dropout) for m in seed.up[-1].modules())
    drops = [m for m in head.modules() if isinstance(m, nn.Dropout)]
    assert drops == [head.up[-1][-1]]
    assert isinstance(drops[0], nn.DropoutChannels)


def test_enet_drops_less_in_its_first_stage():
    with models.shapes_only():
        model = models.build("enet")
    rates = [m.rate for m in model.modules() if isinstance(m, nn.DropoutChannels)]
    assert rates == [0.01] * 5 + [0.1] * 17
    assert len({m.seed for m in model.modules() if isinstance(m, nn.DropoutChannels)}) == 22


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("fcn", {"form": "4s"}, "'4s' is unknown"),
        ("fcn", {"form": "16s", "at_once": True}, "at_once"),
        ("fcn", {"widths": (2, 3)}, "5 stages"),
        ("fcn", {"fc": 0}, "fc is 0"),
        ("deconvnet", {"widths": ((2, 2), ())}, "one number in each"),
        ("deconvnet", {"fc_kernel": 0}, "fc_kernel is 0"),
        ("zf_unet", {"form": "tail"}, "'tail' is unknown"),
        ("unet_same", {"bilinear": True}, "milesial"),
        ("enet", {"widths": (8, 16)}, "three widths"),
        ("enet", {"in_channels": 16}, "more than the 16 channels"),
        ("enet", {"widths": (16, 8, 8)}, "must not decrease"),
        ("bisenet", {"body": "resnet19"}, "'resnet19' is unknown"),
        ("fanet", {"body": "resnet50"}, "'resnet50' is unknown"),
        ("fanet", {"width": 1}, "at least 2"),
    ],
)
def test_what_is_refused(name, arguments, message):
    with models.shapes_only(), pytest.raises(ValueError, match=message):
        models.build(name, **arguments)
