"""The networks: building them, the sizes they take, dropout. What they compute: test_models_exact, _known, _small,
_torch and _vectors; that they learn: _overfit.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from small import SMALL

from minunet import models
from minunet.backends.shapes import ShapeArray
from minunet.tensor import Tensor, no_grad

on_each_backend = pytest.mark.usefixtures("backend")


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# --- building


def test_build_remembers_what_it_was_asked():
    model = models.build("unet", 3, 5, width=2, depth=1, padding="same")
    assert model.config == {
        "model": "unet", "in_channels": 3, "n_classes": 5, "width": 2, "depth": 1, "padding": "same"
    }  # fmt: skip
    arguments = dict(model.config)
    again = models.build(arguments.pop("model"), **arguments)
    assert [p.shape for p in again.parameters()] == [p.shape for p in model.parameters()]


def test_a_seed_gives_the_same_weights():
    build = [models.build("unet", width=2, depth=2, seed=seed) for seed in (4, 4, 5)]
    for p, q, r in zip(*(m.parameters() for m in build)):
        assert np.array_equal(p.data, q.data)
        assert p.data.ndim == 1 or not np.array_equal(p.data, r.data)


def test_names():
    assert "unet" in models.names()
    assert len(set(models.names())) == len(models.names())


def test_unknown_names_list_the_nearest_first():
    with pytest.raises(ValueError, match="no network 'unett'; known: unet"):
        models.build("unett")
    with pytest.raises(ValueError, match="no argument 'widht'; it has: width, ") as caught:
        models.build("unet", widht=32)
    for known in ("depth", "padding", "dropout", "seed", "n_classes"):
        assert known in str(caught.value)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"padding": "full"}, "padding 'full'.*'valid', 'same'"),
        ({"form": "keras"}, "form 'keras'.*'paper', 'released'"),
        ({"depth": 0}, "depth.*at least 1"),
        ({"width": 0}, "width.*at least 1"),
        ({"n_classes": 0}, "n_classes.*at least 1"),
        ({"dropout": 1.0}, "1.0.*less than 1"),
    ],
)
def test_arguments_that_make_no_network(arguments, words):
    with pytest.raises(ValueError, match=words):
        models.build("unet", **({"width": 1, "depth": 1} | arguments))


# --- sizes


@pytest.mark.parametrize("size, out", [(572, 388), (188, 4), (204, 20), (700, 516)])
def test_output_sizes_of_the_paper(size, out):
    model = models.build("unet", width=1)
    assert model.output_size(size, size) == (out, out)
    assert model.output_size(size, 188) == (out, 4)
    assert model.margin(size, 188) == (92, 92)


@pytest.mark.parametrize(
    "h, w, legal",
    [
        (570, 572, "572 x 572"),
        (512, 512, "524 x 524"),
        (1, 1, "188 x 188"),
        (187, 700, "188 x 700"),
        (189, 573, "204 x 588"),
    ],
)
def test_an_illegal_size_is_refused_with_the_next_legal_one(h, w, legal):
    model = models.build("unet", width=1)
    with pytest.raises(ValueError, match=f"{h} x {w}.*{legal}"):
        model.output_size(h, w)
    with pytest.raises(ValueError, match=f"{h} x {w}.*{legal}"):
        model(image(1, h, w, 1))


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_input_size_is_the_inverse_of_output_size(depth, padding):
    model = models.build("unet", width=1, depth=depth, padding=padding)
    legal = [s for s in range(1, 320) if model.trace(s) is not None]
    assert len(legal) >= 5
    for smaller, larger in pairwise(legal):
        assert larger - smaller == 2**depth
        out = model.output_size(smaller, larger)
        assert model.input_size(*out) == (smaller, larger)  # exact
        assert model.input_size(out[0] + 1, out[1]) == (larger, larger)  # one more pixel needs the next size
        lost = 2 * np.array(model.margin(smaller, larger))
        assert np.array_equal(lost, np.subtract((smaller, larger), out))  # the same on both sides
    assert model.input_size(1, 1) == (legal[0], legal[0])


@pytest.mark.parametrize("title", SMALL)
def test_output_size_is_what_forward_gives(title):
    """At the smallest sizes that a network takes, and by shape inference, which also finds out that they can be run."""
    name, arguments, _ = SMALL[title]
    with models.shapes_only(), no_grad():
        model = models.build(name, **arguments).eval()
        legal = [s for s in range(1, 200) if model.trace(s) is not None][:5]
        assert legal
        for h, w in zip(legal, legal[::-1]):
            y = model(Tensor(ShapeArray((2, h, w, model.channels[0]))))
            assert y.shape == (2, *model.output_size(h, w), arguments["n_classes"])


@pytest.mark.parametrize("shape", [(188, 188), (188, 188, 1), (1, 1, 188, 188, 1)])
def test_an_image_needs_four_axes(shape):
    with pytest.raises(ValueError, match=f"x\\[N,H,W,C\\].*\\({', '.join(map(str, shape))}\\)"):
        models.build("unet", width=1)(np.zeros(shape, np.float32))


@on_each_backend
def test_a_wrong_number_of_channels_is_named():
    with pytest.raises(ValueError, match=r"3 channels.*expects 1"):
        models.build("unet", width=1)(image(1, 188, 188, 3))


# --- dropout


@on_each_backend
def test_dropout_acts_in_training_only():
    model, x = models.build("unet", width=2, depth=2, padding="same"), image(1, 8, 12, 1)
    first, second = model(x).numpy(), model(x).numpy()
    assert not np.array_equal(first, second)
    assert [layer.calls.tolist() for layer in model.drop] == [[2], [2]]
    model.eval()
    quiet = model(x).numpy()
    assert np.array_equal(quiet, model(x).numpy())
    without = models.build("unet", width=2, depth=2, padding="same", dropout=0.0)
    assert np.array_equal(quiet, without(x).numpy())
    again = models.build("unet", width=2, depth=2, padding="same")
    assert np.array_equal(again(x).numpy(), first)
