"""Weights from PyTorch arrays: by order, by name map, and what is refused. PyTorch is not needed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from minunet import nn
from minunet.interop import from_torch


class Net(nn.Module):
    def __init__(self):
        rng = np.random.default_rng(0)
        self.conv = nn.Conv2d(rng, 2, 3, (1, 5))
        self.bn = nn.BatchNorm2d(3)
        self.up = nn.ConvTranspose2d(rng, 3, 4, 2)
        self.drop = nn.Dropout(0.5, 0)


def given() -> dict[str, np.ndarray]:
    """What PyTorch's state_dict() holds for such a network, in its order and layout."""
    rng = np.random.default_rng(1)
    shapes = {
        "enc.weight": (3, 2, 1, 5),  # (O, C, KH, KW)
        "enc.bias": (3,),
        "norm.weight": (3,),
        "norm.bias": (3,),
        "norm.running_mean": (3,),
        "norm.running_var": (3,),
        "dec.weight": (3, 4, 2, 2),  # (C_in, C_out, KH, KW)
        "dec.bias": (4,),
    }
    state = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    state["norm.num_batches_tracked"] = np.array(9)
    return state


NAMES = {
    "conv.w": "enc.weight",
    "conv.b": "enc.bias",
    "bn.gamma": "norm.weight",
    "bn.beta": "norm.bias",
    "bn.running_mean": "norm.running_mean",
    "bn.running_var": "norm.running_var",
    "up.w": "dec.weight",
    "up.b": "dec.bias",
}


def check(model: Net, state: dict[str, np.ndarray]) -> None:
    own = model.state_dict()
    for name, other in NAMES.items():
        value = state[other].astype(np.float32)
        assert np.array_equal(own[name], value.transpose(0, 2, 3, 1) if value.ndim == 4 else value), name


def test_by_order():
    model, state = Net(), given()
    assert from_torch(model, state) is model
    check(model, state)
    assert model.drop.calls.tolist() == [0]
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float32)}


def test_by_name_in_any_order():
    state = given()
    model = from_torch(Net(), dict(reversed(state.items())), NAMES)
    check(model, state)


def test_the_weights_are_copied():
    model, state = Net(), given()
    from_torch(model, state)
    before = model.state_dict()
    for value in state.values():
        value[...] = 5
    after = model.state_dict()
    assert all(np.array_equal(before[k], after[k]) for k in before)


def missing(state, names):
    del state["norm.bias"]


def too_many(state, names):
    state["extra.weight"] = np.zeros(3)


def unordered(state, names):
    state["enc.weight"], state["enc.bias"] = state.pop("enc.weight"), state.pop("enc.bias")


def not_finite(state, names):
    state["norm.weight"][1] = np.nan


def wrong_shape(state, names):
    state["dec.weight"] = state["dec.weight"].transpose(1, 0, 2, 3)


def missing_by_name(state, names):
    del state["norm.running_var"]
    return names


def name_not_in_the_map(state, names):
    return {k: v for k, v in names.items() if k != "up.b"}


def unused(state, names):
    state["aux.weight"] = np.zeros(3)
    return names


@pytest.mark.parametrize(
    "breaker, words",
    [
        (missing, r"nothing given for bn\.beta"),
        (
            too_many,
            "another network: 1 batch-norm, 2 convolutions, 1 vector given, 1 batch-norm, 2 convolutions needed",
        ),
        (unordered, "another order: number 1 is norm, a batch-norm, where conv needs a convolution; pass .* names="),
        (not_finite, r"norm\.weight has shape \(3,\), bn\.gamma needs \(3,\): it holds NaN or infinity"),
        (
            wrong_shape,
            r"dec\.weight has shape \(4, 3, 2, 2\), up\.w needs \(3, 4, 2, 2\): a transposed convolution in the one",
        ),
        (missing_by_name, r"nothing given for bn\.running_var"),
        (name_not_in_the_map, r"nothing given for up\.b"),
        (unused, r"not used: aux\.weight"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(breaker, words):
    model, state = Net(), given()
    before = model.state_dict()
    names = breaker(state, NAMES)  # None: by order
    with pytest.raises(ValueError, match=words):
        from_torch(model, state, names)
    after = model.state_dict()
    assert all(np.array_equal(before[k], after[k]) for k in before)


def test_a_convolution_without_bias_has_the_bias_zero():
    model, state = Net(), given()
    model.conv.b.data[...] = 7
    del state["enc.bias"]
    from_torch(model, state)
    assert np.array_equal(model.conv.b.data, np.zeros(3, np.float32))


def test_one_slope_for_all_channels():
    model = nn.Sequential(nn.PReLU(3))
    from_torch(model, {"weight": np.array([0.125])})
    assert model[0].slope.data.tolist() == [0.125] * 3


def test_a_linear_layer_and_a_transposed_1x1_as_convolutions():
    rng = np.random.default_rng(2)
    model = nn.Sequential(nn.Conv2d(rng, 2, 3, (2, 4)), nn.Conv2d(rng, 3, 5, 1))
    linear, back = rng.normal(size=(3, 16)), rng.normal(size=(3, 5, 1, 1))  # a transposed one is (C_in, C_out, 1, 1)
    from_torch(model.astype(np.float64), {"a.weight": linear, "b.weight": back})
    assert np.array_equal(model[0].w.data, linear.reshape(3, 2, 2, 4).transpose(0, 2, 3, 1))
    assert np.array_equal(model[1].w.data[:, 0, 0], back[:, :, 0, 0].T)


def test_torch_tensors_that_want_gradients():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    state = given()
    tensors = {k: torch.tensor(v, requires_grad=v.dtype.kind == "f") for k, v in state.items()}
    check(from_torch(Net(), tensors), state)


def test_torch_is_not_imported():
    code = "import sys, minunet as mu; mu.from_torch, mu.models.build('unet', width=1); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
