"""What the tape keeps and when it lets go. The cycle collector is off: only reference counts free anything."""

from __future__ import annotations

import gc
from weakref import ref

import numpy as np
import pytest

from minunet import ops, tensor
from minunet.nn import Parameter
from minunet.tensor import Node, Tensor, no_grad, record

pytestmark = pytest.mark.usefixtures("backend")


def leaf(*shape: int, seed: int = 0, dtype: type = np.float64) -> Tensor:
    return Tensor(np.random.default_rng(seed).normal(size=shape).astype(dtype), requires_grad=True)


@pytest.fixture(autouse=True)
def no_collector():
    """Only reference counts free anything here."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_an_activation_that_no_backward_needs_is_freed_in_forward():
    x = leaf(1, 4, 4, 2)
    h = ops.scale(x, 2.0)
    kept = ops.sigmoid(h)
    not_needed, needed = ref(h.data), ref(kept.data)
    y = ops.scale(kept, 3.0)
    del h, kept
    assert not_needed() is None  # sigmoid's backward wants its output, scale's wants nothing
    assert needed() is not None
    y.backward(np.ones(y.shape))
    assert needed() is None


def test_no_grad_keeps_nothing():
    x = leaf(1, 4, 4, 2)
    with no_grad():
        h = ops.sigmoid(x)
        array = ref(h.data)
        y = ops.sigmoid(h)
        del h
    assert array() is None
    assert y.shape == x.shape


def test_backward_frees_on_its_way():
    """When a node's turn comes, what the nodes above it had captured is gone already, gradients included."""
    captured, gradients, alive = [], [], []

    def keeping(x: Tensor) -> Tensor:
        kept = x.data + 1
        captured.append(ref(kept))

        def backward(dy, need):
            alive.append([r() is not None for r in captured])
            gradient = dy * np.cos(kept)
            gradients.append(ref(gradient))
            return (gradient,)

        return record("keeping", np.sin(kept), (x,), backward)

    x = leaf(5)
    y = keeping(keeping(keeping(x)))
    y.backward(np.ones(5))
    assert alive == [[True, True, True], [True, True, False], [True, False, False]]
    assert [r() is None for r in captured] == [True] * 3
    assert [r() is None for r in gradients] == [True, True, False]  # the last is x.grad
    assert gradients[-1]() is x.grad


def test_backward_frees_before_it_adds(monkeypatch):
    """Where gradients meet and are summed, the arrays of the node that gave them are gone already."""
    x, kept, given, alive = leaf(5), np.ones(5), np.ones(5), []
    refs = ref(kept), ref(given)
    add = tensor._sum

    def watched(a, b):
        alive.append([r() is not None for r in refs])
        return add(a, b)

    monkeypatch.setattr(tensor, "_sum", watched)
    y = record("twice", 2 * x.data, (x, x), lambda dy, need, kept=kept: (dy * kept, dy * kept))
    y = ops.scale(y, 1.0)
    del kept
    y.backward(given)
    del given
    assert alive[0] == [True, True]  # the seed is the caller's
    assert alive[1:] == [[False, True]] * 3  # twice into x's node, once into x.grad


def test_a_gradient_that_nobody_wants_is_not_carried_along():
    x, unwanted, alive = leaf(5), [], []

    def below(dy, need):
        alive.append(unwanted[0]() is not None)
        return (dy,)

    def above(dy, need):
        extra = dy.copy()
        unwanted.append(ref(extra))
        return dy, extra

    h = record("below", x.data.copy(), (x,), below)
    record("above", h.data.copy(), (h, Tensor(np.ones(5))), above).backward(np.ones(5))
    assert alive == [False]


def test_a_tape_that_is_never_used_dies_with_its_result():
    x = leaf(1, 6, 6, 2)
    y = ops.sigmoid(ops.conv2d(x, leaf(2, 3, 3, 2)))
    array, node = ref(y.data), y.node()
    assert node is not None
    del y, node
    assert array() is None


def test_a_dropped_leaf_is_freed():
    x, z = leaf(3), leaf(3)
    array = ref(x.data)
    y = x + z
    del x
    assert array() is None
    y.backward(np.ones(3))
    assert np.array_equal(z.grad, np.ones(3))


@pytest.mark.parametrize("spent", [True, False], ids=["after backward", "tape not used"])
def test_no_operation_leaves_a_cycle(spent):
    x, w, b, slope = leaf(2, 8, 8, 1), leaf(2, 3, 3, 1), leaf(2), leaf(2)
    up, gamma, beta = leaf(2, 3, 3, 2), Parameter(np.ones(2)), Parameter(np.zeros(2))

    def step() -> None:
        h = ops.conv2d(x, w, b, activation="relu")
        h = ops.batch_norm(h, gamma, beta, np.zeros(2), np.ones(2), training=True, activation="relu")
        pooled, indices = ops.max_pool2d(h, return_indices=True)
        h = ops.concat([ops.max_unpool2d(pooled, indices, h.shape[1:3]), ops.dropout(h, 0.5, 1)])
        h = ops.crop_concat(ops.prelu(ops.conv_transpose2d(pooled, up, activation="sigmoid"), slope), h)
        h = ops.upsample(ops.pad(h, 1, "reflect"), size=(9, 8), mode="bilinear")
        h = ops.softmax(h) + ops.elu(ops.upsample(ops.leaky_relu(ops.global_avg_pool(h)), size=(9, 8)))
        loss = ops.softmax_cross_entropy(2.0 * ops.relu(h), np.zeros(h.shape[:3], np.uint8))
        if spent:
            loss.backward()

    step()  # whatever is built once is built
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        step()
        gc.collect()
        cyclic = [type(o).__name__ for o in gc.garbage if isinstance(o, Tensor | Node | np.ndarray)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert cyclic == []
