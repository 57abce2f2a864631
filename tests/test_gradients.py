"""Every operation, every option: gradients against finite differences, and exact adjoint identities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
from gradient_losses import LOSSES

from minunet import backends, ops
from minunet.differences import gradcheck
from minunet.tensor import Tensor

pytestmark = pytest.mark.usefixtures("backend")

Rng = np.random.Generator


def normal(*shape: int) -> Callable[[Rng], np.ndarray]:
    return lambda rng: rng.normal(size=shape)


def off_zero(*shape: int) -> Callable[[Rng], np.ndarray]:
    """Both signs, at least 0.1 away from a kink at 0."""
    return lambda rng: rng.choice((-1.0, 1.0), shape) * rng.uniform(0.1, 2, shape)


def distinct(*shape: int) -> Callable[[Rng], np.ndarray]:
    """Values 1/16 apart, so that the place of a maximum does not move with a small step."""
    size = int(np.prod(shape))
    return lambda rng: ((rng.permutation(size) - size / 2 + 0.3) / 16).reshape(shape)


def moved(a: np.ndarray) -> Any:
    """A copy on the backend in use."""
    return backends.get().asarray(a.copy())


@dataclass(frozen=True)
class Case:
    """An operation of float64 arrays. `linear`: groups of inputs in which y is linear (or homogeneous, as ReLU is):
    sum(dy y) = sum of sum(dx x) over the group."""

    f: Callable[..., Tensor]
    inputs: tuple[Callable[[Rng], np.ndarray], ...]
    linear: tuple[tuple[int, ...], ...] = ()


CASES: dict[str, Case] = {}


def case(label: str, f: Callable[..., Tensor], *inputs, linear: tuple[tuple[int, ...], ...] = ()) -> None:
    assert label not in CASES, label
    CASES[label] = Case(f, inputs, linear)


# --- conv2d and its transpose: (label, x, w, options)
for label, x, w, options in (
    ("plain", (2, 6, 5, 3), (4, 3, 3, 3), {}),
    ("one pixel", (1, 1, 1, 1), (1, 1, 1, 1), {}),
    ("one channel, 2x4 kernel", (1, 5, 9, 1), (2, 2, 4, 1), {}),
    ("same", (2, 5, 6, 2), (3, 3, 3, 2), {"padding": "same"}),
    ("same, even kernel, stride 2", (1, 7, 6, 2), (3, 4, 2, 2), {"padding": "same", "stride": 2}),
    ("full", (1, 4, 6, 3), (2, 3, 2, 3), {"padding": "full"}),
    ("full, dilated", (1, 3, 4, 1), (2, 3, 2, 1), {"padding": "full", "dilation": (2, 3)}),
    ("one number", (1, 5, 4, 2), (2, 3, 3, 2), {"padding": 2}),
    ("pair, stride pair", (2, 7, 9, 2), (3, 3, 5, 2), {"padding": (1, 2), "stride": (2, 3)}),
    ("asymmetric", (1, 5, 4, 2), (2, 3, 3, 2), {"padding": (2, 0, 1, 3)}),
    ("dilation", (1, 9, 8, 2), (2, 3, 3, 2), {"dilation": (2, 3), "padding": 1}),
    ("stride, rows left over", (1, 8, 10, 2), (2, 3, 3, 2), {"stride": 3}),
    ("9 channels, 17 filters", (1, 6, 7, 9), (17, 3, 3, 9), {"padding": "same"}),
    ("1x1", (2, 3, 5, 7), (5, 1, 1, 7), {}),
):
    conv = lambda x, w, b=None, options=options: ops.conv2d(x, w, b, **options)  # noqa: E731
    case(f"conv2d {label}", conv, normal(*x), normal(*w), linear=((0,), (1,)))
    case(f"conv2d {label}, bias", conv, normal(*x), normal(*w), normal(w[0]), linear=((0, 2), (1, 2)))

for label, x, w, options in (
    ("depthwise", (2, 6, 5, 3), (3, 3, 3, 1), {"groups": 3, "padding": "same"}),
    ("depthwise, stride, dilation", (1, 9, 8, 4), (4, 3, 2, 1), {"groups": 4, "stride": (2, 1), "dilation": (1, 3)}),
    ("depthwise, 2 outputs each", (2, 5, 7, 3), (6, 3, 3, 1), {"groups": 3, "stride": 2, "padding": (2, 0, 1, 1)}),
    ("2 groups", (2, 6, 5, 4), (6, 3, 2, 2), {"groups": 2, "padding": "same"}),
    ("3 groups, stride, dilation", (1, 8, 7, 6), (3, 3, 2, 2), {"groups": 3, "stride": 2, "dilation": (1, 2)}),
    ("3 groups, 1x1", (1, 3, 2, 6), (9, 1, 1, 2), {"groups": 3}),
):
    conv = lambda x, w, b=None, options=options: ops.conv2d(x, w, b, **options)  # noqa: E731
    fused = lambda x, w, b=None, options=options: ops.conv2d(x, w, b, activation="relu", **options)  # noqa: E731
    case(f"conv2d {label}", conv, normal(*x), normal(*w), linear=((0,), (1,)))
    case(f"conv2d {label}, bias", conv, normal(*x), normal(*w), normal(w[0]), linear=((0, 2), (1, 2)))
    case(f"conv2d {label}, bias, relu", fused, normal(*x), normal(*w), normal(w[0]))

for label, x, w, options in (
    ("2x2 stride 2", (2, 3, 4, 3), (3, 2, 2, 2), {"stride": 2}),
    ("one pixel", (1, 1, 1, 2), (2, 2, 3, 1), {"stride": 2}),
    ("3x3 stride 2, output padding", (1, 3, 4, 2), (2, 3, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    ("output padding of rows", (1, 3, 4, 2), (2, 3, 3, 1), {"stride": (2, 3), "output_padding": (1, 0)}),
    ("4x4 stride 2 padding 1", (2, 3, 2, 2), (2, 4, 4, 3), {"stride": 2, "padding": 1}),
    ("same", (1, 3, 5, 2), (2, 3, 3, 2), {"padding": "same"}),
    ("same, stride 2", (1, 3, 5, 2), (2, 4, 3, 2), {"padding": "same", "stride": 2}),
    ("full", (1, 6, 5, 2), (2, 3, 2, 3), {"padding": "full"}),
    ("asymmetric", (1, 4, 5, 2), (2, 3, 4, 2), {"padding": (0, 2, 1, 0), "stride": (1, 2)}),
    ("kernel smaller than stride", (1, 3, 2, 2), (2, 1, 2, 3), {"stride": 3}),
    ("16 times bilinear", (1, 2, 1, 2), (2, 16, 16, 2), {"stride": 8}),
):
    up = lambda x, w, b=None, options=options: ops.conv_transpose2d(x, w, b, **options)  # noqa: E731
    case(f"conv_transpose2d {label}", up, normal(*x), normal(*w), linear=((0,), (1,)))
    case(f"conv_transpose2d {label}, bias", up, normal(*x), normal(*w), normal(w[3]), linear=((0, 2), (1, 2)))

for name in ops.ACTIVATIONS:
    case(f"conv2d {name}", lambda x, w, b, name=name: ops.conv2d(x, w, b, activation=name),
         normal(1, 6, 5, 2), normal(3, 3, 3, 2), normal(3))  # fmt: skip
    case(f"conv_transpose2d {name}", lambda x, w, b, name=name: ops.conv_transpose2d(x, w, b, 2, activation=name),
         normal(1, 3, 4, 2), normal(2, 2, 2, 3), normal(3))  # fmt: skip

# --- pooling: (label, x, options)
for label, x, options in (
    ("2x2", (2, 6, 8, 3), {}),
    ("odd size", (1, 7, 5, 2), {}),
    ("odd size, ceil", (1, 7, 5, 2), {"ceil_mode": True}),
    ("3x3 stride 2 padding 1", (2, 7, 6, 2), {"kernel": 3, "stride": 2, "padding": 1}),
    ("3x3 stride 2 padding 1, ceil", (1, 6, 8, 2), {"kernel": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ("overlapping, stride 1", (1, 5, 6, 3), {"kernel": 3, "stride": 1, "padding": 1}),
    ("rectangular", (1, 9, 8, 2), {"kernel": (3, 2), "stride": (2, 3), "padding": (1, 0)}),
    ("gaps", (1, 9, 10, 1), {"kernel": 2, "stride": (3, 4)}),
    ("one pixel", (1, 1, 1, 1), {"kernel": 1}),
):
    case(f"max_pool2d {label}", lambda x, options=options: ops.max_pool2d(x, **options), distinct(*x), linear=((0,),))

for label, x, options in (
    ("3x3 stride 1 padding 1", (2, 5, 6, 3), {"kernel": 3, "stride": 1, "padding": 1}),
    ("2x2", (1, 7, 6, 2), {"kernel": 2}),
    ("rectangular", (1, 9, 8, 2), {"kernel": (3, 2), "stride": (2, 3), "padding": (1, 0)}),
    ("gaps", (1, 9, 10, 1), {"kernel": 2, "stride": (3, 4)}),
    ("one pixel", (1, 1, 1, 2), {"kernel": 3, "padding": 1}),
):
    case(f"avg_pool2d {label}", lambda x, options=options: ops.avg_pool2d(x, **options), normal(*x), linear=((0,),))

UNIQUE = np.array([0, 7, 34, 3, 20, 11], np.int32).reshape(1, 2, 3, 1)
SHARED = np.array([5, 5, 5, 0, 34, 0], np.int32).reshape(1, 2, 3, 1)
for label, indices in (("", UNIQUE), (", indices that meet", SHARED)):
    unpool = lambda x, indices=indices: ops.max_unpool2d(x, moved(indices), (5, 7))  # noqa: E731
    case(f"max_unpool2d{label}", unpool, normal(1, 2, 3, 1), linear=((0,),))
for shape in ((2, 3, 5, 4), (3, 1, 1, 2)):
    case(f"global_avg_pool {shape}", ops.global_avg_pool, normal(*shape), linear=((0,),))

# --- resampling, joining, padding
for mode in ({"mode": "nearest"}, {"mode": "bilinear"}, {"mode": "bilinear", "align_corners": True}):
    for x, to in (
        ((2, 3, 5, 2), {"scale": 2}),
        ((1, 2, 3, 1), {"scale": (3, 1)}),
        ((1, 5, 4, 2), {"size": (13, 9)}),
        ((1, 7, 6, 2), {"size": (3, 1)}),
        ((2, 1, 1, 3), {"size": (4, 5)}),
    ):
        resize = lambda x, options=mode | to: ops.upsample(x, **options)  # noqa: E731
        case(f"upsample {mode} {x} {to}", resize, normal(*x), linear=((0,),))

case("crop_concat", ops.crop_concat, normal(2, 3, 4, 2), normal(2, 6, 7, 3), linear=((0, 1),))
case("crop_concat, nothing to crop", ops.crop_concat, normal(1, 2, 1, 1), normal(1, 2, 1, 2), linear=((0, 1),))
case("concat of three", lambda a, b, c: ops.concat([a, b, c]),
     normal(2, 3, 2, 1), normal(2, 3, 2, 3), normal(2, 3, 2, 2), linear=((0, 1, 2),))  # fmt: skip
case("concat with itself", lambda a: ops.concat([a, a]), normal(1, 2, 3, 2), linear=((0,),))
for size, offset in (((3, 2), None), ((2, 5), (1, 0)), ((1, 1), (4, 3)), ((5, 6), None)):
    window = lambda x, size=size, offset=offset: ops.crop(x, size, offset)  # noqa: E731
    case(f"crop {size} at {offset}", window, normal(2, 5, 6, 3), linear=((0,),))
for k in range(3):
    case(f"split, piece {k}", lambda x, k=k: ops.split(x, [2, 1, 4])[k], normal(2, 3, 2, 7), linear=((0,),))
case("split and turned round", lambda x: ops.concat(ops.split(x, [2, 1, 4])[::-1]), normal(2, 3, 2, 7), linear=((0,),))
case("pad_channels", lambda x: ops.pad_channels(x, 5), normal(2, 3, 2, 3), linear=((0,),))
case("pad_channels, nothing to do", lambda x: ops.pad_channels(x, 3), normal(1, 2, 2, 3), linear=((0,),))
for padding in (2, (1, 3), (0, 2, 3, 1)):
    zeros = lambda x, padding=padding: ops.pad(x, padding)  # noqa: E731
    mirrored = lambda x, padding=padding: ops.pad(x, padding, "reflect")  # noqa: E731
    case(f"pad {padding}", zeros, normal(2, 4, 5, 2), linear=((0,),))
    case(f"pad {padding}, reflect", mirrored, normal(2, 4, 5, 2), linear=((0,),))
case("pad with a value", lambda x: ops.pad(x, 1, value=-3.0), normal(1, 2, 1, 2))

# --- normalisation
MEAN, VAR = np.array([0.3, -1.0, 0.5]), np.array([0.5, 2.0, 1e-3])
for training in (True, False):
    for activation in (None, *ops.ACTIVATIONS):
        for eps in (1e-5, 1e-3):
            bn = lambda x, g, b, t=training, a=activation, e=eps: ops.batch_norm(  # noqa: E731
                x, g, b, moved(MEAN), moved(VAR), training=t, eps=e, activation=a
            )
            case(f"batch_norm training={training} {activation} eps={eps}", bn,
                 normal(3, 4, 5, 3), off_zero(3), normal(3), linear=() if activation else ((1, 2),))  # fmt: skip

case("batch_norm with a convolution's bias, in evaluation",
     lambda x, g, b, c: ops.batch_norm(x, g, b, moved(MEAN), moved(VAR), training=False, bias=c),
     normal(2, 3, 2, 3), off_zero(3), normal(3), normal(3))  # fmt: skip

for label, options in (
    ("default", {}),
    ("strong", {"size": 3, "alpha": 2.0, "beta": 0.6}),
    ("even size", {"size": 4, "alpha": 3.0}),
):
    case(f"lrn {label}", lambda x, options=options: ops.lrn(x, **options), normal(2, 3, 2, 7))
case("l2_normalize", ops.l2_normalize, normal(2, 3, 4, 5))
case("l2_normalize, below eps", lambda x: ops.l2_normalize(x, 100.0), normal(2, 3, 4, 5), linear=((0,),))

# --- pointwise
SHAPE = (2, 3, 5, 3)
case("relu", ops.relu, off_zero(*SHAPE), linear=((0,),))
case("leaky_relu", ops.leaky_relu, off_zero(*SHAPE), linear=((0,),))
case("leaky_relu 0.3", lambda x: ops.leaky_relu(x, 0.3), off_zero(*SHAPE), linear=((0,),))
case("elu", ops.elu, off_zero(*SHAPE))
case("elu 0.4", lambda x: ops.elu(x, 0.4), off_zero(*SHAPE))
case("sigmoid", ops.sigmoid, normal(*SHAPE))
case("tanh", ops.tanh, normal(*SHAPE))
case("gate", ops.gate, normal(*SHAPE), normal(2, 1, 1, 3), linear=((0,), (1,)))
case("gate by its own mean", lambda x: ops.gate(x, ops.sigmoid(ops.global_avg_pool(x))), normal(*SHAPE))
case("prelu", ops.prelu, off_zero(*SHAPE), normal(3), linear=((0,),))
case("prelu, one channel", ops.prelu, off_zero(1, 4, 3, 1), normal(1), linear=((0,),))
for rate, seed in ((0.0, 3), (0.5, 0), (0.9, 2**64 - 1)):
    drop = lambda x, rate=rate, seed=seed: ops.dropout(x, rate, seed)  # noqa: E731
    case(f"dropout {rate} {seed}", drop, normal(*SHAPE), linear=((0,),))
    drop = lambda x, rate=rate, seed=seed: ops.dropout_channels(x, rate, seed)  # noqa: E731
    case(f"dropout_channels {rate} {seed}", drop, normal(*SHAPE), linear=((0,),))
case("add", ops.add, normal(*SHAPE), normal(*SHAPE), linear=((0, 1),))
case("add 0.5, -2", lambda a, b: ops.add(a, b, 0.5, -2.0), normal(*SHAPE), normal(*SHAPE), linear=((0, 1),))
case("add to itself", lambda a: ops.add(a, a, 1.0, 3.0), normal(*SHAPE), linear=((0,),))
case("scale", lambda a: ops.scale(a, -0.7), normal(*SHAPE), linear=((0,),))

# --- losses
case("softmax", ops.softmax, normal(2, 3, 4, 5))
case("softmax, two axes", ops.softmax, normal(4, 3))
case("softmax, one class", ops.softmax, normal(1, 2, 2, 1))
for label, (loss, x) in LOSSES.items():
    case(label, loss, x)

# --- products of matrices: (N, M, K, P) of a and b
for n, m, k, p in ((2, 3, 4, 5), (1, 1, 1, 1), (3, 1, 7, 2)):
    for ta, tb in product((False, True), repeat=2):
        multiply = lambda a, b, ta=ta, tb=tb: ops.matmul(a, b, transpose_a=ta, transpose_b=tb)  # noqa: E731
        a, b = normal(n, *((k, m) if ta else (m, k))), normal(n, *((p, k) if tb else (k, p)))
        case(f"matmul {(n, m, k, p)} {ta} {tb}", multiply, a, b, linear=((0,), (1,)))
case("matmul with itself", lambda a: ops.matmul(a, a, transpose_b=True), normal(2, 3, 4))
case("reshape", lambda x: ops.reshape(x, (2, -1, 3)), normal(2, 4, 5, 3), linear=((0,),))
case("reshape to a vector", lambda x: ops.reshape(x, [120]), normal(2, 4, 5, 3), linear=((0,),))


def arrays(label: str) -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    return [make(rng) for make in CASES[label].inputs]


@pytest.mark.parametrize("label", CASES)
def test_finite_differences(label):
    inputs = arrays(label)
    before = [a.copy() for a in inputs]
    worst = gradcheck(CASES[label].f, inputs)
    assert np.isfinite(worst)
    assert worst <= 1
    assert all(np.array_equal(a, b) for a, b in zip(inputs, before))


@pytest.mark.parametrize("label", [label for label in CASES if CASES[label].linear])
def test_adjoint_identity(label):
    """sum(dy f(x)) = sum(backward(dy) x), exactly: to 1e-12 of norm(dy) norm(y). The others stand still."""
    for group in CASES[label].linear:
        values = arrays(label)
        tensors = [Tensor(a.copy(), requires_grad=k in group) for k, a in enumerate(values)]
        y = CASES[label].f(*tensors)
        dy = np.random.default_rng(12).normal(size=y.shape)
        kept = dy.copy()
        y.backward(dy)
        left = np.sum(dy * y.numpy())
        right = sum(np.sum(tensors[k].grad * values[k]) for k in group)
        error, bound = abs(left - right), 1e-12 * np.linalg.norm(dy) * np.linalg.norm(y.numpy())
        assert np.isfinite(error)
        assert error <= bound, f"inputs {group}: {left} against {right}"
        assert np.array_equal(dy, kept)
        assert all(np.array_equal(t.data, a) for t, a in zip(tensors, values))
        assert all(t.grad is None for k, t in enumerate(tensors) if k not in group)


@pytest.mark.parametrize("label", ["conv2d plain", "max_pool2d 2x2", "batch_norm training=True None eps=1e-05", "add"])
def test_non_contiguous_inputs_give_the_same_result(label):
    """Views with axes swapped: values and gradients are those of a contiguous copy."""
    f, results = CASES[label].f, []
    for view in (False, True):
        values = arrays(label)
        if view:
            values = [np.asfortranarray(a) for a in values]
            assert any(not a.flags.c_contiguous for a in values)
        tensors = [Tensor(a, requires_grad=True) for a in values]
        y = f(*tensors)
        dy = np.random.default_rng(1).normal(size=y.shape)
        y.backward(np.asfortranarray(dy) if view else dy)
        results.append([y.numpy(), *(t.grad for t in tensors)])
    for a, b in zip(*results):
        assert np.array_equal(a, b)


def test_every_operation_is_here():
    """A new operation of `minunet.ops` must come with its gradient test."""
    functions = {name for name in ops.__all__ if callable(getattr(ops, name)) and name.islower()}
    tested = {name for name in functions if any(label.startswith(name) for label in CASES)}
    assert functions - tested == {"fold_batch_norm"}  # for evaluation, records nothing
