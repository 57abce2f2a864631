"""Fast CPU convolution against brute force in float64, adjoint identities, determinism, and the buffer pool."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from scipy.signal import correlate

from minunet import backends
from minunet.backends.cpu import conv, memory, winograd, winograd_grad_w

F32, F64 = np.float32, np.float64
DIRECT_TOLERANCE = {F32: 2e-6, F64: 1e-13}
WINOGRAD_TOLERANCE = 2e-5


@pytest.fixture
def strict():
    with backends.precision("strict"):
        yield


@pytest.fixture
def threads():
    """Sets the number of threads, restored afterwards."""
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


# -- the judge: one matrix product for each tap, float64, no helper of the tested code ---------------------------------
def taps(x_shape, w_shape, stride, padding, dilation):
    """For each tap (u, v): slices of the padded image that meet the outputs; and the outputs' size."""
    (_, H, W, _), (_, KH, KW, _) = x_shape, w_shape
    H, W = H + padding[0] + padding[1], W + padding[2] + padding[3]
    OH = (H - (KH - 1) * dilation[0] - 1) // stride[0] + 1
    OW = (W - (KW - 1) * dilation[1] - 1) // stride[1] + 1
    slices = {}
    for u in range(KH):
        for v in range(KW):
            h, w = u * dilation[0], v * dilation[1]
            rows = slice(h, h + (OH - 1) * stride[0] + 1, stride[0])
            slices[u, v] = (slice(None), rows, slice(w, w + (OW - 1) * stride[1] + 1, stride[1]))
    return slices, (H, W), (OH, OW)


def act(y, b, activation):
    y = y if b is None else y + b.astype(F64)
    return np.maximum(y, 0) if activation == "relu" else y


def padded(x, padding):
    return np.pad(x.astype(F64), ((0, 0), padding[:2], padding[2:], (0, 0)))


def forward(x, w, b, stride, padding, dilation, activation):
    slices, _, (OH, OW) = taps(x.shape, w.shape, stride, padding, dilation)
    xp, y = padded(x, padding), np.zeros((x.shape[0], OH, OW, w.shape[0]))
    for (u, v), at in slices.items():
        y += xp[at] @ w[:, u, v].astype(F64).T
    return act(y, b, activation)


def grad_x(x_shape, dy, w, b, stride, padding, dilation, activation):
    slices, (H, W), _ = taps(x_shape, w.shape, stride, padding, dilation)
    dxp = np.zeros((x_shape[0], H, W, x_shape[3]))
    for (u, v), at in slices.items():
        dxp[at] += dy.astype(F64) @ w[:, u, v].astype(F64)
    dx = dxp[:, padding[0] : H - padding[1], padding[2] : W - padding[3]]
    return act(dx, b, activation)


def grad_w(w_shape, x, dy, stride, padding, dilation):
    slices, _, _ = taps(x.shape, w_shape, stride, padding, dilation)
    xp, dw = padded(x, padding), np.zeros(w_shape)
    rows = dy.astype(F64).reshape(-1, dy.shape[3])
    for (u, v), at in slices.items():
        dw[:, u, v] = rows.T @ xp[at].reshape(-1, x.shape[3])
    return dw


def error(got, want):
    return np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30)


class Case:
    """Random inputs of one convolution, and its three kernels on poisoned outputs."""

    def __init__(self, shape, O, kernel, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), dtype=F32, seed=0):
        rng = np.random.default_rng(seed)

        def normal(*shape):
            return rng.standard_normal(shape).astype(dtype)

        self.options = stride, padding, dilation
        self.x, self.w = normal(*shape), normal(O, *kernel, shape[3])
        _, _, (OH, OW) = taps(shape, self.w.shape, *self.options)
        self.dy = normal(shape[0], OH, OW, O)
        self.b, self.bx = normal(O), normal(shape[3])

    def inputs(self):
        return [self.x, self.w, self.dy, self.b, self.bx]

    def forward(self, bias=True, activation="none"):
        y = np.full_like(self.dy, np.nan)
        conv.conv2d(y, self.x, self.w, self.b if bias else None, *self.options, activation)
        return y

    def grad_x(self, bias=False, activation="none"):
        dx = np.full_like(self.x, np.nan)
        conv.conv2d_grad_x(dx, self.dy, self.w, self.bx if bias else None, *self.options, activation)
        return dx

    def grad_w(self):
        dw = np.full_like(self.w, np.nan)
        conv.conv2d_grad_w(dw, self.x, self.dy, *self.options)
        return dw

    def check(self, tolerance):
        before = [a.copy() for a in self.inputs()]
        for bias, activation in ((True, "relu"), (False, "none")):
            b, bx = (self.b, self.bx) if bias else (None, None)
            y, dx = self.forward(bias, activation), self.grad_x(bias, activation)
            want_y = forward(self.x, self.w, b, *self.options, activation)
            want_dx = grad_x(self.x.shape, self.dy, self.w, bx, *self.options, activation)
            assert np.isfinite(y).all() and error(y, want_y) <= tolerance
            assert np.isfinite(dx).all() and error(dx, want_dx) <= tolerance
        dw = self.grad_w()
        want_dw = grad_w(self.w.shape, self.x, self.dy, *self.options)
        assert np.isfinite(dw).all() and error(dw, want_dw) <= tolerance
        assert all(np.array_equal(a, old) for a, old in zip(self.inputs(), before))


def random_case(seed, dtype):
    """A case of awkward sizes: kernels, strides, dilations, paddings beyond the kernel, odd channel counts."""
    rng = np.random.default_rng(seed)
    kernels = [(1, 1), (2, 2), (3, 3), (3, 3), (1, 5), (5, 5), (7, 7)]
    channels = [1, 2, 3, 8, 15, 16, 17, 32, 33, 48, 70]
    while True:
        kernel = kernels[rng.integers(len(kernels))]
        stride = tuple(map(int, rng.integers(1, 4, 2))) if rng.random() < 0.5 else (1, 1)
        dilation = tuple(map(int, rng.integers(1, 4, 2))) if rng.random() < 0.3 else (1, 1)
        padding = tuple(map(int, rng.integers(0, kernel[0] + 2, 4))) if rng.random() < 0.5 else (0, 0, 0, 0)
        N, H, W = int(rng.integers(1, 3)), int(rng.integers(1, 30)), int(rng.integers(1, 30))
        height, width = H + padding[0] + padding[1], W + padding[2] + padding[3]
        if height > (kernel[0] - 1) * dilation[0] and width > (kernel[1] - 1) * dilation[1]:
            C, O = (int(channels[i]) for i in rng.integers(len(channels), size=2))
            return Case((N, H, W, C), O, kernel, stride, padding, dilation, dtype, seed)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("seed", range(40))
def test_direct_against_brute_force(seed, dtype, strict):
    random_case(seed, dtype).check(DIRECT_TOLERANCE[dtype])


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 3), (1, 5), (5, 5), (7, 7)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 2)])
def test_every_kernel_and_stride(kernel, stride, strict):
    Case((2, 13, 16, 17), 18, kernel, stride, dtype=F64).check(1e-13)


@pytest.mark.parametrize("size", [1, 2, 13, 14, 15, 28, 29, 255, 257, 530])
def test_row_lengths_around_the_blocks(size, strict):
    Case((1, 3, size + 2, 5), 35, (3, 3)).check(2e-6)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("outputs", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 7, 9, 16), (1, 33, 5, 37)])
def test_few_output_channels(shape, outputs, dtype):
    """Pixels and channels around whole vectors; three outputs are no power of two."""
    Case(shape, outputs, (1, 1), dtype=dtype).check(DIRECT_TOLERANCE[dtype])


def test_parts_of_dw_that_do_not_divide_among_threads(threads):
    """7 x 7 taps make three groups of sums; two threads share them out by splitting the pixels too."""
    threads(min(2, numba.config.NUMBA_NUM_THREADS))
    Case((1, 9, 8, 64), 64, (7, 7), padding=(3, 3, 3, 3)).check(2e-6)


def test_only_padding_is_read(strict):
    """The one output lies on padding: y is the bias, no tap reaches dx, dw is 0."""
    case = Case((1, 1, 1, 3), 5, (1, 1), (3, 3), (1, 1, 1, 1))
    assert (case.forward() == case.b).all()
    assert (case.grad_x() == 0).all() and (case.grad_w() == 0).all()


@pytest.mark.parametrize("channels", [1024, 2048])
def test_pixels_that_share_a_cache_set(channels, strict):
    """Strides of 4096 bytes take other register blocks."""
    Case((1, 2, 17, channels), 3, (1, 2)).check(2e-6)


def test_against_scipy():
    case = Case((1, 9, 11, 3), 2, (3, 5), dtype=F64)
    for o in range(2):
        want = correlate(case.x[0], case.w[o], mode="valid")[:, :, 0]
        assert error(case.forward(bias=False)[0, :, :, o], want) <= 1e-13


@pytest.mark.parametrize("m", [4, 6])
@pytest.mark.parametrize("seed", range(14))
def test_winograd_against_brute_force(seed, m):
    """Both tile sizes on shapes the dispatch might give to the other one, or to the direct sum."""
    rng = np.random.default_rng(seed)
    padding = tuple(map(int, rng.integers(0, 4, 4))) if seed % 2 else (0, 0, 0, 0)
    H, W = (int(v) for v in rng.integers(3, 34, 2))
    C, O = (int(v) for v in rng.choice([1, 3, 8, 16, 17, 32, 33, 70, 130], 2))
    case = Case((int(rng.integers(1, 3)), H, W, C), O, (3, 3), padding=padding, seed=seed)
    n, top, left = numba.get_num_threads(), padding[0], padding[2]
    y, dx, dw = (np.full_like(a, np.nan) for a in (case.dy, case.x, case.w))
    winograd.conv3x3(y, case.x, case.w, case.b, top, left, "relu", False, n, m)
    winograd.conv3x3(dx, case.dy, case.w, None, top, left, "none", True, n, m)
    winograd_grad_w.grad_w3x3(dw, case.x, case.dy, top, left, n, m)
    for got, want in (
        (y, forward(case.x, case.w, case.b, *case.options, "relu")),
        (dx, grad_x(case.x.shape, case.dy, case.w, None, *case.options, "none")),
        (dw, grad_w(case.w.shape, case.x, case.dy, *case.options)),
    ):
        assert np.isfinite(got).all() and error(got, want) <= WINOGRAD_TOLERANCE


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("C", "O"), [(16, 16), (35, 48), (48, 35)])
@pytest.mark.parametrize("l3", [0, 100_000, 1 << 40])
@pytest.mark.parametrize("m", [4, 6])
@pytest.mark.parametrize(("shape", "n"), [((2, 47, 52), 2), ((1, 20, 23), 1)])
def test_winograd_within_the_cache_and_beyond(shape, n, m, l3, C, O, aligned, threads, monkeypatch):
    """Weights transformed once or by each block, results stored past the caches, inputs fetched ahead: all of it.

    100 KB: the transformed weights of 16 to 16 channels are smaller, the larger images are larger. The smaller image
    is one block, whose panels of outputs are shared out.
    """
    monkeypatch.setattr(winograd, "_L3_BYTES", l3)
    monkeypatch.setattr(winograd, "_SPARED", 1)
    n = min(n, numba.config.NUMBA_NUM_THREADS)
    threads(n)
    case = Case((*shape, C), O, (3, 3), padding=(1, 0, 2, 1))
    results = []
    for like in (case.dy, case.x):
        room = memory.empty((like.size + 1,))
        results.append(room[0 if aligned else 1 :][: like.size].reshape(like.shape))
        results[-1][:] = np.nan
    y, dx = results
    winograd.conv3x3(y, case.x, case.w, case.b, 1, 2, "relu", False, n, m)
    winograd.conv3x3(dx, case.dy, case.w, None, 1, 2, "none", True, n, m)
    for got, want in (
        (y, forward(case.x, case.w, case.b, *case.options, "relu")),
        (dx, grad_x(case.x.shape, case.dy, case.w, None, *case.options, "none")),
    ):
        assert np.isfinite(got).all() and error(got, want) <= WINOGRAD_TOLERANCE


@pytest.mark.parametrize("size", [8, 12, 13, 14, 15, 16, 17, 26])
def test_winograd_sizes_around_the_tiles(size):
    Case((1, size, size + 3, 16), 24, (3, 3), padding=(1, 1, 1, 1)).check(WINOGRAD_TOLERANCE)


@pytest.mark.parametrize("m", [4, 6])
def test_winograd_accuracy_on_positive_inputs(m):
    """Activations after ReLU have a mean, which the transforms must cancel; still well within the tolerance."""
    case = Case((1, 50, 50, 64), 32, (3, 3))
    case.x = abs(case.x) + 1
    y = np.full_like(case.dy, np.nan)
    winograd.conv3x3(y, case.x, case.w, None, 0, 0, "none", False, numba.get_num_threads(), m)
    assert error(y, forward(case.x, case.w, None, *case.options, "none")) <= WINOGRAD_TOLERANCE


def test_dispatch_uses_winograd_unless_strict(strict):
    case = Case((1, 40, 40, 16), 16, (3, 3))
    exact = forward(case.x, case.w, case.b, *case.options, "none")
    direct = case.forward()
    with backends.precision("default"):
        fast = case.forward()
    assert error(direct, exact) <= 4e-7 < error(fast, exact) <= WINOGRAD_TOLERANCE


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"'fp8'.*strict"), backends.precision("fp8"):
        raise AssertionError("not reached")


@pytest.mark.parametrize("seed", range(12))
def test_adjoint_identities(seed):
    """<dy, conv(x, w)> = <grad_x(dy, w), x> = <grad_w(x, dy), w>, float64."""
    case = random_case(100 + seed, F64)
    y = case.forward(bias=False)
    scale = np.linalg.norm(case.dy) * np.linalg.norm(y)
    product = np.vdot(case.dy, y)
    assert abs(np.vdot(case.grad_x(), case.x) - product) <= 1e-12 * scale
    assert abs(np.vdot(case.grad_w(), case.w) - product) <= 1e-12 * scale


@pytest.mark.parametrize("kernel", [(3, 3), (2, 2)])
def test_same_bits_twice_and_any_thread_count(kernel, threads):
    case = Case((1, 70, 61, 24), 40, kernel, padding=(1, 0, 0, 1))
    wanted = (
        forward(case.x, case.w, case.b, *case.options, "none"),
        grad_x(case.x.shape, case.dy, case.w, None, *case.options, "none"),
        grad_w(case.w.shape, case.x, case.dy, *case.options),
    )
    for n in {1, min(2, numba.config.NUMBA_NUM_THREADS), numba.config.NUMBA_NUM_THREADS}:
        threads(n)
        first, second = ((case.forward(), case.grad_x(), case.grad_w()) for _ in range(2))
        for a, b, want in zip(first, second, wanted):
            assert np.array_equal(a, b)
            assert np.isfinite(a).all() and error(a, want) <= WINOGRAD_TOLERANCE


def test_read_only_inputs():
    case = Case((1, 9, 9, 16), 16, (3, 3))
    want = case.forward()
    for a in case.inputs():
        a.flags.writeable = False
    assert np.array_equal(case.forward(), want)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_numbers_do_not_crash(value):
    case = Case((1, 20, 20, 16), 16, (3, 3))
    case.x[0, 7, 7, 3] = value
    y = case.forward(activation="relu")
    want = forward(case.x[:, 14:], case.w, case.b, *case.options, "relu")
    assert not np.isfinite(y).all()
    assert np.isfinite(y[:, 14:]).all() and error(y[:, 14:], want) <= WINOGRAD_TOLERANCE


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 7, 5, 3), (1, 132, 131, 2), (1, 61, 67, 16), (1, 40, 50, 33), (3, 9, 9, 300)]
)
def test_channel_sum(shape, dtype):
    dy = np.random.default_rng(0).standard_normal(shape).astype(dtype) + dtype(0.5)
    db = np.full(shape[3], np.nan, dtype)
    conv.channel_sum(db, dy)
    assert np.isfinite(db).all() and error(db, dy.astype(F64).sum((0, 1, 2))) <= DIRECT_TOLERANCE[dtype]


def test_a_convolution_leaves_no_scratch_behind():
    case = Case((1, 30, 30, 16), 16, (3, 3))
    case.forward()
    live = memory.stats()["live"]
    for _ in range(3):
        case.forward(), case.grad_x(), case.grad_w()
    assert memory.stats()["live"] == live
