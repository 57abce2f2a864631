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
ONE, BITS = zeros(1, 6, 5, 1), zeros(1, 6, 5)  # logits of two classes and their label map
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
    "conv2d groups": (lambda: ops.conv2d(X, zeros(3, 3, 3, 1), groups=2), ValueError, "groups 2.*2 channels.*3 of w"),
    "conv2d groups 0": (lambda: ops.conv2d(X, W3, groups=0), ValueError, "groups 0"),
    "conv2d groups beyond the channels": (lambda: ops.conv2d(X, zeros(4, 3, 3, 1), groups=4), ValueError, "groups 4"),
    "conv2d depthwise weights": (lambda: ops.conv2d(X, zeros(2, 3, 3, 2), groups=2), ValueError, r"KW,1.*3, 3, 2\)"),
    "conv2d group weights": (
        lambda: ops.conv2d(zeros(1, 6, 5, 6), zeros(2, 3, 3, 6), groups=2),
        ValueError,
        r"2 groups.*6 channels.*KW,3.*3, 3, 6\)",
    ),
    "conv2d depthwise kernel": (lambda: ops.conv2d(X, zeros(2, 7, 3, 1), groups=2), ValueError, "6 x 5.*7 x 3"),
    "conv2d depthwise bias": (lambda: ops.conv2d(X, zeros(2, 3, 3, 1), zeros(4), groups=2), ValueError, "bias.*2 chan"),
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
    "avg pool kernel": (lambda: ops.avg_pool2d(X, 7), ValueError, "avg_pool2d.*7.*6"),
    "avg pool kernel 0": (lambda: ops.avg_pool2d(X, (0, 1)), ValueError, r"avg_pool2d: kernel is \(0, 1\).*least 1"),
    "avg pool padding": (lambda: ops.avg_pool2d(X, 2, 2, 2), ValueError, "avg_pool2d.*2.*half the kernel"),
    "avg pool axes": (lambda: ops.avg_pool2d(X[0], 2), ValueError, r"avg_pool2d.*\(6, 5, 2\)"),
    "unpool outside": (lambda: ops.max_unpool2d(X[:, :3, :2], I32 + 12, (3, 4)), ValueError, "12.*3 x 4"),
    "unpool negative": (lambda: ops.max_unpool2d(X[:, :3, :2], I32 - 1, (3, 4)), ValueError, "-1.*3 x 4"),
    "unpool shapes": (lambda: ops.max_unpool2d(X, I32, (6, 5)), ValueError, r"\(1, 6, 5, 2\).*\(1, 3, 2, 2\)"),
    "unpool int64": (lambda: ops.max_unpool2d(X[:, :3, :2], I32.astype(np.int64), (3, 4)), TypeError, "int64.*int32"),
    "skip too small": (lambda: ops.crop_concat(X, X[:, :5]), ValueError, r"\(1, 5, 5, 2\).*\(1, 6, 5, 2\)"),
    "concat three axes": (lambda: ops.concat([X[0], X[0]]), ValueError, r"concat: needs x\[N,H,W,C\].*\(6, 5, 2\)"),
    "crop_concat three axes": (
        lambda: ops.crop_concat(X[0], X),
        ValueError,
        r"concat: needs x\[N,H,W,C\].*\(6, 5, 2\)",
    ),
    "skip of three axes": (lambda: ops.crop_concat(X, X[0]), ValueError, r"skip: needs x\[N,H,W,C\].*\(6, 5, 2\)"),
    "pad three axes": (lambda: ops.pad(X[0], 1), ValueError, r"pad: needs x\[N,H,W,C\].*\(6, 5, 2\)"),
    "upsample two axes": (lambda: ops.upsample(BITS[0], 2), ValueError, r"sample: needs x\[N,H,W,C\].*\(6, 5\)"),
    "concat sizes": (lambda: ops.concat([X, X[:, :5]]), ValueError, r"\(1, 5, 5, 2\).*\(1, 6, 5, 2\).*crop_concat"),
    "concat nothing": (lambda: ops.concat([]), ValueError, "one tensor at least"),
    "crop too large": (lambda: ops.crop(X, (3, 6)), ValueError, r"\(3, 6\).*\(6, 5\); pad"),
    "crop outside": (lambda: ops.crop(X, (3, 3), (4, 0)), ValueError, r"\(3, 3, 2\).*\(4, 0, 0\).*\(6, 5, 2\)"),
    "crop negative": (lambda: ops.crop(X, (3, 3), (0, -1)), ValueError, r"\(0, -1, 0\)"),
    "crop to nothing": (lambda: ops.crop(X, 0), ValueError, "size is 0.*least 1"),
    "crop axes": (lambda: ops.crop(X[0], 2), ValueError, r"crop.*\(6, 5, 2\)"),
    "split sum": (lambda: ops.split(X, [1, 2]), ValueError, r"\[1, 2\].*the 2 of x"),
    "split nothing": (lambda: ops.split(X, []), ValueError, r"\[\].*the 2 of x"),
    "split 0": (lambda: ops.split(X, [2, 0]), ValueError, r"\[2, 0\].*positive"),
    "fewer channels": (lambda: ops.pad_channels(X, 1), ValueError, "2 channels already; 1 is less"),
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
    "batch norm bias": (
        lambda: ops.batch_norm(X, TWO, TWO, TWO, TWO, True, bias=zeros(3)),
        ValueError,
        r"bias.*\(3,\).*2 channels",
    ),
    "batch norm mean": (lambda: ops.batch_norm(X, TWO, TWO, zeros(1), TWO, True), ValueError, r"mean.*\(1,\).*2"),
    "batch norm activation": (
        lambda: ops.batch_norm(X, TWO, TWO, TWO, TWO, True, activation="rely"),
        ValueError,
        "'rely'.*relu.*tanh",
    ),
    "fold mean": (lambda: ops.fold_batch_norm(W3, None, TWO, *[zeros(3)] * 3), ValueError, r"mean.*\(2,\).*3 channels"),
    "fold bias": (lambda: ops.fold_batch_norm(W3, TWO, *[zeros(3)] * 4), ValueError, r"bias.*\(2,\).*3 channels"),
    "fold axis": (lambda: ops.fold_batch_norm(W3, None, *[zeros(3)] * 4, axis=1), ValueError, "axis 1.*0.*-1"),
    "lrn size": (lambda: ops.lrn(X, 0), ValueError, "size 0.*least 1"),
    "l2 eps": (lambda: ops.l2_normalize(X, 0.0), ValueError, "0.0.*positive"),
    "gate shape": (lambda: ops.gate(X, zeros(1, 2)), ValueError, r"\(1, 2\).*\(1, 1, 1, 2\)"),
    "gate channels": (lambda: ops.gate(X, zeros(1, 1, 1, 3)), ValueError, r"\(1, 1, 1, 3\).*\(1, 1, 1, 2\)"),
    "dropped channels rate": (lambda: ops.dropout_channels(X, 1.0, 0), ValueError, "1.0.*less than 1"),
    "dropped channels axes": (lambda: ops.dropout_channels(X[0], 0.5, 0), ValueError, r"\(6, 5, 2\)"),
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
    "binary label": (lambda: ops.sigmoid_cross_entropy(ONE, BITS + 2), ValueError, r"2;.* 0\.\.1.*255"),
    "binary label NaN": (lambda: ops.sigmoid_cross_entropy(ONE, BITS + np.nan), ValueError, r"nan;.* 0\.\.1"),
    "binary shape": (lambda: ops.sigmoid_cross_entropy(ONE, BITS[:, 1:]), ValueError, r"\(1, 5, 5\).*\(1, 6, 5, 1\)"),
    "binary shape, two channels": (lambda: ops.sigmoid_cross_entropy(X, BITS), ValueError, r"\(1, 6, 5\).*5, 2\)"),
    "binary weights": (
        lambda: ops.sigmoid_cross_entropy(ONE, BITS, zeros(1, 5, 6)),
        ValueError,
        r"weight map.*\(1, 5, 6\).*\(1, 6, 5\)",
    ),
    "binary reduction": (lambda: ops.sigmoid_cross_entropy(ONE, BITS, reduction="avg"), ValueError, "'avg'.*'weight"),
    "focal reduction": (lambda: ops.focal_loss(ONE, BITS, reduction="weighted"), ValueError, "'weighted'.*'sum'"),
    "focal label": (lambda: ops.focal_loss(ONE, BITS + 0.5), ValueError, "0.5;.*0 or 1.*255"),
    "focal gamma": (lambda: ops.focal_loss(ONE, BITS, gamma=-1), ValueError, "gamma is -1.*least 0"),
    "focal alpha": (lambda: ops.focal_loss(ONE, BITS, alpha=1.5), ValueError, r"alpha is 1.5.*0\.\.1"),
    "dice label": (lambda: ops.dice_loss(ONE, BITS + 255), ValueError, r"255;.*0\.\.1$"),
    "dice shape": (lambda: ops.dice_loss(ONE, BITS.T), ValueError, r"\(5, 6, 1\).*\(1, 6, 5, 1\)"),
    "jaccard smooth": (lambda: ops.jaccard_loss(ONE, BITS, smooth=-1), ValueError, "smooth is -1.*least 0"),
    "ohem label": (lambda: ops.ohem_cross_entropy(X, LABELS + 2), ValueError, r"label 2.*0\.\.1.*255"),
    "ohem label shape": (lambda: ops.ohem_cross_entropy(X, LABELS[:, :5]), ValueError, r"\(1, 5, 5\).*\(1, 6, 5\)"),
    "ohem threshold": (lambda: ops.ohem_cross_entropy(X, LABELS, 70), ValueError, "threshold is 70.*at most 1"),
    "ohem least": (lambda: ops.ohem_cross_entropy(X, LABELS, min_kept=-1), ValueError, "min_kept is -1.*least 0"),
    "ohem class weights": (
        lambda: ops.ohem_cross_entropy(X, LABELS, class_weight=zeros(3)),
        ValueError,
        r"\(3,\).*2 channels",
    ),
    "mse shape": (lambda: ops.mse_loss(X, X[..., 0]), ValueError, r"mse_loss: .*\(1, 6, 5\).*\(1, 6, 5, 2\)"),
    "mae of nothing": (lambda: ops.mae_loss(X[:0], X[:0]), ValueError, "an element"),
    "matmul K": (lambda: ops.matmul(X[0], X[0]), ValueError, r"\(6, 5, 2\).*K: 2 columns against 5 rows"),
    "matmul N": (lambda: ops.matmul(X[0], X[0, :3], transpose_b=True), ValueError, r"\(3, 5, 2\) transposed.*N"),
    "matmul axes": (lambda: ops.matmul(X, X), ValueError, r"\(N, M, K\).*\(1, 6, 5, 2\)"),
    "reshape": (lambda: ops.reshape(X, (6, 7)), ValueError, r"60 elements.*\(6, 7\)"),
    "reshape, what is left": (lambda: ops.reshape(X, (7, -1)), ValueError, r"60 elements.*\(7, -1\)"),
    "reshape, two unknowns": (lambda: ops.reshape(X, (-1, -1)), ValueError, r"\(-1, -1\)"),
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
