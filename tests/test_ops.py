"""Operations as functions: values and shapes over random sizes. What they refuse: test_ops_errors.py."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import close, few, normal, property_test, seeds, sizes
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import signal

from minunet import ops
from minunet.tensor import Tensor

pytestmark = pytest.mark.usefixtures("backend")


# --- convolution


@property_test
@given(seeds, st.integers(1, 2), sizes, sizes, few, few, few, few)
def test_conv2d_is_scipys_correlation(seed, n, h, w, c, o, kh, kw):
    assume(kh <= h and kw <= w)
    x, filters, b = normal(seed, n, h, w, c), normal(seed + 1, o, kh, kw, c), normal(seed + 2, o)
    for padding in ("valid", "full"):
        expected = sum(
            np.stack([[signal.correlate2d(x[k, :, :, j], f[:, :, j], padding) for f in filters] for k in range(n)])
            for j in range(c)
        )  # (N, O, OH, OW)
        assert close(ops.conv2d(x, filters, b, padding=padding), expected.transpose(0, 2, 3, 1) + b)


def brute_force_conv(x, w, stride, pad, dilation):
    """The formula, one tap of one pixel at a time; None where the kernel does not fit."""
    (n, h, wd, _), (o, kh, kw, _) = x.shape, w.shape
    x = np.pad(x, ((0, 0), pad[:2], pad[2:], (0, 0)))
    rows = range(0, h + pad[0] + pad[1] - dilation[0] * (kh - 1), stride[0])
    columns = range(0, wd + pad[2] + pad[3] - dilation[1] * (kw - 1), stride[1])
    if not rows or not columns:
        return None
    y = np.zeros((n, len(rows), len(columns), o))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            for u in range(kh):
                for v in range(kw):
                    y[:, i, j] += x[:, top + u * dilation[0], left + v * dilation[1]] @ w[:, u, v].T
    return y


pads = st.tuples(*[st.integers(0, 3)] * 4)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@property_test
@given(seeds, sizes, sizes, few, few, st.integers(1, 5), few, pairs, pads, pairs)
def test_conv2d_is_its_formula(seed, h, w, c, o, kh, kw, stride, padding, dilation):
    x, filters = normal(seed, 2, h, w, c), normal(seed + 1, o, kh, kw, c)
    expected = brute_force_conv(x, filters, stride, padding, dilation)
    if expected is None:
        with pytest.raises(ValueError, match=rf"{h} x {w}.*smaller than the kernel {kh} x {kw}"):
            ops.conv2d(x, filters, None, stride, padding, dilation)
        return
    assert close(ops.conv2d(x, filters, None, stride, padding, dilation), expected)
    half = np.tile(np.float32(0.5), o)
    y = ops.conv2d(*(a.astype(np.float32) for a in (x, filters)), half, stride, padding, dilation, "relu")
    assert y.dtype == np.float32
    assert close(y.numpy() + 1, np.maximum(expected + 0.5, 0) + 1, 2e-5)


@property_test
@given(seeds, sizes, sizes, few, few, st.integers(1, 5), few, pairs)
def test_same_padding_keeps_the_size_over_the_stride(seed, h, w, c, o, kh, kw, stride):
    x, filters = normal(seed, 1, h, w, c), normal(seed + 1, o, kh, kw, c)
    assert ops.conv2d(x, filters, None, stride, "same").shape == (1, -(-h // stride[0]), -(-w // stride[1]), o)
    transposed = ops.conv_transpose2d(x, normal(seed, c, kh, kw, o), None, stride, "same")
    assert transposed.shape == (1, h * stride[0], w * stride[1], o)


def test_the_odd_pixel_of_same_padding_lies_below_and_right():
    x = np.arange(1.0, 5.0).reshape(1, 2, 2, 1)
    y = ops.conv2d(x, np.ones((1, 2, 2, 1)), padding="same").numpy()[0, :, :, 0]
    assert np.array_equal(y, [[10, 6], [7, 4]])


@property_test
@given(seeds, st.integers(1, 5), st.integers(1, 5), few, few, few, few, pairs, st.tuples(*[st.integers(0, 1)] * 6))
def test_conv_transpose2d_is_the_adjoint_of_conv2d(seed, h, w, c, o, kh, kw, stride, small):
    """For every image z of the output's size: sum(x conv2d(z)) = sum(conv_transpose2d(x) z)."""
    padding, extra = small[:4], tuple(min(e, s - 1) for e, s in zip(small[4:], stride))
    oh = (h - 1) * stride[0] - padding[0] - padding[1] + kh + extra[0]
    ow = (w - 1) * stride[1] - padding[2] - padding[3] + kw + extra[1]
    assume(min(oh, ow) >= 1)
    x, filters, b = normal(seed, 2, h, w, c), normal(seed + 1, c, kh, kw, o), normal(seed + 2, o)
    y = ops.conv_transpose2d(x, filters, None, stride, padding, extra)
    assert y.shape == (2, oh, ow, o)
    z = normal(seed + 3, 2, oh, ow, o)
    left, right = np.sum(x * ops.conv2d(z, filters, None, stride, padding).numpy()), np.sum(y.numpy() * z)
    error = abs(left - right)
    assert np.isfinite(error)
    assert error <= 1e-12 * np.linalg.norm(y.numpy()) * np.linalg.norm(z)
    assert close(ops.conv_transpose2d(x, filters, b, stride, padding, extra), y.numpy() + b)


# --- pooling and its way back


@property_test
@given(seeds, sizes, sizes, few, st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_max_pool_and_unpool(seed, h, w, c, kh, kw, ceil):
    assume(kh <= h and kw <= w)
    x = np.random.default_rng(seed).permutation(2 * h * w * c).reshape(2, h, w, c) + 1.0  # distinct and positive
    y, indices = ops.max_pool2d(x, (kh, kw), return_indices=True, ceil_mode=ceil)
    oh, ow = (-(-h // kh), -(-w // kw)) if ceil else (h // kh, w // kw)
    assert y.shape == indices.shape == (2, oh, ow, c)
    assert indices.dtype == np.int32
    for i in range(oh):
        for j in range(ow):
            window = x[:, i * kh : (i + 1) * kh, j * kw : (j + 1) * kw]
            assert np.array_equal(y.numpy()[:, i, j], window.max(axis=(1, 2)))
    n, k = np.arange(2)[:, None, None, None], np.arange(c)
    assert np.array_equal(x[n, indices // w, indices % w, k], y.numpy())  # the index says where the maximum is
    back = ops.max_unpool2d(y, indices, (h, w))
    assert back.shape == x.shape
    assert np.array_equal(back.numpy()[back.numpy() != 0], x[back.numpy() != 0])
    assert np.count_nonzero(back.numpy()) == y.data.size
    again, same = ops.max_pool2d(back, (kh, kw), return_indices=True, ceil_mode=ceil)
    assert np.array_equal(again.numpy(), y.numpy())
    assert np.array_equal(same, indices)


def test_the_first_of_equal_maxima_wins_and_takes_the_gradient():
    x = Tensor(np.zeros((1, 4, 4, 1)), requires_grad=True)
    y, indices = ops.max_pool2d(x, 2, return_indices=True)
    assert indices.ravel().tolist() == [0, 2, 8, 10]
    y.backward(np.ones(y.shape))
    assert np.flatnonzero(x.grad).tolist() == [0, 2, 8, 10]


def test_the_padding_of_a_pool_never_wins():
    y = ops.max_pool2d(np.full((1, 3, 5, 2), -7.0), 3, 2, 1)
    assert y.shape == (1, 2, 3, 2)
    assert np.array_equal(y.numpy(), np.full(y.shape, -7.0))


# --- joining and resampling


@property_test
@given(seeds, sizes, sizes, few, few, st.integers(0, 5), st.integers(0, 5))
def test_crop_concat_takes_the_centre(seed, h, w, c, cs, dh, dw):
    x, skip = normal(seed, 2, h, w, c), normal(seed + 1, 2, h + dh, w + dw, cs)
    y = ops.crop_concat(x, skip).numpy()
    i, j = dh // 2, dw // 2
    assert np.array_equal(y, np.concatenate([x, skip[:, i : i + h, j : j + w]], axis=3))


def test_the_first_skip_of_the_paper_is_cropped_from_row_88():
    skip = np.broadcast_to(np.arange(568.0)[None, :, None, None], (1, 568, 1, 1))
    y = ops.crop_concat(np.zeros((1, 392, 1, 2)), skip).numpy()
    assert np.array_equal(y[0, :, 0, 2], np.arange(88.0, 480.0))


@property_test
@given(seeds, sizes, sizes, few, sizes, sizes)
def test_upsample(seed, h, w, c, oh, ow):
    x = normal(seed, 2, h, w, c)
    y = ops.upsample(x, size=(oh, ow)).numpy()
    assert np.array_equal(y, x[:, np.arange(oh) * h // oh][:, :, np.arange(ow) * w // ow])
    for align in (False, True):
        y = ops.upsample(x, size=(oh, ow), mode="bilinear", align_corners=align).numpy()
        assert y.shape == (2, oh, ow, c)
        assert y.min() >= x.min() - 1e-12  # an average of neighbours
        assert y.max() <= x.max() + 1e-12
        flat = ops.upsample(np.full((1, h, w, 1), 2.5), size=(oh, ow), mode="bilinear", align_corners=align)
        assert close(flat, np.full((1, oh, ow, 1), 2.5), 1e-14)
    corners = np.ix_([0, 1], [0, oh - 1] if oh > 1 else [0], [0, ow - 1] if ow > 1 else [0], range(c))
    ends = np.ix_([0, 1], [0, h - 1] if oh > 1 else [0], [0, w - 1] if ow > 1 else [0], range(c))
    assert np.allclose(y[corners], x[ends], rtol=0, atol=1e-12)  # aligned
    assert ops.upsample(x, (3, 1)).shape == (2, 3 * h, w, c)
    assert ops.upsample(x, 3).shape == ops.upsample(x, (3, 3), mode="bilinear").shape == (2, 3 * h, 3 * w, c)


@property_test
@given(seeds, sizes, sizes, few, pads, st.sampled_from(["constant", "reflect"]))
def test_pad_is_numpys(seed, h, w, c, padding, mode):
    top, bottom, left, right = padding
    x = normal(seed, 1, h, w, c)
    if mode == "reflect" and (max(top, bottom) >= h or max(left, right) >= w):
        with pytest.raises(ValueError, match=rf"{h} x {w}"):
            ops.pad(x, padding, mode)
        return
    fill = {"constant_values": 1.5} if mode == "constant" else {}
    expected = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), mode, **fill)
    assert np.array_equal(ops.pad(x, padding, mode, 1.5).numpy(), expected)


# --- losses, dropout


@property_test
@given(seeds, sizes, sizes, st.integers(1, 5))
def test_cross_entropy_is_its_formula(seed, h, w, k):
    rng = np.random.default_rng(seed)
    logits, target = rng.normal(0, 3, (2, h, w, k)), rng.integers(0, k, (2, h, w))
    target[rng.random(target.shape) < 0.2] = 255
    weights, per_class = rng.uniform(0.1, 2, target.shape), rng.uniform(0.1, 2, k)
    counted = target != 255
    p = np.take_along_axis(ops.softmax(logits).numpy(), np.where(counted, target, 0)[..., None], 3)[..., 0]
    wp = np.where(counted, weights * per_class[np.where(counted, target, 0)], 0)
    total = np.sum(-np.log(p) * wp)
    for reduction, divisor in (("mean", counted.sum()), ("sum", 1), ("weighted", wp.sum())):
        loss = ops.softmax_cross_entropy(logits, target, weights, per_class, reduction=reduction)
        assert loss.shape == ()
        assert abs(loss.item() - (total / divisor if divisor else 0)) <= 1e-10 * max(total, 1e-3)


def test_huge_logits_stay_finite():
    logits = Tensor(np.array([1e4, -1e4, 0.0]).reshape(1, 1, 1, 3), requires_grad=True)
    loss = ops.softmax_cross_entropy(logits, np.array([[[1]]]))
    loss.backward()
    assert loss.item() == 2e4
    assert np.array_equal(logits.grad.ravel(), [1, -1, 0])


def test_dropout_is_a_function_of_seed_and_index():
    x = np.ones((2, 30, 41, 3))
    y = ops.dropout(x, 0.3, 7).numpy()
    assert np.array_equal(y, ops.dropout(x, 0.3, 7).numpy())
    assert not np.array_equal(y, ops.dropout(x, 0.3, 8).numpy())
    assert set(np.unique(y)) == {0.0, 1 / 0.7}
    assert abs((y == 0).mean() - 0.3) <= 4 * np.sqrt(0.3 * 0.7 / x.size)
    assert np.array_equal(ops.dropout(x, 0.0, 7).numpy(), x)
    flat = ops.dropout(x.reshape(-1)[:1000], 0.3, 7).numpy()
    assert np.array_equal(flat, y.reshape(-1)[:1000])


# --- batch normalisation


def test_running_statistics():
    x = normal(0, 3, 4, 5, 2)
    mean, var = np.array([1.0, -1.0]), np.array([2.0, 0.5])
    old = mean.copy(), var.copy()
    y = ops.batch_norm(x, np.ones(2), np.zeros(2), mean, var, training=True, momentum=0.3)
    flat = x.reshape(-1, 2)
    assert close(mean, 0.7 * old[0] + 0.3 * flat.mean(0))
    assert close(var, 0.7 * old[1] + 0.3 * flat.var(0, ddof=1))
    assert close(y, (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5))
    kept = mean.copy(), var.copy()
    y = ops.batch_norm(x, np.ones(2), np.zeros(2), mean, var, training=False)
    assert close(y, (x - mean) / np.sqrt(var + 1e-5))
    assert np.array_equal(kept[0], mean)
    assert np.array_equal(kept[1], var)


def test_a_later_training_step_does_not_reach_an_earlier_backward():
    """Gradients of an evaluated batch norm are those of the statistics it was evaluated with."""
    mean, var = np.array([1.0, -1.0]), np.array([2.0, 0.5])
    x = Tensor(normal(0, 3, 4, 5, 2), requires_grad=True)
    y = ops.batch_norm(x, np.ones(2), np.zeros(2), mean, var, training=False)
    ops.batch_norm(x, np.ones(2), np.zeros(2), mean, var, training=True)
    y.backward(np.ones(y.shape))
    assert close(x.grad, np.ones(y.shape) / np.sqrt(np.array([2.0, 0.5]) + 1e-5))


def test_one_value_a_channel_has_no_variance():
    mean, var = np.zeros(2), np.ones(2)
    y = ops.batch_norm(np.array([5.0, -3.0]).reshape(1, 1, 1, 2), np.ones(2), np.array([0.1, 0.2]), mean, var, True)
    assert np.array_equal(y.numpy().ravel(), [0.1, 0.2])
    assert np.isfinite(var).all()
