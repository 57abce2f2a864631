"""Every kernel of the CPU backend but convolution at sizes at which threads share the work: the same bits for any
number of threads, and the reference's values."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numba
import numpy as np
import pytest
from cpu_arrays import ADAM, BIG, REDUCED, SGD, close, cpu, drawn_indices, drawn_target, normal, optimiser_state

from minunet import backends
from minunet.backends import call


@pytest.fixture(autouse=True)
def _cpu() -> Iterator[None]:
    with cpu():
        yield


PLACES = np.array([[0, 3, -4, 1, 1], [2, -8, 20, 0, 0], [1, 30, 2, 2, 1], [2, 0, 0, 3, 0]], np.int32)
NODES = np.random.default_rng(6).normal(0, 4, (4, 2, 3, 3))
BORDERS = {"w0": 10.0, "sigma": 2.0, "reach": 12, "rim": 3, "everywhere": False}
FOCAL = {"gamma": 2.0, "alpha": 0.25, "ignore_index": 255}
LRN = {"size": 5, "alpha": 2.0, "beta": 0.75}
AVERAGE = {"kernel": (2, 3), "stride": (2, 2), "padding": (0, 0)}


def _bits(dtype: np.dtype) -> np.ndarray:
    bits = np.random.default_rng(5).integers(0, 2, BIG).astype(dtype)
    bits[0, :5] = 255
    return bits


def every_kernel(x: np.ndarray, dy: np.ndarray) -> dict[str, Callable[[], object]]:
    """One call of each kernel on x and dy of shape BIG."""
    c, dtype = x.shape[-1], x.dtype
    v = [normal(c, seed=k, dtype=dtype) for k in range(4)]
    v[1] = np.abs(v[1]) + dtype.type(0.5)
    small, indices, target = normal(*REDUCED, dtype=dtype, seed=8), drawn_indices(), drawn_target()
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
        "deform": lambda: call("deform", x, PLACES, NODES, size=(60, 50), cubic=True),
        "deform linear": lambda: call("deform", x, PLACES, NODES, size=(60, 50), cubic=False),
        "deform plain": lambda: call("deform", x, PLACES, size=(60, 50), cubic=True),
        "deform_nearest": lambda: call("deform_nearest", target, PLACES, NODES, size=(60, 50), outside=255),
        "gamma_curve": lambda: call("gamma_curve", x, v[1][:3]),
        "stretch": lambda: call("stretch", x, small[0, :3, 0].copy(), small[0, :3, 1].copy()),
        "add_noise": lambda: call("add_noise", x, v[1][:3], seed=2**63 + 7),
        "border_weights": lambda: call("border_weights", indices[..., 0] // 512, **BORDERS),
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
        assert np.array_equal(y, t) if y.dtype == np.int32 else close(y, t, 5e-6 if y.dtype == np.float32 else 1e-12)
