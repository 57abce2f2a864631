"""Module and layers: names, state, modes, what a layer computes."""

from __future__ import annotations

import numpy as np
import pytest

from minunet import nn, ops
from minunet.nn import init
from minunet.tensor import Tensor

pytestmark = pytest.mark.usefixtures("backend")


class Small(nn.Module):
    """A bit of everything; one slope is set before the layers, one after them."""

    def __init__(self, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.first = nn.Parameter(init.ones((3,)))
        self.conv = nn.Conv2d(rng, 2, 3, 3, padding="same")
        self.blocks = [nn.BatchNorm2d(3, activation="relu"), nn.Conv2d(rng, 3, 3, 1, bias=False)]
        self.last = nn.Parameter(init.zeros((3,)))
        self.name = "not a parameter"
        self.drop = nn.Dropout(0.5, seed)

    def forward(self, x: Tensor) -> Tensor:
        x = ops.prelu(self.conv(x), self.first)
        for block in self.blocks:
            x = block(x)
        return self.drop(ops.prelu(x, self.last))


NAMES = ["first", "last", "conv.w", "conv.b", "blocks.0.gamma", "blocks.0.beta", "blocks.1.w"]
BUFFERS = ["blocks.0.running_mean", "blocks.0.running_var", "drop.calls"]


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, 5, 4, 2)).astype(np.float32)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return list(a) == list(b) and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


# --- names


def test_names_are_in_order_of_definition():
    """A module's own parameters first, then its children's, each in the order in which they were set."""
    model = Small()
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert [name for name, _ in model.named_buffers()] == BUFFERS
    assert list(model.state_dict()) == NAMES + BUFFERS
    assert [p is q for p, (_, q) in zip(model.parameters(), model.named_parameters())] == [True] * len(NAMES)
    assert [type(m).__name__ for m in model.modules()] == ["Small", "Conv2d", "BatchNorm2d", "Conv2d", "Dropout"]


def test_parameters_want_gradients_and_buffers_do_not():
    model = Small()
    model(image()).backward(np.ones((2, 5, 4, 3), np.float32))
    assert all(p.requires_grad and p.grad.shape == p.shape for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Module"):
        nn.Module()(image())


# --- state


def test_state_is_a_copy_and_goes_back():
    a, b = Small(0), Small(1)
    a(image())  # moves running statistics and the dropout's count
    state = a.state_dict()
    assert not same(state, b.state_dict())
    b.load_state_dict(state)
    assert same(state, b.state_dict())
    a(image())
    a.load_state_dict(state)  # untouched by that step
    assert same(state, b.state_dict())
    assert np.array_equal(a.eval()(image()).numpy(), b.eval()(image()).numpy())
    state["conv.w"][...] = 7
    assert not (a.conv.w.data == 7).any()
    assert not (b.conv.w.data == 7).any()


def test_loading_writes_into_the_same_arrays():
    """Optimisers and views hold on to them."""
    model = Small()
    before = [p.data for p in model.parameters()]
    model.load_state_dict(Small(1).state_dict())
    assert [p.data is a for p, a in zip(model.parameters(), before)] == [True] * len(before)


def broken_states():
    def without(state):
        del state["conv.b"]

    def renamed(state):
        state["conv.bias"] = state.pop("conv.b")

    def reshaped(state):
        state["blocks.1.w"] = state["blocks.1.w"][:, 0]

    def no_buffer(state):
        del state["drop.calls"]

    yield without, r"1 tensors missing \(conv\.b\), 0 unknown \(none\)"
    yield renamed, r"1 tensors missing \(conv\.b\), 1 unknown \(conv\.bias\)"
    yield reshaped, r"blocks\.1\.w has shape \(3, 1, 3\).*needs \(3, 1, 1, 3\)"
    yield no_buffer, r"drop\.calls"
    yield dict.clear, r"10 tensors missing \(first, last, conv\.w, \.\.\.\)"


@pytest.mark.parametrize("breaker, words", list(broken_states()))
def test_a_wrong_state_is_refused_and_changes_nothing(breaker, words):
    model, state = Small(0), Small(1).state_dict()
    before = model.state_dict()
    breaker(state)
    with pytest.raises(ValueError, match=words):
        model.load_state_dict(state)
    assert same(before, model.state_dict())


def test_astype():
    model = Small()
    model(image()).backward(np.ones((2, 5, 4, 3), np.float32))
    assert model.astype(np.float64) is model
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}
    assert all(p.grad is None for p in model.parameters())  # a float32 gradient cannot be added to
    dtypes = {name: b.dtype for name, b in model.named_buffers()}
    assert dtypes == dict(zip(BUFFERS, (np.float64, np.float64, np.int64)))
    x = image().astype(np.float64)
    y = model(x)
    y.backward(np.ones(y.shape))
    assert y.dtype == model.conv.w.grad.dtype == np.float64


# --- training and prediction


def test_train_and_eval_reach_every_module():
    model = Small()
    assert all(m.training for m in model.modules())
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    assert model.train() is model
    assert all(m.training for m in model.modules())


def test_eval_changes_nothing_and_repeats_itself():
    model = Small().eval()
    before = model.state_dict()
    assert np.array_equal(model(image()).numpy(), model(image()).numpy())
    assert same(before, model.state_dict())


def test_training_moves_the_running_statistics():
    model = Small()
    model(image())
    assert not np.array_equal(model.blocks[0].running_mean, np.zeros(3))
    assert not np.array_equal(model.blocks[0].running_var, np.ones(3))


def test_dropout_draws_a_new_mask_each_time_and_can_be_resumed():
    x = np.ones((1, 20, 20, 2), np.float32)
    one, other = nn.Dropout(0.5, seed=3), nn.Dropout(0.5, seed=3)
    masks = [one(x).numpy() for _ in range(3)]
    assert one.calls.tolist() == [3]
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[1], masks[2])
    assert np.array_equal(other(x).numpy(), masks[0])
    resumed = nn.Dropout(0.5, seed=3)
    resumed.load_state_dict({"calls": np.array([2])})
    assert np.array_equal(resumed(x).numpy(), masks[2])
    assert not np.array_equal(nn.Dropout(0.5, seed=4)(x).numpy(), masks[0])
    assert np.array_equal(nn.Dropout(0.5, seed=np.int64(3))(x).numpy(), masks[0])


def test_dropout_outside_of_training_is_nothing():
    x = Tensor(image())
    layer = nn.Dropout(0.5, 0).eval()
    assert layer(x) is x
    assert layer.calls.tolist() == [0]
    assert nn.Dropout(0.0, 0)(x) is x


@pytest.mark.parametrize("rate", [1.0, -0.1, float("nan")])
def test_a_dropout_rate_outside_its_range_is_refused(rate):
    with pytest.raises(ValueError, match=f"{rate}.*less than 1"):
        nn.Dropout(rate, 0)


# --- layers


def test_layers_are_their_operations():
    rng, x = np.random.default_rng(1), image()
    conv = nn.Conv2d(rng, 2, 5, (1, 3), stride=(1, 2), padding=(0, 2), dilation=(1, 2), activation="elu")
    assert conv.w.shape == (5, 1, 3, 2)
    expected = ops.conv2d(x, conv.w, conv.b, (1, 2), (0, 2), (1, 2), "elu")
    assert np.array_equal(conv(x).numpy(), expected.numpy())
    up = nn.ConvTranspose2d(rng, 2, 4, 3, stride=2, padding=1, output_padding=1, activation="relu")
    assert up.w.shape == (2, 3, 3, 4)
    expected = ops.conv_transpose2d(x, up.w, up.b, 2, 1, 1, "relu")
    assert np.array_equal(up(x).numpy(), expected.numpy())
    assert up(x).shape == (2, 10, 8, 4)
    prelu = nn.PReLU(2)
    assert np.array_equal(prelu(x).numpy(), np.where(x > 0, x, np.float32(0.25) * x))
    assert nn.Conv2d(rng, 2, 3, bias=False).b is None
    assert nn.ConvTranspose2d(rng, 2, 3, bias=False).b is None


def test_initial_weights():
    """He: standard deviation sqrt(2 / fan_in), where fan_in counts what reaches one output; biases zero; seeded."""
    for layer, fan_in in (
        (nn.Conv2d(np.random.default_rng(0), 32, 64, 3), 9 * 32),
        (nn.ConvTranspose2d(np.random.default_rng(0), 64, 64, 2, stride=2), 64),
        (nn.ConvTranspose2d(np.random.default_rng(0), 32, 32, 4, stride=2), 32 * 4),
    ):
        w = layer.w.data
        assert w.dtype == np.float32
        assert abs(w.std() / np.sqrt(2 / fan_in) - 1) <= 4 / np.sqrt(2 * w.size)
        assert abs(w.mean()) <= 4 * w.std() / np.sqrt(w.size)
        assert not layer.b.data.any()
    assert same(Small(3).state_dict(), Small(3).state_dict())
