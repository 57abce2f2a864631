"""The gradient checker itself: it must accept right code and reject wrong code of every kind that people write."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from minunet import ops
from minunet.backends import reference, use_backend
from minunet.differences import gradcheck
from minunet.tensor import Tensor, record


@pytest.fixture(autouse=True)
def on_reference():
    """Kernels are replaced by wrong ones below; only the reference's are."""
    with use_backend("reference"):
        yield


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def distinct(*shape: int) -> np.ndarray:
    """No two values closer than 1/8."""
    size = int(np.prod(shape))
    return ((np.random.default_rng(0).permutation(size) - size / 2 + 0.25) / 8).reshape(shape)


X = normal(2, 5, 5, 2)  # square, so that swapped axes are a matter of values, not of shapes
W, B = normal(3, 3, 3, 2, seed=1), normal(3, seed=2)
TARGET = np.random.default_rng(3).integers(0, 2, (2, 5, 5))
WEIGHTS = np.random.default_rng(4).uniform(0.1, 3, (2, 5, 5))


def _batch_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return ops.batch_norm(x, gamma, beta, np.zeros(2), np.ones(2), training=True)


def _cross_entropy(x: Tensor) -> Tensor:
    return ops.softmax_cross_entropy(x, TARGET, WEIGHTS, reduction="weighted")


OPS: dict[str, tuple[Callable[..., Tensor], list[np.ndarray]]] = {
    "conv2d": (lambda x, w, b: ops.conv2d(x, w, b, padding=1), [X, W, B]),
    "conv_transpose2d": (lambda x, w, b: ops.conv_transpose2d(x, w, b, 2), [X, normal(2, 3, 3, 4), normal(4)]),
    "max_pool2d": (lambda x: ops.max_pool2d(x, 3, 2), [distinct(2, 5, 5, 2)]),
    "sigmoid": (ops.sigmoid, [X]),
    "relu": (ops.relu, [distinct(2, 5, 5, 2)]),
    "prelu": (ops.prelu, [distinct(2, 5, 5, 2), np.array([0.25, -0.5])]),
    "softmax": (ops.softmax, [X]),
    "batch_norm": (_batch_norm, [X, normal(2), normal(2)]),
    "softmax_cross_entropy": (_cross_entropy, [X]),
    "upsample": (lambda x: ops.upsample(x, 2, mode="bilinear"), [X]),
    "pad": (lambda x: ops.pad(x, 2, "reflect"), [X]),
    "crop_concat": (ops.crop_concat, [normal(1, 3, 3, 2), normal(1, 6, 6, 1)]),
}


@pytest.mark.parametrize("name", OPS)
def test_right_code_is_accepted(name):
    f, inputs = OPS[name]
    before = [a.copy() for a in inputs]
    worst = gradcheck(f, inputs)
    assert np.isfinite(worst)
    assert 0 <= worst <= 1
    assert all(np.array_equal(a, b) for a, b in zip(inputs, before))


# --- wrong kernels: break(right) is called like the kernel itself


def zero(k: int = 0):
    """Output k is zero."""
    return lambda right: lambda *args, **options: (right(*args, **options), args[k].fill(0))


def times(factor: float, k: int = 0):
    return lambda right: lambda *args, **options: (right(*args, **options), np.multiply(args[k], factor, out=args[k]))


def change(edit: Callable[[np.ndarray], object], k: int = 0):
    """Output k is edited after the right kernel has written it."""
    return lambda right: lambda *args, **options: (right(*args, **options), edit(args[k]))


def with_input(k: int, edit: Callable[[np.ndarray], np.ndarray]):
    """The right kernel, but argument k is another one."""

    def wrap(right):
        def wrong(*args, **options):
            right(*args[:k], np.ascontiguousarray(edit(args[k])), *args[k + 1 :], **options)

        return wrong

    return wrap


def with_option(**other):
    return lambda right: lambda *args, **options: right(*args, **(options | other))


def one_nan(a: np.ndarray) -> None:
    a.flat[a.size // 2] = np.nan


def hole(a: np.ndarray) -> None:
    a.flat[a.size // 3] = 0


def swap(a: np.ndarray) -> np.ndarray:
    return a.swapaxes(1, 2)


def assign_swapped(a: np.ndarray) -> None:
    a[...] = swap(a).copy()


WRONG = {  # label: (operation, kernel, what is wrong with it)
    "conv dx zero": ("conv2d", "conv2d_grad_x", zero()),
    "conv dx 0.1 % large": ("conv2d", "conv2d_grad_x", times(1.001)),
    "conv dx 0.01 % small": ("conv2d", "conv2d_grad_x", times(0.9999)),
    "conv dx negative": ("conv2d", "conv2d_grad_x", times(-1.0)),
    "conv dx one NaN": ("conv2d", "conv2d_grad_x", change(one_nan)),
    "conv dx one hole": ("conv2d", "conv2d_grad_x", change(hole)),
    "conv dx filter not flipped": ("conv2d", "conv2d_grad_x", with_input(2, lambda w: w[:, ::-1, ::-1])),
    "conv dx filter's H, W swapped": ("conv2d", "conv2d_grad_x", with_input(2, swap)),
    "conv dx H, W swapped": ("conv2d", "conv2d_grad_x", change(assign_swapped)),
    "conv dx padding moved": ("conv2d", "conv2d_grad_x", with_option(padding=(2, 0, 1, 1))),
    "conv dw zero": ("conv2d", "conv2d_grad_w", zero()),
    "conv dw one image only": ("conv2d", "conv2d_grad_w", with_input(2, lambda dy: dy * [[[[1]]], [[[0]]]])),
    "conv dw mean, not sum": ("conv2d", "conv2d_grad_w", times(0.5)),
    "conv dw H, W swapped": ("conv2d", "conv2d_grad_w", change(assign_swapped)),
    "conv dw flipped": ("conv2d", "conv2d_grad_w", change(lambda dw: np.copyto(dw, dw[:, ::-1, ::-1].copy()))),
    "conv db missing": ("conv2d", "channel_sum", zero()),
    "conv bias missing in forward": ("conv2d", "conv2d", with_input(3, np.zeros_like)),
    "conv_transpose dx 0.1 % large": ("conv_transpose2d", "conv2d", times(1.001)),
    "conv_transpose dw zero": ("conv_transpose2d", "conv2d_grad_w", zero()),
    "conv_transpose db zero": ("conv_transpose2d", "channel_sum", zero()),
    "pool dx zero": ("max_pool2d", "scatter_by_index", zero()),
    "pool dx one pixel off": ("max_pool2d", "scatter_by_index", with_input(2, lambda i: np.maximum(i - 1, 0))),
    "pool dx H, W swapped": ("max_pool2d", "scatter_by_index", change(assign_swapped)),
    "sigmoid 0.1 % large": ("sigmoid", "sigmoid_grad", times(1.001)),
    "sigmoid infinite": ("sigmoid", "sigmoid_grad", times(np.inf)),
    "relu all pass": ("relu", "relu_grad", with_input(2, np.ones_like)),
    "relu NaN": ("relu", "relu_grad", times(np.nan)),
    "prelu slope zero": ("prelu", "prelu_grad", zero(1)),
    "prelu slope 0.1 % large": ("prelu", "prelu_grad", times(1.001, 1)),
    "softmax zero": ("softmax", "softmax_grad", zero()),
    "softmax without the sum": ("softmax", "softmax_grad", lambda right: lambda dx, dy, y: np.multiply(dy, y, out=dx)),
    "batch norm dx zero": ("batch_norm", "batch_norm_grad", zero()),
    "batch norm dx, statistics held still": ("batch_norm", "batch_norm_grad", with_option(training=False)),
    "batch norm dgamma zero": ("batch_norm", "batch_norm_grad", zero(1)),
    "batch norm dbeta zero": ("batch_norm", "batch_norm_grad", zero(2)),
    "batch norm other eps": ("batch_norm", "batch_norm_grad", with_option(eps=0.01)),
    "loss zero": ("softmax_cross_entropy", "softmax_cross_entropy_grad", zero()),
    "loss without weights": ("softmax_cross_entropy", "softmax_cross_entropy_grad", with_input(5, np.ones_like)),
    "loss without divisor": ("softmax_cross_entropy", "softmax_cross_entropy_grad", with_input(4, np.ones_like)),
    "upsample other corners": ("upsample", "upsample_bilinear_grad", with_option(align_corners=True)),
    "pad without what was mirrored": ("pad", "pad_grad", with_option(mode="constant")),
    "skip zero": ("crop_concat", "crop_concat_grad", zero(1)),
    "skip off by a pixel": ("crop_concat", "crop_concat_grad", change(lambda a: np.copyto(a, np.roll(a, 1, 1)), 1)),
}


@pytest.mark.parametrize("label", WRONG)
def test_wrong_code_is_rejected(label, monkeypatch):
    name, kernel, breaker = WRONG[label]
    f, inputs = OPS[name]
    gradcheck(f, inputs)  # right before
    monkeypatch.setitem(reference.kernels, kernel, breaker(reference.kernels[kernel]))
    with np.errstate(invalid="ignore"), pytest.raises(AssertionError, match="input"):
        gradcheck(f, inputs)


@pytest.mark.parametrize("seed", range(20))
def test_no_seed_is_lucky(seed, monkeypatch):
    monkeypatch.setitem(reference.kernels, "sigmoid_grad", times(1.001)(reference.kernels["sigmoid_grad"]))
    with pytest.raises(AssertionError, match="input 0"):
        gradcheck(ops.sigmoid, [normal(2, 3)], seed=seed)


def test_the_message_names_input_and_values(monkeypatch):
    monkeypatch.setitem(reference.kernels, "channel_sum", zero()(reference.kernels["channel_sum"]))
    f, inputs = OPS["conv2d"]
    with pytest.raises(AssertionError, match=r"input 2: backward gives 0, finite differences -?\d.*allowed"):
        gradcheck(f, inputs)


# --- wrong operations


def test_a_use_that_is_forgotten():
    """y = x * x by an operation that names x once but answers for one factor only."""

    def forgetful(x: Tensor) -> Tensor:
        xa = x.data
        return record("forgetful", xa * xa, (x,), lambda dy, need: (xa * dy,))

    with pytest.raises(AssertionError):
        gradcheck(forgetful, [normal(3)])


def test_no_gradient_at_all():
    def half(x: Tensor, w: Tensor) -> Tensor:
        return record("half", x.data * w.data, (x, w), lambda dy, need: (dy * w.data, None))

    with pytest.raises(AssertionError, match=r"input 1 of shape \(3,\).*None"):
        gradcheck(half, [normal(3), normal(3)])


def test_a_gradient_of_another_shape():
    def flat(x: Tensor) -> Tensor:
        return record("flat", x.data.copy(), (x,), lambda dy, need: (dy.reshape(-1),))

    with pytest.raises(AssertionError, match=r"shape \(2, 3\).*shape \(6,\)"):
        gradcheck(flat, [normal(2, 3)])


def test_a_nan_in_forward():
    def broken(x: Tensor) -> Tensor:
        return record("broken", x.data * np.nan, (x,), lambda dy, need: (dy,))

    with pytest.raises(AssertionError):
        gradcheck(broken, [normal(3)])


def test_float32_is_refused():
    with pytest.raises(ValueError, match="input 1 is float32"):
        gradcheck(ops.add, [normal(3), normal(3).astype(np.float32)])


def test_a_gradient_of_ones_would_prove_nothing():
    """Why gradcheck draws its output gradient: under ones, softmax's true gradient is zero and a zero one passes."""
    x = Tensor(X, requires_grad=True)
    y = ops.softmax(x)
    y.backward(np.ones(y.shape))
    assert np.abs(x.grad).max() <= 1e-15


def test_the_public_name_is_the_function_whatever_was_imported_first():
    import minunet as mu
    import minunet.differences

    assert callable(mu.gradcheck) and mu.gradcheck is minunet.differences.gradcheck
