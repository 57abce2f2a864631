"""Batch-norms folded into filters while weights stand still: once, the same bits, and never stale."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest

import minunet as mu
from minunet import backends, nn, ops
from minunet.tiled import fixed_weights

pytestmark = pytest.mark.usefixtures("backend")


@pytest.fixture
def folds(backend, monkeypatch) -> Counter:
    """How often the kernel that folds was run."""
    table, found = backends.get().kernels, Counter()
    real = table["fold_batch_norm"]

    def counted(*arrays, **options):
        found["folds"] += 1
        real(*arrays, **options)

    monkeypatch.setitem(table, "fold_batch_norm", counted)
    return found


@contextmanager
def evaluation(model: nn.Module):
    model.eval()
    with mu.no_grad():
        yield


def network(seed: int = 0) -> nn.ConvBN:
    model = nn.ConvBN(np.random.default_rng(seed), 3, 5)
    rng = np.random.default_rng(seed + 1)
    for array in (model.conv.b.data, *map(ops.shared.data, vectors(model))):
        array[...] = rng.uniform(0.5, 2, array.shape)
    return model


def picture(seed: int = 0) -> mu.Tensor:
    return mu.Tensor(np.random.default_rng(seed).standard_normal((1, 6, 7, 3)).astype(np.float32))


def test_once_for_many_calls_and_the_same_bits(folds):
    model, x = network(), picture()
    with evaluation(model):
        plain = model(x).numpy().tobytes()
        assert folds["folds"] == 1
        with fixed_weights(model):
            assert {model(x).numpy().tobytes() for _ in range(3)} == {plain} and folds["folds"] == 2
        assert model(x).numpy().tobytes() == plain and folds["folds"] == 3  # nothing is kept afterwards


def test_what_is_written_through_minunet_is_seen(folds):
    model, other, x = network(), network(5), picture()
    optimizer = mu.optim.SGD(model.parameters(), lr=0.1)

    def result() -> bytes:
        with evaluation(model):
            return model(x).numpy().tobytes()

    with fixed_weights(model):
        first = result()
        model.train()
        y = model(x)  # moves the running statistics
        second = result()
        y.backward(np.ones(y.shape, np.float32))
        optimizer.step()
        third = result()
        model.load_state_dict(other.state_dict())
        fourth = result()
        assert len({first, second, third, fourth}) == 4 and folds["folds"] == 4
    assert result() == fourth


def test_unless_all_that_is_folded_stands_still_nothing_is_kept(folds):
    model, x = network(), picture()
    with evaluation(model), backends.fixed_weights([p.data for p in model.parameters()]):
        model(x), model(x)
        assert folds["folds"] == 2


def test_options_are_told_apart(folds):
    model = network()
    with fixed_weights(model):
        a, _ = model.bn.fold(model.conv.w, model.conv.b, axis=0)
        model.bn.options["eps"] = 1.0
        b, _ = model.bn.fold(model.conv.w, model.conv.b, axis=0)
        assert abs(a.numpy() - b.numpy()).max() > 0.01 and folds["folds"] == 2


def vectors(model: nn.ConvBN) -> tuple:
    return model.bn.running_mean, model.bn.running_var, model.bn.gamma, model.bn.beta


def test_a_limit_is_kept(folds):
    model, x = network(), picture()
    arrays = [p.data for p in model.parameters()] + [a for _, a in model.named_buffers()]
    with evaluation(model), backends.fixed_weights(arrays, limit=model.conv.w.data.nbytes):  # the bias does not fit
        model(x), model(x)
        assert folds["folds"] == 2
