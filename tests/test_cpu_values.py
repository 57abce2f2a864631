"""Values that the conformance suite does not ask the CPU backend for: statistics far from zero, NaN and infinity, the
optimisers' own memory, wrong indices and labels. Truth is plain NumPy in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from checks import sums
from cpu_arrays import ADAM, BIG, REDUCED, SGD, close, cpu, drawn_indices, drawn_target, normal, optimiser_state
from numpy.lib.stride_tricks import sliding_window_view

from minunet.backends import call


@pytest.fixture(autouse=True)
def _cpu() -> Iterator[None]:
    with cpu():
        yield


@pytest.mark.parametrize("channels", [1, 2, 5, 64, 1031])
def test_float32_statistics_far_from_zero(channels: int) -> None:
    """Mean 1000, deviation 1: float32 squares of x would keep no digit of the variance."""
    x = (1000 + normal(2, 37, 41, channels, seed=channels)).astype(np.float32)
    mean, var = call("channel_moments", x)
    wide = x.astype(np.float64)
    assert close(mean, wide.mean(axis=(0, 1, 2)), 1e-7)
    assert close(var, wide.var(axis=(0, 1, 2)), 1e-6)
    # 1e-7 of the mean is 1e-4 of the deviation, so y is compared with the float32 mean that it was given.
    y = call("batch_norm", x, mean, var, np.ones_like(mean), np.zeros_like(mean), eps=0.0, activation=None)
    assert close(y, (wide - mean) / np.sqrt(var.astype(np.float64)), 1e-6)


def test_statistics_when_the_first_pixels_mislead() -> None:
    """The shift of a chunk is guessed from its first rows; here they lie 1e4 deviations off."""
    x = normal(1, 300, 301, 3)
    x[0, :2] += 1e4
    mean, var = call("channel_moments", x)
    wide = x.astype(np.float64)
    assert close(mean, wide.mean(axis=(0, 1, 2)), 1e-6)
    assert close(var, wide.var(axis=(0, 1, 2)), 1e-6)


def test_channel_sums_with_a_large_mean() -> None:
    """Sums of 25007 * 3 numbers of one sign, in float32: added one by one they would lose 1e-4."""
    x = (1000 + normal(3, 17, 1471, 6)).astype(np.float32)
    assert close(call("global_avg_pool", x)[:, 0, 0], x.astype(np.float64).mean(axis=(1, 2)), 1e-7)
    zero, one = np.zeros(6, np.float32), np.ones(6, np.float32)
    _, dgamma, dbeta = call("batch_norm_grad", x, x, zero, one, one, eps=0.0, training=True)
    wide = x.astype(np.float64)
    assert close(dbeta, wide.sum(axis=(0, 1, 2)), 1e-7)
    assert close(dgamma, (wide * wide).sum(axis=(0, 1, 2)), 1e-6)
    _, dslope = call("prelu_grad", x, -x, one)
    assert close(dslope, -(wide * wide).sum(axis=(0, 1, 2)), 1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 5, 2), BIG])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("relu", {}),
        ("leaky_relu", {"slope": 0.1}),
        ("elu", {"alpha": 1.0}),
        ("sigmoid", {}),
        ("tanh", {}),
        ("scale", {"factor": 0.0}),
        ("softmax", {}),
    ],
)
def test_nan_stays_nan(name: str, options: dict, shape: tuple[int, ...]) -> None:
    x = normal(*shape)
    x[0, 1, 2, 1] = np.nan
    y = call(name, x, **options)
    assert np.isnan(y[0, 1, 2, 1])
    y[0, 1, 2] = 0
    assert np.isfinite(y).all()


@pytest.mark.parametrize("kernel", [2, 3])
def test_max_pool_of_a_window_with_nan_is_nan_and_points_at_the_first(kernel: int) -> None:
    x = normal(1, 12, 13, 20)
    x[0, 4, 4, ::3] = np.nan
    x[0, 4, 5, ::2] = np.nan
    x[0, 5, 4, 1] = np.nan
    y, indices = call("max_pool2d", x, kernel=(kernel,) * 2, stride=(2, 2), padding=(0, 0), ceil_mode=False)
    windows = sliding_window_view(x[0], (kernel, kernel), axis=(0, 1))[::2, ::2]  # (OH, OW, C, K, K)
    first = windows.reshape(*windows.shape[:3], -1).argmax(axis=3)  # numpy.argmax: the first NaN, or the first maximum
    oh, ow = first.shape[:2]
    i, j = np.arange(oh)[:, None, None], np.arange(ow)[None, :, None]
    place = (2 * i + first // kernel) * 13 + 2 * j + first % kernel
    assert np.array_equal(indices[0], place)
    assert np.array_equal(y[0], windows.max(axis=(3, 4)), equal_nan=True)
    assert np.isnan(y[0, 2, 2, :3]).all()


def test_infinite_values_pass() -> None:
    x = np.array([-np.inf, -1e4, -1e-30, 0.0, 1e-30, 1e4, np.inf], np.float32).reshape(1, 1, 7, 1)
    assert np.array_equal(call("relu", x).ravel(), np.maximum(x, 0).ravel())
    assert np.array_equal(call("elu", x, alpha=2.0).ravel()[[0, 1, 3, 5, 6]], np.float32([-2, -2, 0, 1e4, np.inf]))
    assert np.array_equal(call("sigmoid", x).ravel(), np.float32([0, 0, 0.5, 0.5, 0.5, 1, 1]))
    assert np.array_equal(call("tanh", x).ravel(), np.float32([-1, -1, -1e-30, 0, 1e-30, 1, 1]))
    far = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32).reshape(1, 1, 2, 2)
    assert np.array_equal(call("softmax", far).ravel(), np.float32([1, 0, 0, 1]))
    wrong = np.array([[[1, 0]]], np.int32)
    assert np.array_equal(sums("softmax_cross_entropy", far, wrong, call=call, ignore_index=255), [4e4, 2, 2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exponential_to_the_last_digit(dtype: type) -> None:
    """elu(x) is exp(x) - 1 below zero, also where that is small, as tanh(x) is x; sigmoid keeps tiny values."""
    x = np.concatenate((-np.geomspace(1e-30, 80, 5003), np.linspace(-80, 0, 5003))).astype(dtype).reshape(1, 1, -1, 1)
    wide, digits = x.astype(np.float64), 8 * np.finfo(dtype).eps
    assert np.allclose(call("elu", x, alpha=1.0), np.expm1(wide), rtol=digits, atol=0)
    assert np.allclose(call("tanh", x), np.tanh(wide), rtol=digits, atol=0)
    assert np.allclose(call("sigmoid", x), np.exp(wide) / (1 + np.exp(wide)), rtol=digits, atol=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_in_place_is_sgd(nesterov: bool, dtype: type) -> None:
    p, velocity, _, g = optimiser_state(dtype=dtype)
    options = SGD | {"nesterov": nesterov}
    apart = call("sgd", p, velocity, g, **options)
    h = g + 0.01 * p.astype(np.float64)
    v = 0.9 * velocity + h
    assert close(apart[1], v)
    assert close(apart[0], p - 0.1 * (h + 0.9 * v if nesterov else v))
    assert p.dtype == apart[0].dtype == dtype
    before = g.copy()
    call("sgd", p, velocity, g, out=(p, velocity), **options)
    assert np.array_equal(p, apart[0])
    assert np.array_equal(velocity, apart[1])
    assert np.array_equal(g, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adam_in_place_is_adam(dtype: type) -> None:
    p, m, v, g = optimiser_state(dtype=dtype)
    apart = call("adam", p, m, v, g, **ADAM)
    h = g + 0.01 * p.astype(np.float64)
    m1, v1 = 0.9 * m + 0.1 * h, 0.999 * v + 0.001 * h * h
    p1 = p - 0.1 * (m1 / (1 - 0.9**3)) / (np.sqrt(v1 / (1 - 0.999**3)) + 1e-8)
    for y, truth in zip(apart, (p1, m1, v1), strict=True):
        assert y.dtype == dtype
        assert close(y, truth)
    call("adam", p, m, v, g, out=(p, m, v), **ADAM)
    assert all(np.array_equal(a, b) for a, b in zip((p, m, v), apart, strict=True))


def test_dropout_counts_elements_across_the_whole_array() -> None:
    """The mask of a large array starts with the mask of a small one, and keeps 70 % of it."""
    x = np.ones(BIG, np.float32)
    y = call("dropout", x, rate=0.3, seed=11).ravel()
    assert np.array_equal(call("dropout", x[:1, :5], rate=0.3, seed=11).ravel(), y[: 5 * 67 * 9])
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((y != 0).mean() - 0.7) <= 5 * np.sqrt(0.21 / y.size)


@pytest.mark.parametrize("bad", [-1, 61 * 67, 2**31 - 1])
def test_an_index_outside_the_plane_is_an_error(bad: int) -> None:
    values, indices = normal(*REDUCED), drawn_indices()
    indices[1, 7, 8, 2] = bad
    with pytest.raises(ValueError, match="the plane has 4087 pixels"):
        call("scatter_by_index", values, indices, size=(61, 67))
    with pytest.raises(ValueError, match="the plane has 4087 pixels"):
        call("gather_by_index", normal(*BIG), indices)


@pytest.mark.parametrize("bad", [-1, 9, 2**31 - 1])
def test_a_target_that_is_no_class_is_an_error(bad: int) -> None:
    target = drawn_target()
    target[2, 3, 4] = bad
    one = np.ones(1, np.float32)
    for name, between, options in (
        ("softmax_cross_entropy", (), {"reduction": "mean"}),
        ("softmax_cross_entropy_grad", (one, one), {}),
    ):
        with pytest.raises(ValueError, match=f"no class of 0..8 and not ignore_index .255., for example {bad}"):
            call(name, normal(*BIG), target, *between, None, None, ignore_index=255, **options)


def test_ignored_pixels_with_infinite_logits_do_not_count() -> None:
    x, target = normal(*BIG), drawn_target()
    x[0, :5] = np.inf
    x[0, 2] = np.nan
    found = sums("softmax_cross_entropy", x, target, call=call, ignore_index=255)
    assert np.isfinite(found).all()
    assert close(found[2], (target != 255).sum(), 1e-7)
    one = np.ones(1, np.float32)
    grad = call("softmax_cross_entropy_grad", x, target, one, one, ignore_index=255)
    assert np.isfinite(grad).all()
    assert not grad[0, :5].any()
