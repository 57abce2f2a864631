"""Tensor and tape: what backward gives and what it refuses. When memory is freed: test_tensor_memory.py."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from minunet import ops
from minunet.tensor import Tensor, no_grad, record

pytestmark = pytest.mark.usefixtures("backend")


def leaf(*shape: int, seed: int = 0, dtype: type = np.float64) -> Tensor:
    return Tensor(np.random.default_rng(seed).normal(size=shape).astype(dtype), requires_grad=True)


def square(x: Tensor) -> Tensor:
    """An operation that keeps its input for backward."""
    xa = x.data
    return record("square", xa * xa, (x,), lambda dy, need: (2 * xa * dy,))


# --- what a Tensor holds


@pytest.mark.parametrize("array", [[1, -2], np.arange(3), np.array([True, False]), np.uint8([255]), 7])
def test_integers_become_float32(array):
    t = Tensor(array)
    assert t.dtype == np.float32
    assert np.array_equal(t.numpy(), np.asarray(array))


def test_floating_arrays_are_kept_as_they_are():
    for array in (np.ones((2, 3), np.float32), np.ones((2, 3), np.float64)):
        t = Tensor(array)
        assert t.data is array
        assert t.numpy() is array
        assert (t.shape, t.dtype) == (array.shape, array.dtype)
    assert Tensor([0.5, 1.0]).dtype == np.float64


def test_a_numpy_number_is_an_array_with_no_axes():
    t = Tensor(np.float64(2.5), requires_grad=True)
    assert t.shape == ()
    assert t.item() == 2.5
    square(t).backward()
    assert t.grad == 5.0


@pytest.mark.parametrize("array", [np.ones(2, complex), np.array(["a"]), np.array([None])], ids=lambda a: str(a.dtype))
def test_what_is_no_number_is_refused(array):
    with pytest.raises(TypeError, match=str(array.dtype)):
        Tensor(array)


def test_a_tensor_is_not_wrapped_again():
    with pytest.raises(TypeError, match="already"):
        Tensor(leaf(2))


def test_non_contiguous_arrays_are_copied_in_order():
    base = np.arange(24.0).reshape(1, 4, 6, 1)
    for view in (base.transpose(0, 2, 1, 3), base[:, ::2, ::-1], np.asfortranarray(base)):
        t = Tensor(view)
        assert t.data.flags.c_contiguous
        assert np.array_equal(t.numpy(), view)
    assert np.array_equal(base, np.arange(24.0).reshape(1, 4, 6, 1))


def test_item_needs_one_element():
    assert Tensor(np.full((1, 1, 1), 3.5)).item() == 3.5
    with pytest.raises(ValueError, match=r"one element.*\(2, 3\)"):
        leaf(2, 3).item()


def test_repr_shows_values_and_whether_a_gradient_is_wanted():
    assert repr(Tensor(np.array([1.0, -2.0]))) == "Tensor(array([ 1., -2.]))"
    assert repr(Tensor(np.array([1.0]), requires_grad=True)) == "Tensor(array([1.]), requires_grad=True)"


def test_operators():
    a, b = leaf(2, 3), leaf(2, 3, seed=1)
    assert np.array_equal((a + b).numpy(), a.data + b.data)
    for y in (2.5 * a, a * 2.5, np.float64(2.5) * a):
        assert isinstance(y, Tensor)
        assert np.array_equal(y.numpy(), 2.5 * a.data)


# --- the gradient to start from


def test_a_scalar_starts_from_one():
    x = leaf(1, 1)
    square(x).backward()
    assert np.array_equal(x.grad, 2 * x.data)
    assert x.grad.dtype == x.dtype


def test_several_elements_need_dy():
    y = square(leaf(2, 3))
    with pytest.raises(ValueError, match=r"\(2, 3\).*dy"):
        y.backward()


@pytest.mark.parametrize(
    "dy, words",
    [
        (np.ones((3, 2)), r"float64 \(3, 2\).*float64 \(2, 3\)"),
        (np.ones(()), r"\(\).*\(2, 3\)"),
        (np.ones((1, 2, 3)), r"\(1, 2, 3\).*\(2, 3\)"),
        (np.ones((2, 3), np.float32), r"float32 \(2, 3\).*float64 \(2, 3\)"),
        (Tensor(np.ones(3)), r"\(3,\).*\(2, 3\)"),
    ],
)
def test_a_wrong_dy_is_refused_with_both_shapes_and_dtypes(dy, words):
    x = leaf(2, 3)
    y = square(x)
    with pytest.raises(ValueError, match=words):
        y.backward(dy)
    assert x.grad is None
    y.backward(np.ones((2, 3)))  # the tape is still whole
    assert np.array_equal(x.grad, 2 * x.data)


def test_dy_may_be_a_list_a_tensor_or_a_view():
    g = np.arange(6.0).reshape(3, 2).T  # (2, 3), not contiguous
    for dy in (g, g.tolist(), Tensor(g)):
        x = leaf(2, 3)
        ops.relu(square(x)).backward(dy)
        assert np.array_equal(x.grad, 2 * x.data * g)
    assert np.array_equal(g, np.arange(6.0).reshape(3, 2).T)


# --- what backward refuses


def test_a_second_backward_names_the_operation_and_the_remedy():
    y = square(leaf(2))
    y.backward(np.ones(2))
    with pytest.raises(RuntimeError, match=r"square.*already used.*run forward again"):
        y.backward(np.ones(2))


def test_a_second_root_over_a_used_part_is_refused():
    h = square(leaf(2))
    a, b = ops.scale(h, 2.0), ops.scale(h, 3.0)
    a.backward(np.ones(2))
    with pytest.raises(RuntimeError, match=r"square.*already used"):
        b.backward(np.ones(2))


def test_nothing_to_differentiate():
    with pytest.raises(RuntimeError, match="requires_grad=True"):
        square(Tensor(np.ones(1))).backward()
    x = leaf(1)
    with no_grad():
        y = square(x)
    assert not y.requires_grad
    with pytest.raises(RuntimeError, match="no_grad"):
        y.backward()


def test_backward_must_answer_for_every_input():
    x = leaf(2)
    y = record("short", x.data.copy(), (x, leaf(2)), lambda dy, need: (dy,))
    with pytest.raises(ValueError, match="shorter"):
        y.backward(np.ones(2))


# --- sums over paths


def test_a_tensor_used_twice():
    x = leaf(3)
    dy = np.array([1.0, -2.0, 0.5])
    (x + x).backward(dy)
    assert np.array_equal(x.grad, 2 * dy)
    assert np.array_equal(dy, [1.0, -2.0, 0.5])


def test_diamond():
    x = leaf(4)
    h = square(x)
    y = ops.add(square(h), ops.scale(h, 3.0), beta=-1.0)  # x^4 - 3 x^2
    y.backward(np.ones(4))
    assert np.allclose(x.grad, 4 * x.data**3 - 6 * x.data, rtol=1e-14, atol=0)


def test_each_node_is_visited_once():
    """2^30 paths lead through 30 doublings; each is walked with the sum of what came from above."""
    visits = []

    def counted(x: Tensor) -> Tensor:
        return record("counted", x.data.copy(), (x,), lambda dy, need: (visits.append(dy.item()), dy)[1:])

    x = leaf(1)
    y = x
    for _ in range(30):
        y = counted(y)
        y = y + y
    y.backward()
    assert x.grad.item() == 2**30
    assert visits == [2.0 ** (k + 1) for k in range(30)]


def test_a_long_chain_needs_no_stack():
    x = y = leaf(1)
    for _ in range(20_000):
        y = record("same", y.data, (y,), lambda dy, need: (dy,))
    y.backward()
    assert x.grad.item() == 1
    del y  # nor does forgetting it


def test_an_early_and_a_late_use():
    """A skip connection: the tensor's gradient is complete only when its oldest use has answered."""
    x = leaf(1, 2, 2, 1)
    early = square(x)
    late = early
    for _ in range(5):
        late = ops.scale(late, 0.5)
    ops.concat([late, early]).backward(np.ones((1, 2, 2, 2)))
    assert np.array_equal(x.grad, 2 * x.data * (1 + 0.5**5))


def test_gradients_add_up_over_backward_calls():
    x, dy = leaf(3), np.array([1.0, 2.0, 3.0])
    for k in range(1, 4):
        square(x).backward(dy)
        assert np.array_equal(x.grad, k * 2 * x.data * dy)
    first = x.grad
    square(x).backward(dy)
    assert np.array_equal(first, 3 * 2 * x.data * dy)  # a new sum, not written over
    x.grad = None
    square(x).backward(dy)
    assert np.array_equal(x.grad, 2 * x.data * dy)


def test_a_leaf_as_root():
    x, dy = leaf(2), np.array([3.0, -1.0])
    x.backward(dy)
    x.backward(dy)
    assert np.array_equal(x.grad, 2 * dy)


def test_a_gradient_that_is_none_counts_as_zero():
    x = leaf(2)
    blocked = record("blocked", x.data.copy(), (x,), lambda dy, need: (None,))
    (blocked + square(x)).backward(np.ones(2))
    assert np.array_equal(x.grad, 2 * x.data)


def test_need_says_who_wants_a_gradient():
    seen = []
    a, b = leaf(2), Tensor(np.ones(2))
    y = record("watch", a.data + b.data, (a, b, None), lambda dy, need: (seen.append(need), dy, None)[1:] + (None,))
    y.backward(np.ones(2))
    assert seen == [(True, False, False)]
    assert b.grad is None


def test_only_leaves_collect():
    x = leaf(2)
    h = square(x)
    square(h).backward(np.ones(2))
    assert h.grad is None
    assert x.grad is not None


def test_a_frozen_parameter_gets_nothing_even_after_it_was_used():
    w, x = leaf(3), leaf(3, seed=1)
    (w + x).backward(np.ones(3))
    w.requires_grad = False
    w.grad = x.grad = None
    (w + x).backward(np.ones(3))
    assert w.grad is None
    assert np.array_equal(x.grad, np.ones(3))


def test_float32_stays_float32():
    x = leaf(1, 3, 4, 2, dtype=np.float32)
    y = ops.sigmoid(x) + ops.scale(x, 0.1)
    y.backward(np.ones(x.shape, np.float32))
    assert y.dtype == x.grad.dtype == np.float32


# --- recording


def test_no_grad_nests_and_ends_with_its_block():
    x = leaf(1)
    with no_grad():
        with no_grad():
            assert not square(x).requires_grad
        assert not square(x).requires_grad
    assert square(x).requires_grad


def test_no_grad_ends_when_its_block_raises():
    x = leaf(1)
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert square(x).requires_grad


def test_no_grad_is_of_one_thread():
    x, recorded = leaf(1), []
    with no_grad():
        thread = threading.Thread(target=lambda: recorded.append(square(x).requires_grad))
        thread.start()
        thread.join()
    assert recorded == [True]
