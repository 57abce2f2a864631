"""The gate: what breaks the contract is refused in one line; what passes is counted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from minunet import backends
from minunet.backends import reference
from minunet.contract import ROWS

CONV = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "activation": None}
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "nesterov": False}
ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "step": 1}


@pytest.fixture(autouse=True)
def on_the_reference():
    with backends.use_backend("reference"):
        yield


def ones(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


# -- what the gate refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.uint8, np.complex64, bool])
def test_wrong_dtype(dtype):
    with pytest.raises(TypeError, match=r"relu: x is .*; it must be float32 or float64"):
        backends.call("relu", ones(1, 2, 3, 1, dtype=dtype))


def test_two_dtypes_in_one_call():
    with pytest.raises(TypeError, match="conv2d: w is float64 where float32 is expected"):
        backends.call("conv2d", ones(1, 3, 3, 1), ones(1, 3, 3, 1, dtype=np.float64), **CONV)


def test_indices_must_be_int32():
    with pytest.raises(TypeError, match="indices is int64; it must be int32"):
        backends.call("gather_by_index", ones(1, 2, 2, 1), np.zeros((1, 1, 1, 1), np.int64))


def test_what_is_always_float64_stays_so_beside_float32():
    x, places, nodes = ones(1, 4, 5, 1), np.zeros((1, 5), np.int32), np.zeros((1, 2, 3, 3))
    options = {"size": (2, 3), "cubic": True}
    assert backends.call("deform", x, places, nodes, **options).dtype == np.float32
    with pytest.raises(TypeError, match="deform: nodes is float32; it must be float64"):
        backends.call("deform", x, places, nodes.astype(np.float32), **options)


@pytest.mark.parametrize("view", [lambda x: x[:, ::-1], lambda x: x[:, :, :2], lambda x: x.swapaxes(1, 2)])
def test_not_contiguous(view):
    with pytest.raises(ValueError, match="x is not C-contiguous"):
        backends.call("relu", view(ones(1, 4, 5, 3)))


def test_not_an_array_of_the_backend():
    with pytest.raises(TypeError, match=r"x is a builtins\.list, and backend 'reference' works on numpy\.ndarray"):
        backends.call("relu", [1.0, 2.0])


def test_missing_input():
    with pytest.raises(TypeError, match="conv2d: w is missing"):
        backends.call("conv2d", ones(1, 3, 3, 1), None, **CONV)


def test_missing_last_input():
    with pytest.raises(TypeError, match="relu_grad: y is missing"):
        backends.call("relu_grad", ones(3))


def test_missing_last_optional_input():
    y = backends.call("conv2d", ones(1, 3, 3, 1), ones(1, 3, 3, 1), **CONV)
    assert y.tolist() == [[[[9.0]]]]


def test_too_many_inputs():
    with pytest.raises(TypeError, match=r"relu takes 1 arrays \(x\); got 2"):
        backends.call("relu", ones(2), ones(2))


def test_options_must_be_the_rows():
    with pytest.raises(TypeError, match="colour"):
        backends.call("relu", ones(2), colour="red")
    with pytest.raises(TypeError, match="stride"):
        backends.call("conv2d", ones(1, 3, 3, 1), ones(1, 3, 3, 1))


SHAPES = {  # label: row, shapes, options, words of the message
    "channels": ("conv2d", [(1, 5, 5, 3), (4, 3, 3, 2)], CONV, "x has 3 channels and w expects 2"),
    "axes": ("conv2d", [(5, 5, 3), (4, 3, 3, 3)], CONV, "needs x"),
    "too small": ("conv2d", [(1, 2, 5, 3), (4, 3, 3, 3)], CONV, "2 x 5 .* is smaller than the kernel 3 x 3"),
    "bias": ("conv2d", [(1, 5, 5, 3), (4, 3, 3, 3), (3,)], CONV, r"bias has shape \(3,\); .* 4 channels"),
    "stride 0": ("conv2d", [(1, 5, 5, 3), (4, 3, 3, 3)], CONV | {"stride": (0, 1)}, "stride"),
    "padding": ("conv2d", [(1, 5, 5, 3), (4, 3, 3, 3)], CONV | {"padding": (0, 0, -1, 0)}, "padding"),
    "activation": ("conv2d", [(1, 5, 5, 3), (4, 3, 3, 3)], CONV | {"activation": "tanh"}, "'tanh' is unknown"),
    "adjoint": ("conv2d_grad_x", [(1, 3, 3, 4), (4, 3, 3, 2)], CONV | {"size": (6, 5)}, r"\(1, 4, 3, 4\), but dy"),
    "not equal": ("add", [(1, 2, 3, 1), (1, 3, 2, 1)], {"alpha": 1.0, "beta": 1.0}, "differ"),
    "crop": ("crop_concat", [(1, 4, 4, 1), (1, 3, 6, 1)], {}, "cannot be cropped"),
    "mirror": ("pad", [(1, 3, 9, 1)], {"padding": (3, 0, 0, 0), "mode": "reflect", "value": 0.0}, "3 x 9"),
    "pad mode": ("pad", [(1, 3, 9, 1)], {"padding": (0, 0, 0, 0), "mode": "wrap", "value": 0.0}, "'wrap'"),
    "slope": ("prelu", [(1, 2, 2, 3), (2,)], {}, "slope"),
    "gamma": ("batch_norm", [(1, 2, 2, 3), (3,), (3,), (1,), (3,)], {"eps": 1e-5, "activation": None}, "gamma"),
    "rate": ("dropout", [(3,)], {"rate": 1.0, "seed": 0}, "rate"),
    "seed": ("dropout", [(3,)], {"rate": 0.5, "seed": -1}, "seed"),
    "numbers of tiles": ("stretch", [(2, 4, 5, 3), (2, 1), (2, 1)], {}, r"they must be \(2, 3\)"),
    "window": (
        "max_pool2d",
        [(1, 2, 9, 1)],
        {"kernel": (3, 3), "stride": (2, 2), "padding": (0, 0), "ceil_mode": False},
        "kernel 3 is larger than the input 2",
    ),
}
BN = {"eps": 1e-5, "training": True}
X = (1, 2, 2, 3)
SHAPES |= {  # what a kernel would read or write beyond the end of an array: on a GPU nobody else notices
    "gradient's mean": ("batch_norm_grad", [X, X, (2,), (3,), (3,)], BN, r"the mean has shape \(2,\)"),
    "gradient's variance": ("batch_norm_grad", [X, X, (3,), (), (3,)], BN, r"the variance has shape \(\)"),
    "gradient's gamma": ("batch_norm_grad", [X, X, (3,), (3,), (4,)], BN, r"the gamma has shape \(4,\)"),
    "gradient's slope": ("prelu_grad", [X, X, (2,)], {}, "the slope"),
    "velocity": ("sgd", [(5,), (4,), (5,)], SGD, r"sgd: .* \(5,\) and \(4,\) differ"),
    "first moment": ("adam", [(5,), (4,), (5,), (5,)], ADAM, r"adam: .* \(5,\) and \(4,\) differ"),
    "second moment": ("adam", [(5,), (5,), (4,), (5,)], ADAM, r"adam: .* \(5,\) and \(4,\) differ"),
    "no mean of a map": ("global_avg_pool_grad", [(2, 0, 1, 3)], {"size": (4, 5)}, r"it must be \(2, 1, 1, 3\)"),
    "a map's axes": ("global_avg_pool", [(4, 5, 3)], {}, r"needs x\[N,H,W,C\]"),
    "an empty map": ("global_avg_pool", [(2, 0, 5, 3)], {}, "no pixels"),
    "split": ("crop_concat_grad", [(1, 4, 5, 3)], {"size": (4, 5), "split": 4}, "split 4"),
    "split's size": (
        "crop_concat_grad",
        [(1, 4, 5, 3)],
        {"size": (4, 4), "split": 1},
        r"\(4, 4\) is smaller than 4 x 5",
    ),
    "no classes": ("softmax", [(2, 3, 0)], {}, "needs at least one class"),
    "nothing to repeat": ("upsample_nearest", [(1, 0, 5, 3)], {"size": (4, 5)}, "0 x 5 pixels"),
    "nothing to see": ("upsample_bilinear", [X], {"size": (0, 5), "align_corners": False}, r"\(0, 5\)"),
}


@pytest.mark.parametrize("row, shapes, options, words", SHAPES.values(), ids=SHAPES)
def test_wrong_shapes(row, shapes, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        backends.call(row, *(ones(*shape) for shape in shapes), **options)
    assert "\n" not in str(caught.value)


def test_indices_must_fit_the_plane():
    for plane, indices in (
        ((2, 4, 5, 3, 1), (2, 2, 2, 3)),
        ((2, 4, 5, 3), (2, 2, 2, 3, 1)),
        ((2, 4, 5, 3), (1, 2, 2, 3)),
    ):
        with pytest.raises(ValueError, match=r"gather_by_index: .* do not fit"):
            backends.call("gather_by_index", ones(*plane), np.zeros(indices, np.int32))
    with pytest.raises(ValueError, match=r"scatter_by_index: needs values\[N,OH,OW,C\]"):
        backends.call("scatter_by_index", ones(2, 3), np.zeros((2, 3), np.int32), size=(4, 5))


def test_target_must_fit_the_logits():
    with pytest.raises(ValueError, match="target"):
        backends.call(
            "softmax_cross_entropy", ones(1, 2, 3, 4), np.zeros((1, 3, 2), np.int32), ignore_index=255, reduction="mean"
        )


# -- backends ---------------------------------------------------------------------------------------------------------


def test_unknown_backend():
    with (
        pytest.raises(ValueError, match=r"'abacus' is not known here; there are: .*reference"),
        backends.use_backend("abacus"),
    ):
        pass


def test_use_backend_nests_and_ends_with_an_error():
    assert backends.get().name == "reference"
    with pytest.raises(RuntimeError, match="inside"), backends.use_backend("cpu"):
        assert backends.get() is backends.get("cpu")
        raise RuntimeError("inside")
    assert backends.get().name == "reference"


def test_reference_is_always_available():
    assert "reference" in backends.available()
    assert set(backends.available()) <= set(backends.installed()) <= set(backends.NAMES)


def test_missing_kernel_names_operation_backend_and_who_has_it(monkeypatch):
    half = SimpleNamespace(name="half", Array=np.ndarray, kernels={}, empty=np.empty)
    monkeypatch.setitem(backends._loaded, "half", half)
    with (
        backends.use_backend("half"),
        pytest.raises(NotImplementedError, match=r"backend 'half' has no kernel 'relu'; .*reference.* has"),
    ):
        backends.call("relu", ones(3))


# -- out, poison, count -----------------------------------------------------------------------------------------------


def test_out_is_written_and_returned():
    x, y = np.array([-1.0, 2.0]), np.empty(2)
    assert backends.call("relu", x, out=(y,)) is y
    assert y.tolist() == [0, 2]


def test_out_must_not_be_an_input_but_for_optimisers():
    x = ones(3)
    with pytest.raises(ValueError, match="share memory"):
        backends.call("relu", x, out=(x,))
    with pytest.raises(ValueError, match="share memory"):
        backends.call("scale", x, out=(x.reshape(3),), factor=2.0)
    p, velocity, g = ones(3), 0 * ones(3), ones(3)
    options = {"lr": 0.5, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False}
    for out in ((p, p), (velocity, p), (p, g)):
        with pytest.raises(ValueError, match="share memory"):
            backends.call("sgd", p, velocity, g, out=out, **options)
    backends.call("sgd", p, velocity, g, out=(p, velocity), **options)
    assert p.tolist() == [0.5] * 3


@pytest.mark.parametrize("out", [ones(4), ones(3, dtype=np.float64), ones(6)[::2], ones(1, 3)])
def test_out_must_fit(out):
    with pytest.raises(ValueError, match=r"out must be contiguous float32 \(3,\)"):
        backends.call("relu", ones(3), out=(out,))


def test_out_must_be_complete():
    with pytest.raises(ValueError, match="argument"):
        backends.call("channel_moments", ones(1, 2, 2, 3), out=(ones(3),))


@pytest.fixture
def idle(monkeypatch):
    """A backend whose kernels write nothing, and that records what it is asked."""
    asked = []
    kernels = dict.fromkeys(ROWS, lambda *arrays, **options: asked.append((arrays, options)))
    dirty = lambda shape, dtype: np.full(shape, 7, dtype)  # noqa: E731
    monkeypatch.setitem(
        backends._loaded, "idle", SimpleNamespace(name="idle", Array=np.ndarray, kernels=kernels, empty=dirty)
    )
    with backends.use_backend("idle"):
        yield asked


def test_poison(idle):
    options = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": False}
    y, indices = backends.call("max_pool2d", ones(1, 4, 6, 2), **options)
    assert (y == 7).all()
    assert (indices == 7).all()
    with backends.poison():
        y, indices = backends.call("max_pool2d", ones(1, 4, 6, 2), **options)
    assert np.isnan(y).all()
    assert (indices == np.iinfo(np.int32).min).all()


def test_kernels_get_outputs_inputs_options_without_those_of_shape(idle):
    dy, w = ones(1, 2, 3, 4), ones(4, 3, 3, 5)
    dx = backends.call("conv2d_grad_x", dy, w, None, **CONV, size=(4, 5))
    ((arrays, options),) = idle
    assert arrays[0] is dx
    assert arrays[1] is dy
    assert arrays[2] is w
    assert arrays[3] is None
    assert options == CONV
    assert dx.shape == (1, 4, 5, 5)


def test_count_of_the_second_layer_of_u_net(idle):
    """64 to 64 channels, 3x3, 570 to 568: 2 * 568^2 * 64 * 64 * 9 = 23.79 GFLOP. Ronneberger et al. 2015, figure 1."""
    x, w, b = ones(1, 570, 570, 64), ones(64, 3, 3, 64), ones(64)
    with backends.count() as counter:
        backends.call("conv2d", x, w, b, **CONV | {"activation": "relu"})
    assert counter.calls == 1
    assert counter.flops == 2 * 568**2 * 64 * 64 * 9
    assert round(counter.flops / 1e9, 2) == 23.79
    assert counter.bytes == 4 * (570**2 * 64 + 64 * 9 * 64 + 64 + 568**2 * 64)


def test_counts_add_up_by_kernel_and_nest():
    x = ones(1, 2, 3, 1, dtype=np.float64)
    with backends.count() as outer:
        backends.call("relu", x)
        with backends.count() as inner:
            backends.call("relu", x)
            backends.call("scale", x, factor=2.0)
    backends.call("relu", x)
    assert inner.by_kernel == {"relu": [1, 6, 96], "scale": [1, 6, 96]}
    assert outer.by_kernel == {"relu": [2, 12, 192], "scale": [1, 6, 96]}
    assert (outer.calls, outer.flops, outer.bytes) == (3, 18, 288)
    assert (inner.calls, inner.flops, inner.bytes) == (2, 12, 192)


def test_kept_answers_check_nothing_away():
    """The second call with the same shapes and options is checked as the first."""
    x, w = ones(1, 4, 5, 2), ones(3, 1, 1, 2)
    for _ in range(2):
        assert backends.call("conv2d", x, w, **CONV).shape == (1, 4, 5, 3)
        with pytest.raises(TypeError, match="float64 where float32"):
            backends.call("conv2d", x, ones(3, 1, 1, 2, dtype=np.float64), **CONV)
        with pytest.raises(ValueError, match="not C-contiguous"):
            backends.call("conv2d", ones(1, 5, 4, 2).transpose(0, 2, 1, 3), w, **CONV)
        with pytest.raises(ValueError, match="channels"):
            backends.call("conv2d", ones(1, 4, 5, 3), w, **CONV)


def test_options_that_may_change_are_asked_again():
    stride = [1, 1]
    options = CONV | {"stride": stride}
    assert backends.call("conv2d", ones(1, 4, 5, 2), ones(3, 1, 1, 2), **options).shape == (1, 4, 5, 3)
    stride[0] = 2
    assert backends.call("conv2d", ones(1, 4, 5, 2), ones(3, 1, 1, 2), **options).shape == (1, 2, 5, 3)


def test_a_refused_call_is_not_counted():
    with backends.count() as counter, pytest.raises(TypeError):
        backends.call("relu", ones(3, dtype=np.int32))
    assert counter.calls == 0


def test_rows_have_a_kernel_file_a_docstring_and_tolerances():
    for row in ROWS.values():
        assert row.rule.__doc__, row.name
        assert set(row.tolerance) == {np.dtype(np.float32), np.dtype(np.float64)}, row.name
        assert row.optional <= set(row.inputs), row.name
        assert set(row.linear) <= set(row.inputs), row.name
        assert row.integers | row.doubles <= set(row.inputs), row.name
        assert row.shape_only <= set(row.options), row.name
        assert callable(reference.kernels[row.name]), row.name
