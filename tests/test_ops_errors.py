"""What operations refuse: one line that names both values, and nothing left behind."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from minunet import ops

pytestmark = pytest.mark.usefixtures("backend")


def zeros(*shape: int, dtype: type = np.float64) -> np.ndarray:
    return np.zeros(shape, dtype)


X, W3 = zeros(1, 6, 5, 2), zeros(3, 3, 3, 2)
I32 = zeros(1, 3, 2, 2, dtype=np.int32)
LABELS = zeros(1, 6, 5, dtype=np.int64)
TWO = zeros(2)
REFUSED = {
    "conv2d channels": (lambda: ops.conv2d(X, zeros(3, 3, 3, 4)), ValueError, "2 channels.*expects 4"),
    "conv2d three axes": (lambda: ops.conv2d(X[0], W3), ValueError, r"\(6, 5, 2\).*\(3, 3, 3, 2\)"),
    "conv2d bias": (lambda: ops.conv2d(X, W3, zeros(4)), ValueError, r"\(4,\).*3 channels"),
    "conv2d kernel too large": (lambda: ops.conv2d(X, zeros(1, 7, 3, 2)), ValueError, "6 x 5.*7 x 3"),
    "conv2d dtypes": (lambda: ops.conv2d(X, W3.astype(np.float32)), TypeError, "float32.*float64"),
    "conv2d padding word": (lambda: ops.conv2d(X, W3, padding="sam"), ValueError, "'sam'.*valid.*same.*full"),
    "conv2d padding float": (lambda: ops.conv2d(X, W3, padding=1.5), ValueError, "1.5.*integer or a pair"),
    "conv2d padding of three": (lambda: ops.conv2d(X, W3, padding=(1, 2, 3)), ValueError, r"\(1, 2, 3\)"),
    "conv2d negative padding": (lambda: ops.conv2d(X, W3, padding=-1), ValueError, "padding is -1.*negative"),
    "conv2d stride 0": (lambda: ops.conv2d(X, W3, stride=0, padding="same"), ValueError, "stride is 0.*least 1"),
    "conv2d dilation 0": (lambda: ops.conv2d(X, W3, dilation=(1, 0)), ValueError, r"dilation is \(1, 0\).*1"),
    "conv2d activation": (lambda: ops.conv2d(X, W3, activation="rely"), ValueError, "'rely'.*relu"),
    "transposed channels": (lambda: ops.conv_transpose2d(X, W3), ValueError, "2.*3"),
    "transposed stride 0": (lambda: ops.conv_transpose2d(X, zeros(2, 2, 2, 1), stride=0), ValueError, "is 0.*least 1"),
    "output padding": (
        lambda: ops.conv_transpose2d(X, zeros(2, 2, 2, 1), stride=2, output_padding=2),
        ValueError,
        r"\(2, 2\).*stride \(2, 2\)",
    ),
    "transposed same": (
        lambda: ops.conv_transpose2d(X, zeros(2, 2, 2, 1), None, 2, "same", 1),
        ValueError,
        "same.*output_padding",
    ),
    "nothing left": (lambda: ops.conv_transpose2d(X, zeros(2, 2, 2, 1), padding=9), ValueError, "9.*one pixel"),
    "pool kernel": (lambda: ops.max_pool2d(X, 7), ValueError, "7.*6"),
    "pool kernel 0": (lambda: ops.max_pool2d(X, 0), ValueError, "kernel is 0.*least 1"),
    "pool stride 0": (lambda: ops.max_pool2d(X, 2, 0), ValueError, "stride is 0.*least 1"),
    "pool padding": (lambda: ops.max_pool2d(X, 2, 2, 2), ValueError, "2.*half the kernel"),
    "unpool outside": (lambda: ops.max_unpool2d(X[:, :3, :2], I32 + 12, (3, 4)), ValueError, "12.*3 x 4"),
    "unpool negative": (lambda: ops.max_unpool2d(X[:, :3, :2], I32 - 1, (3, 4)), ValueError, "-1.*3 x 4"),
    "unpool shapes": (lambda: ops.max_unpool2d(X, I32, (6, 5)), ValueError, r"\(1, 6, 5, 2\).*\(1, 3, 2, 2\)"),
    "unpool int64": (lambda: ops.max_unpool2d(X[:, :3, :2], I32.astype(np.int64), (3, 4)), TypeError, "int64.*int32"),
    "skip too small": (lambda: ops.crop_concat(X, X[:, :5]), ValueError, r"\(1, 5, 5, 2\).*\(1, 6, 5, 2\)"),
    "concat sizes": (lambda: ops.concat([X, X[:, :5]]), ValueError, r"\(1, 5, 5, 2\).*\(1, 6, 5, 2\).*crop_concat"),
    "concat nothing": (lambda: ops.concat([]), ValueError, "one tensor at least"),
    "pad reflect": (lambda: ops.pad(X, (0, 5), "reflect"), ValueError, r"5, 5.*6 x 5"),
    "pad mode": (lambda: ops.pad(X, 1, "edge"), ValueError, "'edge'.*reflect"),
    "pad negative": (lambda: ops.pad(X, -1), ValueError, "-1.*negative"),
    "upsample neither": (lambda: ops.upsample(X), ValueError, "either scale or size"),
    "upsample both": (lambda: ops.upsample(X, 2, (12, 10)), ValueError, "either scale or size"),
    "upsample mode": (lambda: ops.upsample(X, 2, mode="cubic"), ValueError, "'cubic'.*'bilinear'"),
    "upsample nearest, aligned": (lambda: ops.upsample(X, 2, align_corners=True), ValueError, "align_corners.*bilin"),
    "upsample to nothing": (lambda: ops.upsample(X, size=(0, 3)), ValueError, r"\(0, 3\).*no pixels"),
    "upsample scale 1.5": (lambda: ops.upsample(X, 1.5), ValueError, "1.5.*integer"),
    "batch norm gamma": (lambda: ops.batch_norm(X, zeros(3), TWO, TWO, TWO, True), ValueError, r"gamma.*\(3,\).*2"),
    "batch norm mean": (lambda: ops.batch_norm(X, TWO, TWO, zeros(1), TWO, True), ValueError, r"mean.*\(1,\).*2"),
    "batch norm activation": (
        lambda: ops.batch_norm(X, TWO, TWO, TWO, TWO, True, activation="elu"),
        ValueError,
        "'elu'.*'relu'",
    ),
    "elu alpha": (lambda: ops.elu(X, 0.0), ValueError, "0.0.*positive"),
    "prelu slope": (lambda: ops.prelu(X, zeros(3)), ValueError, r"\(3,\).*2 channels"),
    "dropout rate 1": (lambda: ops.dropout(X, 1.0, 0), ValueError, "1.0.*less than 1"),
    "dropout rate -0.1": (lambda: ops.dropout(X, -0.1, 0), ValueError, "-0.1.*least 0"),
    "dropout seed": (lambda: ops.dropout(X, 0.5, -1), ValueError, "-1.*64-bit"),
    "add shapes": (lambda: ops.add(X, X[:, :5]), ValueError, r"\(1, 6, 5, 2\).*\(1, 5, 5, 2\)"),
    "label too large": (lambda: ops.softmax_cross_entropy(X, LABELS + 2), ValueError, r"label 2.*0\.\.1.*255"),
    "label negative": (lambda: ops.softmax_cross_entropy(X, LABELS - 1), ValueError, r"label -1.*0\.\.1.*255"),
    "label float": (lambda: ops.softmax_cross_entropy(X, LABELS + 0.0), TypeError, "float64.*integer"),
    "label shape": (lambda: ops.softmax_cross_entropy(X, LABELS[:, :5]), ValueError, r"\(1, 5, 5\).*\(1, 6, 5\)"),
    "weight map shape": (
        lambda: ops.softmax_cross_entropy(X, LABELS, zeros(1, 5, 6)),
        ValueError,
        r"\(1, 5, 6\).*\(1, 6, 5\)",
    ),
    "class weights": (
        lambda: ops.softmax_cross_entropy(X, LABELS, class_weight=zeros(3)),
        ValueError,
        r"\(3,\).*2 channels",
    ),
    "reduction": (lambda: ops.softmax_cross_entropy(X, LABELS, reduction="avg"), ValueError, "'avg'.*'weighted'"),
}


@pytest.mark.parametrize("label", REFUSED)
def test_refused(label):
    call, error, words = REFUSED[label]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=words) as caught:
            call()
    assert "\n" not in str(caught.value)


def test_a_refused_batch_norm_leaves_the_running_statistics():
    mean, var = np.zeros(2), np.ones(2)
    with pytest.raises(ValueError, match="gamma"):
        ops.batch_norm(X + 1, zeros(3), TWO, mean, var, training=True)
    assert np.array_equal(mean, zeros(2))
    assert np.array_equal(var, np.ones(2))
