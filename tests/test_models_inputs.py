"""Networks on a ResNet or VGG body: forms that the table of variants leaves out, what they take, what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from minunet import backends, models, nn
from minunet.tensor import Tensor, no_grad

ONE = {"blocks": (1, 1, 1, 1), "width": 2}
REDNET = ONE | {"n_classes": 3, "units": (1, 1, 1, 1, 1)}


@pytest.fixture(autouse=True)
def _judge():
    with backends.use_backend("reference"):
        yield


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=shape)


def small(name: str, **arguments) -> models.Network:
    return models.build(name, **arguments).astype(np.float64).eval()


@pytest.mark.parametrize(
    ("name", "arguments", "parameters"),
    [
        ("gcn", {"k": 7}, 59_369_620),
        ("gcn", {"depth": 50}, 26_052_308),
        ("gcn", {"upsampling": "deconvolution"}, 60_723_364),
        ("dfn", {"n_classes": 19}, 90_217_888),
        ("dfn", {"deep_stem": False}, 90_600_568),
        ("rednet_restoration", {"in_channels": 3, "n_classes": 3, "stride": 2}, 1_037_507),
    ],
)
def test_published_parameters_of_other_forms(name, arguments, parameters):
    with models.shapes_only():
        assert sum(p.data.size for p in models.build(name, **arguments).parameters()) == parameters


def test_rednet_takes_depth_as_a_channel_or_by_itself():
    model = small("rednet", **REDNET)
    x = images(1, 32, 64, 4)
    with no_grad():
        one = model(Tensor(x)).numpy()
        two = model(Tensor(x[..., :3].copy()), Tensor(x[..., 3:].copy())).numpy()
        other = model(Tensor(np.concatenate([x[..., :3], x[..., 3:] + 1], axis=3))).numpy()
    assert np.array_equal(one, two)
    assert np.abs(one - other).max() > 1e-3


def test_rednet_without_depth_uses_the_mean_of_the_colours():
    model = small("rednet", **REDNET)
    x = images(1, 32, 32, 3)
    with no_grad():
        found = model(Tensor(x)).numpy()
        known = model(Tensor(np.concatenate([x, x.mean(axis=3, keepdims=True)], axis=3))).numpy()
    np.testing.assert_allclose(found, known, rtol=0, atol=1e-12 * np.abs(known).max())
    assert model.channels == (4, 3)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_rednet_refuses_other_numbers_of_channels(channels):
    with pytest.raises(ValueError, match=f"rednet: {channels} channels"):
        small("rednet", **REDNET)(Tensor(images(1, 32, 32, channels)))


def test_restoration_starts_from_the_image():
    """Without its last layer's weights RED-Net gives the image back."""
    model = small("rednet_restoration", in_channels=2, n_classes=2, width=2, depth=6, stride=2)
    model.deconv[-1].w.data[...] = 0
    x = images(2, 6, 10, 2)
    assert np.array_equal(model(Tensor(x)).numpy(), x)
    with pytest.raises(ValueError, match="next legal size is 8 x 10"):
        model(Tensor(images(1, 7, 10, 2)))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("deeplab_v1", {"width": 1}),
        ("deeplab_v2", ONE),
        ("deeplab_v2", {"width": 1, "body": "vgg16"}),
        ("gcn", ONE | {"k": 3}),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (5, 33), (34, 2)])
def test_any_size(name, arguments, size):
    model = small(name, in_channels=2, n_classes=3, **arguments)
    with no_grad():
        y = model(Tensor(images(1, *size, 2))).numpy()
    assert y.shape == (1, *size, 3)
    assert np.isfinite(y).all()


def test_several_scales_take_the_maximum_of_the_scores():
    arguments = {"in_channels": 3, "n_classes": 3, "rates": (1, 2), "seed": 4, **ONE}
    several, one = (small("deeplab_v2", scales=scales, **arguments) for scales in ((1, 0.5), (1,)))
    x = images(1, 32, 48, 3)
    half = x.reshape(1, 16, 2, 24, 2, 3).mean(axis=(2, 4))  # bilinear, factor 1/2: the mean of two by two
    with no_grad():
        for model in (several, one):
            for module in model.modules():
                module.training = not isinstance(module, nn.BatchNorm2d)  # scores, by the running statistics
        most, full, halved = (y.numpy() for y in several(Tensor(x)))
        np.testing.assert_allclose(full, one(Tensor(x)).numpy(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(halved, one(Tensor(half)).numpy(), rtol=0, atol=1e-12)
    assert most.shape == full.shape == (1, 5, 7, 3)
    assert (most >= full - 1e-12).all()
    assert (most > full + 1e-6).any()
    assert several.trace(1) is None
    assert several.trace(2) == 2


def test_frozen_batch_norm_stays():
    model = models.build("deeplab_v2", freeze_norm=True, n_classes=2, rates=(1,), **ONE)
    before = {name: b.copy() for name, b in model.named_buffers()}
    model.train()(Tensor(images(2, 16, 16, 3).astype(np.float32)))
    assert before
    for name, b in model.named_buffers():
        assert np.array_equal(b, before[name])
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert len(frozen) == 2 * sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_learning_rates_of_the_definitions():
    v1 = models.build("deeplab_v1", width=1)
    fc8, fc7 = v1.head.fc8, v1.head.fc7
    assert (fc8.w.lr_factor, fc8.b.lr_factor, fc7.w.lr_factor, fc7.b.lr_factor) == (10, 20, 1, 2)
    assert (fc8.w.decay_factor, fc8.b.decay_factor) == (1, 0)
    dfn = models.build("dfn", **ONE)
    assert {p.lr_factor for name, p in dfn.named_parameters() if name.startswith("body.")} == {1}
    assert {p.lr_factor for name, p in dfn.named_parameters() if not name.startswith("body.")} == {10}


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("rednet", {"units": (1, 1, 1)}, "units has 3"),
        ("rednet", {"units": (1, 1, 0, 1, 1)}, "units is 0"),
        ("rednet_restoration", {"n_classes": 2}, "n_classes is 2"),
        ("rednet_restoration", {"depth": 7}, "depth is 7"),
        ("rednet_restoration", {"stride": 3}, "stride 3"),
        ("deeplab_v1", {"rate": 0}, "rate is 0"),
        ("deeplab_v2", {"body": "vgg19"}, "body 'vgg19'"),
        ("deeplab_v2", {"rates": ()}, "rates is 0"),
        ("deeplab_v2", {"scales": ()}, "scales"),
        ("deeplab_v2", {"scales": (1, 0)}, "scales"),
        ("gcn", {"k": 4}, "k is 4"),
        ("gcn", {"upsampling": "nearest"}, "upsampling 'nearest'"),
        ("dfn", {"border": 0}, "border is 0"),
    ],
)
def test_wrong_arguments(name, arguments, says):
    with models.shapes_only(), pytest.raises(ValueError, match=f"{name}: .*{says}"):
        models.build(name, **arguments)
