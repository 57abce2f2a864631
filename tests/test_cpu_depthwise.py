"""What the conformance suite does not ask of the CPU's depthwise convolution: maps that threads share, many blocks of
pixels in a row, many channels, the same bits for any number of threads, NaN, and the tables of taps."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import pytest

from minunet import backends
from minunet.backends import call
from minunet.backends.cpu import depthwise

SIZES = {  # label: (N, H, W, C), (O / C, KH, KW), stride, padding, dilation
    "3x3": ((2, 37, 53, 19), (1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "3x3, 130 channels": ((1, 23, 21, 130), (1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "3x3 stride 2": ((3, 41, 38, 16), (1, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    "stride 2 x 3, dilation 3 x 2": ((1, 40, 61, 33), (1, 3, 4), (2, 3), (2, 1, 0, 3), (3, 2)),
    "stride 4, dilation 2": ((1, 45, 43, 20), (1, 3, 3), (4, 4), (2, 2, 2, 2), (2, 2)),
    "two outputs a channel": ((1, 31, 42, 18), (2, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "7x7": ((1, 33, 35, 34), (1, 7, 7), (1, 1), (3, 3, 3, 3), (1, 1)),
    "wide": ((1, 2, 1500, 16), (1, 2, 3), (1, 1), (0, 0, 1, 1), (1, 1)),
}
each_size = pytest.mark.parametrize("label", SIZES)


@pytest.fixture(autouse=True)
def _cpu() -> Iterator[None]:
    """The CPU backend, outputs full of NaN beforehand, and the number of threads put back afterwards."""
    threads = numba.get_num_threads()
    with backends.use_backend("cpu"), backends.poison():
        yield
    numba.set_num_threads(threads)


def every_kernel(label: str, dtype: type) -> list[np.ndarray]:
    """y with bias and ReLU, dx, dw."""
    (n, h, w, c), (m, *kernel), stride, padding, dilation = SIZES[label]
    rng = np.random.default_rng(0)
    x, weights, b = (
        rng.standard_normal(shape).astype(dtype) for shape in ((n, h, w, c), (m * c, *kernel, 1), (m * c,))
    )
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    y = call("depthwise_conv2d", x, weights, b, **options, activation="relu")
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = call("depthwise_conv2d_grad_x", dy, weights, **options, size=(h, w, c))
    return [y, dx, call("depthwise_conv2d_grad_w", x, dy, **options, size=tuple(kernel))]


@each_size
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-14)])
def test_large_maps_match_the_reference(label: str, dtype: type, tolerance: float) -> None:
    results = every_kernel(label, dtype)
    with backends.use_backend("reference"):
        truths = every_kernel(label, dtype)
    for y, truth in zip(results, truths, strict=True):
        assert y.dtype == dtype
        assert np.isfinite(y).all()
        assert np.linalg.norm(y.astype(np.float64) - truth) <= tolerance * np.linalg.norm(truth)


@each_size
def test_same_bits_for_one_and_two_threads_and_twice(label: str) -> None:
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("only one thread here: NUMBA_NUM_THREADS or the number of cores is 1")
    numba.set_num_threads(1)
    one = every_kernel(label, np.float32)
    numba.set_num_threads(2)
    for _ in range(2):
        for a, b in zip(one, every_kernel(label, np.float32), strict=True):
            assert np.array_equal(a, b)


def test_nan_reaches_its_window_and_its_channel_only() -> None:
    x, w = np.ones((1, 40, 40, 40), np.float32), np.ones((40, 3, 3, 1), np.float32)
    x[0, 20, 7, 3] = np.nan
    options = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "activation": "relu"}
    bad = np.isnan(call("depthwise_conv2d", x, w, **options))
    expected = np.zeros(x.shape, bool)
    expected[0, 19:22, 6:9, 3] = True
    assert np.array_equal(bad, expected)


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize(
    "size, kernel, stride, pad, dilation",
    [(9, 3, 1, 1, 1), (9, 3, 2, 1, 1), (10, 2, 3, 0, 1), (11, 3, 4, 2, 2), (8, 4, 2, 3, 3), (5, 3, 1, 18, 18)],
)
def test_tables_hold_every_meeting_once(size, kernel, stride, pad, dilation, adjoint) -> None:
    """Each position is in one run, and the taps of a run are those that meet the source, wherever it moves."""
    out = (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
    meets = {
        (p, k, p * stride - pad + k * dilation) for p in range(out) for k in range(kernel)
    }  # position of y, tap, position of x
    expected = {(p, k, s) for p, k, s in meets if 0 <= s < size}
    ends = (size, out) if adjoint else (out, size)
    axis, runs = depthwise._columns(*ends, kernel, stride, pad, dilation, adjoint, 8)
    found, positions = [], []
    for first, count, tap, taps, source in runs.tolist():
        assert 1 <= count <= 8
        for r in range(count):
            p = first + r * axis.period
            positions.append(p)
            for k in range(taps):
                s = source + r * axis.move + k * axis.source_step
                found.append((s, tap + k * axis.tap_step, p) if adjoint else (p, tap + k * axis.tap_step, s))
    assert sorted(positions) == list(range(ends[0]))
    assert len(found) == len(set(found))
    assert set(found) == expected
