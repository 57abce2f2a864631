"""A convolution of a joined map that is not kept: the same bits, forward and backward, and less memory."""

from __future__ import annotations

from weakref import ref

import numpy as np
import pytest

from minunet import ops
from minunet.tensor import Tensor

pytestmark = pytest.mark.usefixtures("backend")


def tensors(dtype: type, needs: tuple[bool, ...] = (True, True, True, True)) -> list[Tensor]:
    rng = np.random.default_rng(0)
    shapes = ((2, 9, 7, 5), (2, 12, 8, 3), (4, 3, 3, 8), (4,))  # x, skip, w, b
    return [Tensor(rng.normal(size=s).astype(dtype), requires_grad=need) for s, need in zip(shapes, needs)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", [None, "relu", "elu"])
def test_the_same_as_joining_first(dtype, activation):
    x, skip, w, b = tensors(dtype)
    y = ops.conv2d(x, w, b, padding=1, activation=activation, skip=skip)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(dtype)
    y.backward(dy)
    others = tensors(dtype)
    z = ops.conv2d(ops.crop_concat(others[0], others[1]), others[2], others[3], padding=1, activation=activation)
    z.backward(dy)
    assert np.array_equal(y.numpy(), z.numpy())
    for ours, theirs in zip((x, skip, w, b), others):
        assert np.isfinite(ours.grad).all() and np.array_equal(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    "needs", [(False, False, True, False), (True, False, False, False), (False, True, False, True)]
)
def test_only_the_gradients_that_are_wanted(needs):
    arguments = tensors(np.float64, tuple(map(bool, needs)))
    x, skip, w, b = arguments
    y = ops.conv2d(x, w, b, skip=skip)
    y.backward(np.ones(y.shape))
    assert [t.grad is not None for t in arguments] == [bool(n) for n in needs]


def test_the_joined_map_is_not_kept():
    x, skip, w, b = tensors(np.float64)
    joined = ops.crop_concat(x, skip)
    kept = ref(joined.data)
    y = ops.conv2d(joined, w, b)
    del joined
    assert kept() is not None  # the convolution's backward wants it
    y = ops.conv2d(x, w, b, skip=skip)
    arrays = [c.cell_contents for c in y._node.backward.__closure__ if isinstance(c.cell_contents, np.ndarray)]
    assert all(a.shape != (2, 9, 7, 8) for a in arrays)


def test_a_skip_that_is_too_small_is_refused():
    x, skip, w, b = tensors(np.float64)
    with pytest.raises(ValueError, match="crop"):
        ops.conv2d(skip, w, b, skip=x)
