"""Operations on channels and windows as functions: groups, crops, averages, gates, norms across channels."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import close, few, normal, property_test, seeds, sizes
from hypothesis import given
from hypothesis import strategies as st

from minunet import backends, ops
from minunet.tensor import Tensor

pytestmark = pytest.mark.usefixtures("backend")


# --- groups


@property_test
@given(seeds, sizes, sizes, few, few, few, st.tuples(few, few), st.tuples(few, few), st.tuples(few, few))
def test_a_grouped_convolution_is_a_full_one_with_zeros(seed, h, w, groups, c, o, kernel, stride, dilation):
    """Weights between different groups are 0 in the full convolution; c = 1 is the depthwise case."""
    x, filters = normal(seed, 2, h, w, groups * c), normal(seed + 1, groups * o, *kernel, c)
    full = np.zeros((groups * o, *kernel, groups * c))
    for g in range(groups):
        full[g * o : (g + 1) * o, ..., g * c : (g + 1) * c] = filters[g * o : (g + 1) * o]
    b = normal(seed + 2, groups * o)
    for activation in (None, "relu", "tanh"):
        options = {"stride": stride, "padding": "same", "dilation": dilation, "activation": activation}
        y = ops.conv2d(x, filters, b, **options, groups=groups)
        assert close(y.numpy() + 2, ops.conv2d(x, full, b, **options).numpy() + 2)


def test_which_kernels_run_for_which_groups():
    x = np.ones((1, 4, 4, 6), np.float32)
    for groups, kernels in ((1, {"conv2d"}), (6, {"depthwise_conv2d"}), (3, {"conv2d", "crop", "crop_concat"})):
        with backends.count() as counter:
            ops.conv2d(x, np.ones((12, 3, 3, 6 // groups), np.float32), None, groups=groups)
        assert set(counter.by_kernel) == kernels
        assert counter.flops == 2 * 2 * 2 * 12 * 9 * 6 // groups


# --- windows of space and channels


@property_test
@given(seeds, sizes, sizes, few, st.data())
def test_crop_is_a_slice(seed, h, w, c, data):
    x = normal(seed, 2, h, w, c)
    size = data.draw(st.integers(1, h)), data.draw(st.integers(1, w))
    top, left = data.draw(st.integers(0, h - size[0])), data.draw(st.integers(0, w - size[1]))
    y = ops.crop(x, size, (top, left)).numpy()
    assert np.array_equal(y, x[:, top : top + size[0], left : left + size[1]])
    centre = ops.crop(x, size).numpy()
    skip = ops.crop_concat(np.zeros((2, *size, 1)), x).numpy()[..., 1:]
    assert np.array_equal(centre, skip)  # the same centre as U-Net's skip connection takes


@property_test
@given(seeds, sizes, sizes, st.lists(few, min_size=1, max_size=5))
def test_split_takes_concat_apart(seed, h, w, channels):
    x = normal(seed, 2, h, w, sum(channels))
    pieces = ops.split(x, channels)
    assert [piece.shape for piece in pieces] == [(2, h, w, c) for c in channels]
    assert np.array_equal(ops.concat(pieces).numpy(), x)


def test_pad_channels_appends_zeros():
    x = normal(0, 2, 3, 4, 5)
    y = ops.pad_channels(x, 8).numpy()
    assert np.array_equal(y[..., :5], x)
    assert y.shape == (2, 3, 4, 8)
    assert not y[..., 5:].any()


@property_test
@given(seeds, sizes, sizes, few, few, few, st.booleans())
def test_avg_pool_without_padding_is_the_mean_of_each_window(seed, h, w, c, kh, kw, overlap):
    kernel = min(kh, h), min(kw, w)
    stride = (1, 1) if overlap else kernel
    windows = np.lib.stride_tricks.sliding_window_view(normal(seed, 2, h, w, c), kernel, axis=(1, 2))
    expected = windows[:, :: stride[0], :: stride[1]].mean(axis=(4, 5))
    y = ops.avg_pool2d(normal(seed, 2, h, w, c), kernel, None if not overlap else 1)
    assert close(y.numpy() + 1, expected + 1)


def test_zeros_of_the_padding_count():
    y = ops.avg_pool2d(np.ones((1, 4, 5, 2)), 3, 1, 1).numpy()[0, :, :, 1]
    assert close(y[0], np.array([4, 6, 6, 6, 4]) / 9)
    assert close(y[1:-1, 1:-1], np.ones((2, 3)))


# --- gates and channel dropout


def test_dropout_channels_drops_whole_channels_of_a_sample():
    x = normal(3, 7, 4, 5, 40) + 10.0
    y = ops.dropout_channels(x, 0.25, 11).numpy()
    kept = (y != 0).any(axis=(1, 2))  # (N, C)
    assert np.array_equal(kept, (y != 0).all(axis=(1, 2)))
    assert close(y, x / 0.75 * kept[:, None, None, :])
    mask = ops.dropout(np.ones((7, 1, 1, 40)), 0.25, 11).numpy()
    assert np.array_equal(kept, mask[:, 0, 0] != 0)
    assert abs((~kept).mean() - 0.25) <= 5 * np.sqrt(0.25 * 0.75 / kept.size)
    assert len({tuple(row) for row in kept}) == 7  # samples lose different channels
    assert np.array_equal(y, ops.dropout_channels(x, 0.25, 11).numpy())
    assert not np.array_equal(y, ops.dropout_channels(x, 0.25, 12).numpy())
    assert np.array_equal(ops.dropout_channels(x, 0.0, 11).numpy(), x)


def test_a_gate_that_wants_no_gradient_costs_none():
    x = Tensor(normal(0, 2, 3, 4, 5), requires_grad=True)
    with backends.count() as counter:
        ops.gate(x, normal(1, 2, 1, 1, 5)).backward(normal(2, 2, 3, 4, 5))
    assert counter.by_kernel["gate"][0] == 2
    assert "gate_grad_g" not in counter.by_kernel


# --- normalisation


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_fold_batch_norm(dtype, tolerance, groups, bias):
    """A convolution and its batch-norm in evaluation are one convolution, transposed ones too."""
    mean, gamma, beta, b = (normal(k, 8).astype(dtype) for k in range(4))
    var = np.random.default_rng(4).uniform(0.3, 2, 8).astype(dtype)
    b = b if bias else None
    x, w = normal(5, 2, 7, 6, 4).astype(dtype), normal(6, 8, 3, 3, 4 // groups).astype(dtype)
    folded = ops.fold_batch_norm(Tensor(w, requires_grad=True), b, mean, var, Tensor(gamma), beta, 1e-3)
    assert not any(t.requires_grad for t in folded)
    y = ops.conv2d(x, w, b, padding="same", groups=groups)
    expected = ops.batch_norm(y, gamma, beta, mean, var, training=False, eps=1e-3, activation="elu")
    both = ops.conv2d(x, *folded, padding="same", activation="elu", groups=groups)
    assert both.dtype == dtype
    assert close(both, expected.numpy(), tolerance)
    up = normal(7, 4, 2, 2, 8).astype(dtype)
    y = ops.batch_norm(ops.conv_transpose2d(x, up, b, 2), gamma, beta, mean, var, training=False, eps=1e-3)
    folded = ops.fold_batch_norm(up, b, mean, var, gamma, beta, 1e-3, axis=-1)
    assert close(ops.conv_transpose2d(x, *folded, 2), y.numpy(), tolerance)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_takes_the_bias_of_the_convolution_before(training):
    x, gamma, beta, bias = (
        Tensor(normal(k, *s), requires_grad=True) for k, s in enumerate([(2, 5, 4, 3), *[(3,)] * 3])
    )
    dy, found = normal(5, 2, 5, 4, 3), []
    for separate in (True, False):
        running = normal(6, 3), np.abs(normal(7, 3))
        options = {"training": training, "activation": "relu"}
        if separate:
            ones = Tensor(np.ones((3, 1, 1, 1)))  # x + bias by a depthwise convolution
            y = ops.batch_norm(ops.conv2d(x, ones, bias, groups=3), gamma, beta, *running, **options)
        else:
            y = ops.batch_norm(x, gamma, beta, *running, bias=bias, **options)
        for t in (x, gamma, beta, bias):
            t.grad = None
        y.backward(dy)
        found.append([y.numpy(), *running, *(t.grad for t in (x, gamma, beta, bias))])
    for plain, taken in zip(*found):
        assert abs(plain - taken).max() <= 1e-12 * max(1, abs(plain).max())
    assert (found[1][-1] == 0).all() == training


@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_with_an_activation_is_both(activation, training):
    x, gamma, beta = normal(0, 2, 5, 4, 3), normal(1, 3), normal(2, 3)
    plain, fused = (
        ops.batch_norm(x, gamma, beta, np.zeros(3), np.ones(3), training, activation=a) for a in (None, activation)
    )
    assert close(fused, ops.ACTIVATIONS[activation](plain).numpy())


def test_l2_normalized_pixels_have_length_one_and_zero_stays_zero():
    x = normal(0, 2, 3, 4, 32)
    x[0, 1, 2] = 0
    y = Tensor(x, requires_grad=True)
    lengths = np.linalg.norm(ops.l2_normalize(y).numpy(), axis=-1)
    assert lengths[0, 1, 2] == 0
    lengths[0, 1, 2] = 1
    assert np.abs(lengths - 1).max() <= 1e-14


def test_lrn_of_segnet_basic_hardly_changes_a_photo():
    """With alpha 1e-4 a grey pixel of 255, 255, 255 shrinks by (1 + 1e-4 / 5 * 3 * 255^2)^-0.75."""
    y = ops.lrn(np.full((1, 2, 3, 3), 255.0)).numpy()
    assert close(y, np.full(y.shape, 255.0 * (1 + 1e-4 / 5 * 3 * 255.0**2) ** -0.75), 1e-14)
