"""Prediction: any size, one window or many, against mirroring and cropping by hand."""

from __future__ import annotations

import numpy as np
import pytest
from predictions import close, network, picture

import minunet as mu
from minunet import footprint, ops, tiled
from minunet.data import symmetries
from minunet.errors import UserError
from minunet.nn import BatchNorm2d
from minunet.predict import main, predict

pytestmark = pytest.mark.usefixtures("reference")


def direct(model, x: np.ndarray) -> np.ndarray:
    """softmax(model(x)) of one legal input (h, w) or (h, w, C)."""
    model.eval()
    x = x if x.ndim == 3 else x[:, :, None]
    return ops.softmax(model(mu.Tensor(np.ascontiguousarray(x[None])))).numpy()[0]


def test_valid_network_is_mirrored_by_its_margin():
    model = network(np.float64, depth=2)
    image = picture(67, 50)
    h, w = model.input_size(67, 50)
    top, left = model.margin(h, w)
    padded = np.pad(image, ((top, h - 67 - top), (left, w - 50 - left)), mode="reflect")
    p = predict(model, image)
    assert close(p, direct(model, padded)[:67, :50], 1e-12) and p.dtype == np.float64
    assert close(p.sum(axis=2), np.ones((67, 50)), 1e-12)


def test_same_network_is_mirrored_to_a_legal_size():
    model = network(np.float64, depth=2, padding="same", n_classes=3)
    image = picture(31, 42)
    assert close(predict(model, image), direct(model, np.pad(image, ((0, 1), (0, 2)), mode="reflect"))[:31, :42], 1e-12)
    assert close(predict(model, image[:28, :40]), direct(model, image[:28, :40]), 1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_tiled_equals_untiled(depth, dtype, tolerance):
    model = network(dtype, depth=depth)
    image = picture(75, 58)
    whole = predict(model, image)
    assert whole.dtype == dtype
    for tile in (33, (20, 58), (np.int64(90), 17)):
        calls = []
        p = predict(model, image, tile=tile, progress=lambda *n, calls=calls: calls.append(n))
        assert close(p, whole, tolerance)
        assert len(calls) > 1 and calls == [(k + 1, len(calls)) for k in range(len(calls))]


def test_a_shifted_window_would_differ():
    """The test above can fail: windows that start off the pools' grid give other values."""
    model = network(np.float64, depth=2)
    image = picture(90, 90)
    h = model.input_size(40, 40)[0]
    margin = model.margin(h, h)[0]
    whole = predict(model, image)
    for start, equal in ((4, True), (5, False)):
        window = np.pad(image, margin, mode="reflect")[start : start + h, :h]
        p = direct(model, window)[:40, :40]
        assert close(p, whole[start : start + 40, :40], 1e-12) == equal


@pytest.mark.parametrize("depth", [1, 2])
def test_tiled_same_network_agrees_where_the_context_suffices(depth):
    model = network(np.float64, depth=depth, padding="same")
    image = picture(301, 19)
    assert len(tiled.layout(model, (301, 19), (40, 40)).targets) > 1
    assert close(predict(model, image, tile=40), predict(model, image), 1e-12)


@pytest.mark.parametrize("average", [1, 8])
def test_same_layout_covers_once_keeps_its_context_and_the_border(average):
    model = network(padding="same", depth=3)
    for size, tile in [((800, 300), (320, 320)), ((1000, 17), (1, 1)), ((401, 407), (56, 100)), ((9, 9), (500, 500))]:
        count = np.zeros(size, int)
        plan = tiled.layout(model, size, tile, average)
        for target in plan.targets:
            a, b, kh, kw = target
            count[a : a + kh, b : b + kw] += 1
            for k, (_, skipped, _, _) in enumerate(plan.windows(target)):
                turned_size = size if k % 2 == 0 else size[::-1]
                whole = model.input_size(*turned_size)
                place = tiled.turned(target, size, k)
                sides = plan.sides if k % 2 == 0 else plan.sides[::-1]
                assert model.output_size(*sides) == sides
                for start, skip, kept, side, end in zip(place, skipped, place[2:], sides, whole):
                    first = start - skip
                    assert first >= 0 and first % 8 == 0 and first + side <= end
                    assert first == 0 or skip >= tiled.CONTEXT
                    assert first + side == end or side - skip - kept >= tiled.CONTEXT
        assert (count == 1).all()


@pytest.mark.parametrize("average", [1, 8])
def test_valid_layout_covers_once_on_the_grid_of_each_version(average):
    model = network(depth=2)
    for size, tile in [((75, 58), (33, 20)), ((31, 90), (1, 1)), ((9, 9), (500, 500)), ((64, 65), (16, 16))]:
        count = np.zeros(size, int)
        plan = tiled.layout(model, size, tile, average)
        for target in plan.targets:
            count[tuple(slice(i, i + n) for i, n in zip(target, target[2:]))] += 1
            for k, (_, skipped, _, _) in enumerate(plan.windows(target)):
                place = tiled.turned(target, size, k)
                outs = model.output_size(*(plan.sides if k % 2 == 0 else plan.sides[::-1]))
                for start, skip, kept, out in zip(place, skipped, place[2:], outs):
                    assert (start - skip) % 4 == 0 and skip >= 0 and skip + kept <= out
        assert (count == 1).all()


def test_turned_boxes_are_where_the_pixels_go():
    x = np.arange(5 * 7).reshape(5, 7)
    box = (1, 2, 3, 4)
    for k, (apply, _) in enumerate(symmetries(8)):
        y = apply(x)
        i, j, h, w = tiled.turned(box, (5, 7), k)
        assert np.array_equal(y[i : i + h, j : j + w], apply(x[1:4, 2:6]))
        assert tiled.unturned((i, j, h, w), y.shape, k) == box


def test_worked_example_of_targets():
    axis = tiled.Axis(n=800, whole=800, side=512, out=512, stride=16, context=96)
    assert axis.targets(0) == [(0, 384), (384, 416)]
    assert [axis.window(start) for start in (0, 384)] == [(0, 0), (288, 96)]
    axis = tiled.Axis(n=300, whole=484, side=316, out=132, stride=16, context=0)
    assert axis.targets(0) == [(0, 128), (128, 128), (256, 44)] and axis.window(128) == (36, 0)


def test_fast_backend_agrees():
    image = picture(61, 70).astype(np.float32)
    for padding in ("valid", "same"):
        model = network(depth=2, padding=padding)
        expected = predict(model, image)
        with mu.use_backend("cpu"):
            assert close(predict(model, image), expected, 1e-5)
            assert close(predict(model, image, tile=20), expected, 1e-5)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 61), (40, 3)])
def test_tiny_images(padding, size):
    model = network(depth=3, padding=padding)
    p = predict(model, picture(*size), average=8)
    assert p.shape == (*size, 2) and p.dtype == np.float32
    assert close(p.sum(axis=2), np.ones(size, np.float32), 1e-6)


def test_colour_and_odd_inputs_are_taken_and_left_unchanged():
    model = network(in_channels=3, n_classes=4)
    image = np.asfortranarray(picture(23, 38, 3))
    before = image.copy()
    p = predict(model, image[::-1])
    assert np.array_equal(image, before) and p.shape == (23, 38, 4) and p.flags.c_contiguous
    assert np.array_equal(p, predict(model, np.ascontiguousarray(image[::-1]).astype(np.float32)))
    counts = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(predict(network(), counts), predict(network(), counts.astype(np.float32)))


def test_average_is_the_mean_over_the_symmetries():
    model = network(np.float64, depth=2)
    image = picture(26, 35)
    expected = np.zeros((26, 35, 2))
    for flip in (False, True):
        for turns in range(4):
            x = np.rot90(image[:, ::-1] if flip else image, turns)
            p = np.rot90(predict(model, np.ascontiguousarray(x)), -turns)
            expected += (p[:, ::-1] if flip else p) / 8
    calls = []
    p = predict(model, image, tile=(14, 20), average=8, progress=lambda *n: calls.append(n))
    assert close(p, expected, 1e-12) and not close(p, predict(model, image), 1e-3)
    assert calls == [(k + 1, len(calls)) for k in range(len(calls))]
    turned = predict(model, np.ascontiguousarray(np.rot90(image)), average=8)
    assert close(np.rot90(p), turned, 1e-12)


def test_one_output_is_a_sigmoid():
    model = network(np.float64, n_classes=1, padding="same")
    image = picture(12, 14)
    logits = model.eval()(mu.Tensor(image[None, :, :, None])).numpy()[0]
    assert close(predict(model, image), 1 / (1 + np.exp(-logits)), 1e-12)


def test_mode_flags_and_tape_are_left_as_they_were(monkeypatch):
    model = network(dropout=0.5)
    model.norm = BatchNorm2d(2)
    model.norm.eval()  # frozen by its owner
    flags = [m.training for m in model.modules()]
    a, b = predict(model, picture(9, 9)), predict(model, picture(9, 9))
    assert np.array_equal(a, b)  # no dropout
    assert [m.training for m in model.modules()] == flags and True in flags and False in flags
    assert all(p.grad is None for p in model.parameters()) and all(d.calls[0] == 0 for d in model.drop)

    def broken(x):
        raise RuntimeError("no")

    monkeypatch.setattr(model, "forward", broken)
    with pytest.raises(RuntimeError):
        predict(model, picture(9, 9))
    assert [m.training for m in model.modules()] == flags


def test_windows_keep_to_the_memory(monkeypatch):
    for padding in ("valid", "same"):
        model = network(padding=padding, depth=2, width=4)
        assert len(tiled.layout(model, (700, 600)).targets) == 1
        most = footprint.activations(model, (328, 328))
        plan = tiled.layout(model, (700, 600), memory=most)
        assert plan.sides == (328, 328) and footprint.activations(model, (332, 332)) > most
        monkeypatch.setattr(tiled, "MEMORY", 1)  # not enough for anything: the smallest window that works
        assert len(tiled.layout(model, (700, 600)).targets) > 100
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((0, 5)), {}, "no image"),
        (np.zeros(5), {}, "no image"),
        (np.zeros((2, 2), complex), {}, "no image"),
        (np.zeros((3, 20, 21)), {}, "has 21 channels .* takes 1; .* section by section"),
        (np.array([[1.0, np.nan]]), {}, "NaN"),
        (np.zeros((5, 5)), {"tile": 0}, "tile: 0 must be at least 1"),
        (np.zeros((5, 5)), {"average": 9}, "9 asked for, but there are 8"),
        (np.zeros((5, 5)), {"average": 0}, "0 asked for"),
    ],
)
def test_errors_say_what_to_do(image, options, message):
    with pytest.raises(UserError, match=message):
        predict(network(), image, **options)


def test_the_module_is_the_function():
    model, image = network(), picture(11, 13)
    assert np.array_equal(mu.predict(model, image, tile=8), predict(model, image, 8))
    import minunet.predict  # noqa: F401 (binds the name again)

    assert mu.predict(model, image).shape == (11, 13, 2) and mu.predict.main is main
