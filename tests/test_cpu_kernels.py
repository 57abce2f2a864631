"""What the conformance suite does not ask of the CPU backend: threads, sizes at which they share the work, NaN, the
optimisers' own memory, statistics far from zero, wrong indices and labels. Truth is plain NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numba
import numpy as np
import pytest
from checks import sums
from numpy.lib.stride_tricks import sliding_window_view

from minunet import backends
from minunet.backends import call

# 3 * 61 * 67 * 9 = 110349 elements: beyond the size from which threads share a kernel, and a multiple of nothing.
BIG = (3, 61, 67, 9)
F32_TOLERANCE = 5e-6


@pytest.fixture(autouse=True)
def _cpu() -> Iterator[None]:
    """The CPU backend, outputs full of NaN beforehand, and the number of threads put back afterwards."""
    threads = numba.get_num_threads()
    with backends.use_backend("cpu"), backends.poison():
        yield
    numba.set_num_threads(threads)


def normal(*shape: int, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(a: np.ndarray, b: np.ndarray, tolerance: float = F32_TOLERANCE) -> bool:
    error = np.linalg.norm((a.astype(np.float64) - b).ravel())
    return bool(np.isfinite(a).all() and a.shape == b.shape and error <= tolerance * np.linalg.norm(b.ravel()))


def optimiser_state(seed: int = 0, dtype: type = np.float32) -> list[np.ndarray]:
    """p, m, v >= 0, g."""
    p, m, v, g = (normal(*BIG, seed=seed + k, dtype=dtype) for k in range(4))
    return [p, m, v * v, g]


SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01, "step": 3}
FOCAL = {"gamma": 2.0, "alpha": 0.25, "ignore_index": 255}
LRN = {"size": 5, "alpha": 2.0, "beta": 0.75}
AVERAGE = {"kernel": (2, 3), "stride": (2, 2), "padding": (0, 0)}
REDUCED = (3, 30, 33, 9)


def _indices() -> np.ndarray:
    """Anything inside a plane of 61 x 67, over and over."""
    return np.random.default_rng(3).integers(0, 61 * 67, REDUCED).astype(np.int32)


def _target(classes: int = 9) -> np.ndarray:
    target = np.random.default_rng(4).integers(0, classes, BIG[:3]).astype(np.int32)
    target[0, :5] = 255
    return target


def _bits(dtype: np.dtype) -> np.ndarray:
    bits = np.random.default_rng(5).integers(0, 2, BIG).astype(dtype)
    bits[0, :5] = 255
    return bits


def every_kernel(x: np.ndarray, dy: np.ndarray) -> dict[str, Callable[[], object]]:
    """One call of each kernel on x and dy of shape BIG."""
    c, dtype = x.shape[-1], x.dtype
    v = [normal(c, seed=k, dtype=dtype) for k in range(4)]
    v[1] = np.abs(v[1]) + dtype.type(0.5)
    small, indices, target = normal(*REDUCED, dtype=dtype, seed=8), _indices(), _target()
    inner = normal(3, 50, 51, 4, dtype=dtype, seed=9)
    wide = normal(3, 65, 70, 9, dtype=dtype, seed=10)
    bits, rows = _bits(dtype), x.reshape(BIG[0], -1, c)
    p, m, s, g = optimiser_state(dtype=dtype.type)
    border = (2, 2, 1, 2)
    half, one = np.full(1, 0.5, dtype), np.ones(1, dtype)
    window = {"kernel": (3, 2), "stride": (2, 2), "padding": (1, 0), "ceil_mode": False}
    return {
        "relu": lambda: call("relu", x),
        "relu_grad": lambda: call("relu_grad", dy, x),
        "leaky_relu": lambda: call("leaky_relu", x, slope=0.1),
        "leaky_relu_grad": lambda: call("leaky_relu_grad", dy, x, slope=0.1),
        "elu": lambda: call("elu", x, alpha=0.7),
        "elu_grad": lambda: call("elu_grad", dy, x, alpha=0.7),
        "sigmoid": lambda: call("sigmoid", x),
        "sigmoid_grad": lambda: call("sigmoid_grad", dy, x),
        "tanh": lambda: call("tanh", x),
        "tanh_grad": lambda: call("tanh_grad", dy, x),
        "gate": lambda: call("gate", x, normal(3, 1, 1, 9, dtype=dtype)),
        "gate_grad_g": lambda: call("gate_grad_g", x + dtype.type(0.5), x + dtype.type(0.5)),
        "prelu": lambda: call("prelu", x, v[0]),
        "prelu_grad": lambda: call("prelu_grad", dy, x, v[0]),
        "dropout": lambda: call("dropout", x, rate=0.3, seed=2**63 + 5),
        "add": lambda: call("add", x, dy, alpha=2.0, beta=-0.5),
        "scale": lambda: call("scale", x, factor=3.0),
        "channel_moments": lambda: call("channel_moments", x),
        "batch_norm": lambda: call("batch_norm", x, *v, eps=1e-5, activation="relu"),
        "batch_norm_grad": lambda: call("batch_norm_grad", dy, x, *v[:3], eps=1e-5, training=True),
        "fold_batch_norm": lambda: call("fold_batch_norm", x, *v, v[0], eps=1e-5, axis=-1),
        "lrn": lambda: call("lrn", x, **LRN),
        "lrn_grad": lambda: call("lrn_grad", dy, x, **LRN),
        "lrn_grad of any power": lambda: call("lrn_grad", dy, x, **(LRN | {"beta": 0.6})),
        "l2_normalize": lambda: call("l2_normalize", x, eps=1.0),
        "l2_normalize_grad": lambda: call("l2_normalize_grad", dy, x, eps=1.0),
        "avg_pool2d": lambda: call("avg_pool2d", x, **AVERAGE),
        "avg_pool2d_grad": lambda: call("avg_pool2d_grad", small, **AVERAGE, size=(60, 67)),
        "max_pool2d": lambda: call("max_pool2d", x, **window),
        "max_pool2d 2x2": lambda: call("max_pool2d", x, **(window | {"kernel": (2, 2), "padding": (0, 0)})),
        "scatter_by_index": lambda: call("scatter_by_index", small, indices, size=(61, 67)),
        "gather_by_index": lambda: call("gather_by_index", x, indices),
        "global_avg_pool": lambda: call("global_avg_pool", x),
        "global_avg_pool_grad": lambda: call("global_avg_pool_grad", normal(3, 1, 1, 9, dtype=dtype), size=(61, 67)),
        "upsample_nearest": lambda: call("upsample_nearest", small, size=(61, 67)),
        "upsample_nearest_grad": lambda: call("upsample_nearest_grad", x, size=(30, 33)),
        "upsample_bilinear": lambda: call("upsample_bilinear", small, size=(61, 67), align_corners=False),
        "upsample_bilinear_grad": lambda: call("upsample_bilinear_grad", x, size=(30, 33), align_corners=True),
        "crop_concat": lambda: call("crop_concat", inner, x),
        "crop_concat_grad": lambda: call("crop_concat_grad", dy, size=(66, 70), split=4),
        "crop": lambda: call("crop", x, offset=(3, 2, 1), size=(55, 60, 7)),
        "embed": lambda: call("embed", x, offset=(3, 0, 1), size=(65, 67, 12)),
        "embed all channels": lambda: call("embed", x, offset=(3, 1, 0), size=(65, 70, 9)),
        "pad": lambda: call("pad", x, padding=border, mode="reflect", value=0.0),
        "pad_grad": lambda: call("pad_grad", wide, padding=border, mode="reflect"),
        "softmax": lambda: call("softmax", x),
        "softmax_grad": lambda: call("softmax_grad", dy, x),
        "softmax_cross_entropy": lambda: call(
            "softmax_cross_entropy", x, target, None, v[1], ignore_index=255, reduction="weighted"
        ),
        "softmax_cross_entropy_grad": lambda: call(
            "softmax_cross_entropy_grad", x, target, half, one, None, v[1], ignore_index=255
        ),
        "pixel_cross_entropy": lambda: call("pixel_cross_entropy", x, target, ignore_index=255),
        "sigmoid_cross_entropy": lambda: call(
            "sigmoid_cross_entropy", x, bits, s, ignore_index=255, reduction="weighted"
        ),
        "sigmoid_cross_entropy_grad": lambda: call(
            "sigmoid_cross_entropy_grad", x, bits, half, one, s, ignore_index=255
        ),
        "focal_loss": lambda: call("focal_loss", x, bits, **FOCAL, reduction="mean"),
        "focal_loss_grad": lambda: call("focal_loss_grad", x, bits, half, one, **FOCAL),
        "overlap": lambda: call("overlap", x, dy, kind="dice", smooth=1.0),
        "overlap jaccard": lambda: call("overlap", x, dy, kind="jaccard", smooth=1.0),
        "overlap_grad": lambda: call("overlap_grad", x, half, np.array([-0.5, 0.25], dtype)),
        "distance": lambda: call("distance", x, dy, kind="smooth_l1"),
        "distance mse": lambda: call("distance", x, dy, kind="mse"),
        "distance mae": lambda: call("distance", x, dy, kind="mae"),
        "distance_grad": lambda: call("distance_grad", x, dy, half, kind="smooth_l1"),
        "distance_grad mse": lambda: call("distance_grad", x, dy, half, kind="mse"),
        "distance_grad mae": lambda: call("distance_grad", x, dy, half, kind="mae"),
        "matmul": lambda: call("matmul", rows, rows, transpose_a=True, transpose_b=False),
        "sgd": lambda: call("sgd", p, m, g, **SGD),
        "adam": lambda: call("adam", p, m, s, g, **ADAM),
    }


def arrays(result: object) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)


def test_every_kernel_but_convolution_is_among_them() -> None:
    """Otherwise a new kernel would not be tested here."""
    tested = {name.split()[0] for name in every_kernel(*INPUTS)}
    assert tested == {row.name for row in backends.ROWS.values() if row.stem != "conv"}


INPUTS = normal(*BIG, seed=1), normal(*BIG, seed=2)


@pytest.mark.parametrize("name", every_kernel(*INPUTS))
def test_same_bits_for_one_and_two_threads_and_twice(name: str) -> None:
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("only one thread here: NUMBA_NUM_THREADS or the number of cores is 1")
    kernel = every_kernel(*INPUTS)[name]
    numba.set_num_threads(1)
    one = [y.copy() for y in arrays(kernel())]
    numba.set_num_threads(2)
    for _ in range(2):
        for a, b in zip(one, arrays(kernel()), strict=True):
            assert np.isfinite(b).all()
            assert np.array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", every_kernel(*INPUTS))
def test_large_arrays_match_the_reference(name: str, dtype: type) -> None:
    """Beyond the size where threads share the work; the conformance suite's arrays are smaller."""
    x, dy = (a.astype(dtype) for a in INPUTS)
    result = arrays(every_kernel(x, dy)[name]())
    with backends.use_backend("reference"):
        truth = arrays(every_kernel(x, dy)[name]())
    for y, t in zip(result, truth, strict=True):
        assert y.dtype == t.dtype
        assert np.array_equal(y, t) if y.dtype == np.int32 else close(y, t, 5e-6 if dtype is np.float32 else 1e-12)


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
    values, indices = normal(*REDUCED), _indices()
    indices[1, 7, 8, 2] = bad
    with pytest.raises(ValueError, match="the plane has 4087 pixels"):
        call("scatter_by_index", values, indices, size=(61, 67))
    with pytest.raises(ValueError, match="the plane has 4087 pixels"):
        call("gather_by_index", normal(*BIG), indices)


@pytest.mark.parametrize("bad", [-1, 9, 2**31 - 1])
def test_a_target_that_is_no_class_is_an_error(bad: int) -> None:
    target = _target()
    target[2, 3, 4] = bad
    one = np.ones(1, np.float32)
    for name, between, options in (
        ("softmax_cross_entropy", (), {"reduction": "mean"}),
        ("softmax_cross_entropy_grad", (one, one), {}),
    ):
        with pytest.raises(ValueError, match=f"no class of 0..8 and not ignore_index .255., for example {bad}"):
            call(name, normal(*BIG), target, *between, None, None, ignore_index=255, **options)


def test_ignored_pixels_with_infinite_logits_do_not_count() -> None:
    x, target = normal(*BIG), _target()
    x[0, :5] = np.inf
    x[0, 2] = np.nan
    found = sums("softmax_cross_entropy", x, target, call=call, ignore_index=255)
    assert np.isfinite(found).all()
    assert close(found[2], (target != 255).sum(), 1e-7)
    one = np.ones(1, np.float32)
    grad = call("softmax_cross_entropy_grad", x, target, one, one, ignore_index=255)
    assert np.isfinite(grad).all()
    assert not grad[0, :5].any()
