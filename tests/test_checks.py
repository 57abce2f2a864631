"""The checkers are given wrong kernels, and must refuse each of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from cases import cases
from checks import check_bounds, check_case, check_in_place, check_linear, compare

from minunet import backends
from minunet.backends import reference
from minunet.contract import ROWS

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


@pytest.fixture
def wrong(monkeypatch):
    """wrong(row name, kernel) makes a backend "wrong" that has this kernel instead of the reference's."""

    def install(row_name: str, kernel) -> str:
        module = SimpleNamespace(
            name="wrong",
            Array=np.ndarray,
            kernels=reference.kernels | {row_name: kernel},
            empty=reference.empty,
            asarray=reference.asarray,
            numpy=reference.numpy,
        )
        monkeypatch.setitem(backends._loaded, "wrong", module)
        return "wrong"

    return install


def case_of(row_name: str, label: str):
    return next(case for case in cases(row_name) if case.label == label)


def after(row_name: str, damage):
    """The reference's kernel, and `damage` done to its arrays afterwards."""

    def kernel(*arrays, **options):
        reference.kernels[row_name](*arrays, **options)
        damage(*arrays)

    return kernel


def off_by_a_thousandth(y, *_):
    y *= 1.001


def hole(y, *_):
    y[(-1,) * y.ndim] = np.nan


def infinite(y, *_):
    y[(0,) * y.ndim] = np.inf


def shifted(y, *_):
    y[...] = np.roll(y, 1, axis=1)


def all_zero(y, *_):
    y[...] = 0


def overwrites_its_input(y, x, *_):
    x[...] = 0


@pytest.mark.parametrize("damage", [off_by_a_thousandth, hole, infinite, shifted, all_zero, overwrites_its_input])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_wrong_results_are_refused(wrong, damage, dtype):
    case = case_of("conv2d", "3x3 same")
    check_case("reference", ROWS["conv2d"], case, dtype)
    with pytest.raises(AssertionError):
        check_case(wrong("conv2d", after("conv2d", damage)), ROWS["conv2d"], case, dtype)


def test_an_output_left_unwritten_is_refused(wrong):
    for row_name, label in (("relu", "odd"), ("max_pool2d", "2x2"), ("softmax_cross_entropy", "odd")):
        with pytest.raises(AssertionError, match="not finite"):
            check_case(wrong(row_name, lambda *_, **__: None), ROWS[row_name], case_of(row_name, label), F32)


def test_swapped_axes_are_refused(wrong):
    """Reading w[o,v,u,c] for w[o,u,v,c], and an image that is transposed: both fit a square case, neither passes."""

    def swapped_kernel(y, x, w, b, **options):
        reference.kernels["conv2d"](y, x, np.ascontiguousarray(w.swapaxes(1, 2)), b, **options)

    def swapped_image(y, x):
        reference.kernels["relu"](y, np.ascontiguousarray(x.swapaxes(1, 2)).reshape(x.shape))

    with pytest.raises(AssertionError, match="relative error"):
        check_case(wrong("conv2d", swapped_kernel), ROWS["conv2d"], case_of("conv2d", "3x3 same"), F32)
    with pytest.raises(AssertionError, match="relative error"):
        check_case(wrong("relu", swapped_image), ROWS["relu"], case_of("relu", "odd"), F32)


def test_unflipped_filter_is_refused(wrong):
    def unflipped(dx, dy, w, b, **options):
        reference.kernels["conv2d_grad_x"](dx, dy, np.ascontiguousarray(w[:, ::-1, ::-1]), b, **options)

    row = ROWS["conv2d_grad_x"]
    with pytest.raises(AssertionError, match="relative error"):
        check_case(wrong(row.name, unflipped), row, case_of(row.name, "3x3 valid"), F32)


def test_last_of_equal_maxima_is_refused(wrong):
    """The values are right, only the index is not."""

    def last(y, indices, x, **options):
        _, h, w, _ = x.shape
        flipped = np.ascontiguousarray(x[:, ::-1, ::-1])
        reference.kernels["max_pool2d"](y, indices, flipped, **options)
        y[...], indices[...] = y[:, ::-1, ::-1].copy(), h * w - 1 - indices[:, ::-1, ::-1]

    row = ROWS["max_pool2d"]
    check_case(wrong(row.name, last), row, case_of(row.name, "2x2"), F32)
    with pytest.raises(AssertionError, match="integers differ"):
        check_case(wrong(row.name, last), row, case_of(row.name, "2x2, ties"), F32)


def test_single_precision_is_not_enough_for_float64(wrong):
    def single(y, x, mean, *vectors, **options):
        low = [a.astype(F32) for a in (x, mean, *vectors)]
        out = np.empty(y.shape, F32)
        reference.kernels["batch_norm"](out, *low, **options)
        y[...] = out

    row, case = ROWS["batch_norm"], case_of("batch_norm", "odd")
    check_case(wrong(row.name, single), row, case, F32)
    with pytest.raises(AssertionError, match="relative error"):
        check_case("wrong", row, case, F64)


def test_a_variance_that_cancels_is_refused(wrong):
    def one_pass(mean, var, x):
        flat = x.reshape(-1, x.shape[-1])
        mean[...] = flat.mean(axis=0, dtype=x.dtype)
        var[...] = (flat * flat).mean(axis=0, dtype=x.dtype) - mean * mean

    row = ROWS["channel_moments"]
    with pytest.raises(AssertionError, match="relative error"):
        check_case(wrong(row.name, one_pass), row, case_of(row.name, "mean far from 0"), F32)


@pytest.mark.parametrize("output", (0, 1))
def test_both_numbers_of_a_loss_count(wrong, output):
    """An error just above the tolerance, of the loss or of its factor."""

    def loss_off(*arrays):
        arrays[output][...] *= 1 + 6e-6

    row = ROWS["softmax_cross_entropy"]
    for label in ("64 channels", "two classes, class weights"):
        with pytest.raises(AssertionError, match="relative error"):
            check_case(wrong(row.name, after(row.name, loss_off)), row, case_of(row.name, label), F32)


def test_other_bits_on_the_second_call_are_refused(wrong):
    calls = []

    def restless(y, x):
        reference.kernels["relu"](y, x)
        calls.append(None)
        y[...] = np.nextafter(y, y.dtype.type(len(calls) % 2 * 10))

    with pytest.raises(AssertionError, match="other bits"):
        check_case(wrong("relu", restless), ROWS["relu"], case_of("relu", "odd"), F32)


def test_writing_beyond_the_output_is_refused(wrong):
    def beyond(y, *_):
        np.lib.stride_tricks.as_strided(y, (y.size + 1,), (y.itemsize,))[-1] = 0

    row = ROWS["relu"]
    check_bounds("reference", row, case_of("relu", "odd"), F32)
    with pytest.raises(AssertionError, match="outside"):
        check_bounds(wrong("relu", after("relu", beyond)), row, case_of("relu", "odd"), F32)


def test_reading_beyond_an_input_is_refused(wrong):
    """0 x NaN is NaN: even a value that a mask multiplies by zero shows."""

    def beyond(y, x):
        reference.kernels["relu"](y, x)
        y += 0 * np.lib.stride_tricks.as_strided(x, (x.size + 1,), (x.itemsize,))[-1]

    with pytest.raises(AssertionError, match="not finite"):
        check_bounds(wrong("relu", beyond), ROWS["relu"], case_of("relu", "odd"), F32)


def test_an_update_that_reads_what_it_wrote_is_refused(wrong):
    def careless(p_out, v_out, p, v, g, *, lr, momentum, weight_decay, nesterov):
        p_out[...] = p - lr * (momentum * v + g + weight_decay * p)
        v_out[...] = momentum * v + g + weight_decay * p  # p has changed, where it is the same array

    row, case = ROWS["sgd"], case_of("sgd", "weights, momentum 0.9")
    check_case(wrong("sgd", careless), row, case, F64)
    with pytest.raises(AssertionError, match="in place"):
        check_in_place("wrong", row, case, F64)


def constant(y, a, b, **_):
    y[...] = a + b + 1


def squared(y, a, b, **_):
    y[...] = a * a + b * b


def nothing_but_nan(y, a, b, **_):
    y[...] = np.nan


@pytest.mark.parametrize("kernel", [constant, squared, nothing_but_nan])
def test_kernels_that_are_not_linear_are_refused(wrong, kernel):
    row, case = ROWS["add"], cases("add")[0]
    check_linear("reference", row, case, F64)
    with pytest.raises(AssertionError, match="not linear"):
        check_linear(wrong("add", kernel), row, case, F64)


def test_compare_refuses_a_nan_in_the_truth_and_a_wrong_shape():
    row, one = ROWS["relu"], np.ones((1, 2, 3, 1))
    compare(row, (one,), (one,), F64)
    for result, truth in ((one, one * np.nan), (one, one[0]), (one * 1.001, one), (one, 0 * one)):
        with pytest.raises(AssertionError):
            compare(row, (result,), (truth,), F64)
    with pytest.raises(AssertionError, match="1 outputs instead of 2"):
        compare(row, (one,), (one, one), F64)
