"""Packed filters that are kept while weights stand still: made once, and never stale."""

from __future__ import annotations

import gc
from collections import Counter

import numpy as np
import pytest

import minunet as mu
from minunet import backends
from minunet.backends import cuda_host, kept
from minunet.backends.cuda import conv_phases, conv_tensor, conv_winograd
from minunet.backends.cuda.choose import use_step

pytestmark = pytest.mark.skipif(not cuda_host.available(), reason=f"cuda_host: {cuda_host.reason()}")
STEPS = ("2_coalesced", "4_register_tile", "6_winograd", "7_tensor_tf32", "8_tensor_half", "9_few_in", "10_few_out")
PACKS = ("pack_by_k", "pack_by_n_tf32", "pack_by_n_half", "winograd_filters")
CONV = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "activation": None}


@pytest.fixture
def packed(monkeypatch) -> Counter:
    """How often each kernel that packs filters was launched."""
    found = Counter()
    for module in (conv_phases, conv_tensor, conv_winograd):
        real = module.launch

        def launch(device, file, kernel, *args, real=real, **more):
            found.update([kernel] if kernel in PACKS else [])
            real(device, file, kernel, *args, **more)

        monkeypatch.setattr(module, "launch", launch)
    return found


def arrays(seed: int = 0, c: int = 3, o: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((1, 4, 5, c), np.float32), rng.standard_normal((o, 3, 3, c), np.float32))


def conv(x: np.ndarray, w: np.ndarray) -> bytes:
    with backends.use_backend("cuda_host"):
        return backends.call("conv2d", x, w, **CONV).tobytes()


@pytest.mark.parametrize("step", STEPS)
def test_once_for_many_calls_and_the_same_bits(step, packed):
    x, w = arrays()
    with use_step(step):
        plain = conv(x, w)
        assert packed.total() == 1
        with backends.fixed_weights([w]):
            assert conv(x, w) == conv(x, w) == plain
            assert packed.total() == 2
        assert conv(x, w) == plain
        assert packed.total() == 3  # nothing is kept afterwards


def test_forms_of_one_filter_are_told_apart(packed):
    """Forward and gradient, steps, tiles and 16-bit kinds want different orders; so do two networks."""
    x, w = arrays(c=4, o=4)
    backward = CONV | {"size": (4, 5)}

    def everything() -> list[bytes]:
        found = []
        with backends.use_backend("cuda_host"):
            for step in STEPS:
                for precision in ("bf16", "fp16"):
                    with use_step(step), backends.precision(precision):
                        found.append(backends.call("conv2d", x, w, **CONV).tobytes())
                        found.append(backends.call("conv2d_grad_x", x, w, **backward).tobytes())
        return found

    plain = everything()
    with backends.fixed_weights([w, arrays(1)[1]]):
        assert everything() == everything() == plain


def test_nothing_is_kept_of_other_arrays(packed):
    """Without the block, and of arrays that it does not name, views of named ones among them, writes show at once."""
    x, w = arrays()
    before = conv(x, w)
    w *= 2
    assert conv(x, w) != before
    with backends.fixed_weights([]):
        now = conv(x, w)
        w *= 2
        assert conv(x, w) != now
    with backends.fixed_weights([w]):
        now = conv(x, w[:])
        w *= 2
        assert conv(x, w[:]) != now


@pytest.mark.parametrize("kind", ("sgd", "adam"))
def test_an_optimisers_step_forgets(kind, packed):
    x, w = arrays()
    p = mu.Tensor(w, requires_grad=True)
    optimiser = mu.optim.SGD([p], 0.1) if kind == "sgd" else mu.optim.Adam([p], 0.1)
    with backends.use_backend("cuda_host"), backends.fixed_weights([p.data]):
        before = conv(x, p.data)
        p.grad = np.ones_like(p.data)
        optimiser.step()
        after = conv(x, p.data)
    assert after != before
    assert after == conv(x, p.data)


def test_loading_weights_forgets(packed):
    layer, other = (mu.nn.Conv2d(np.random.default_rng(seed), 3, 5, padding="same") for seed in (0, 1))
    x, w = arrays()[0], layer.w.data
    with backends.fixed_weights([w]):
        before = conv(x, w)
        layer.load_state_dict(other.state_dict())
        after = conv(x, w)
    assert after != before
    assert after == conv(x, other.w.data)


def test_writing_through_the_gate_forgets():
    x, w = arrays()
    with backends.fixed_weights([w]):
        before = conv(x, w)
        backends.write(w, 0)
        assert conv(x, w) != before == conv(x, arrays()[1])
        with backends.fixed_weights([arrays(2)[1]]):  # seen there, forgotten here
            backends.write(w, arrays()[1])
        assert conv(x, w) == before


def test_no_other_array_comes_to_lie_where_a_kept_one_was(packed):
    """The block holds its arrays: their addresses and ids are nobody else's until it ends."""
    x, w = arrays()
    where, name = w.ctypes.data, id(w)
    with backends.fixed_weights([w]):
        conv(x, w)
        del w
        gc.collect()
        for seed in range(1, 20):
            other = arrays(seed)[1]
            assert other.ctypes.data != where
            assert id(other) != name
            assert conv(x, other) == conv(x, other.copy())


def test_blocks_inside_of_blocks(packed):
    x, w = arrays()
    with use_step("2_coalesced"), backends.fixed_weights([w]):
        conv(x, w)
        with backends.fixed_weights([w]):
            conv(x, w)
        conv(x, w)
        assert packed.total() == 1
        with pytest.raises(RuntimeError, match="stop"), backends.fixed_weights([w, x]):
            conv(x, w)
            raise RuntimeError("stop")
        conv(x, w)
    assert packed.total() == 3
    assert kept._kept.get() is None


def test_memory_is_bounded(packed):
    x, w = arrays()
    with use_step("2_coalesced"), backends.fixed_weights([w], limit=w.nbytes - 1):
        assert conv(x, w) == conv(x, w)
    assert packed.total() == 2


def test_prediction_packs_once(packed):
    """Each layer's filter once for all tiles; the same probabilities as tile by tile."""
    model = mu.models.build("unet", in_channels=1, n_classes=2, width=4, depth=1, seed=0)
    image = np.random.default_rng(0).random((18, 17), np.float32)
    with backends.use_backend("cuda_host"), backends.precision("strict"):
        whole = mu.predict(model, image, tile=12)
        once = packed.total()
        assert 0 < once < 30
        for p in model.parameters():
            p.data *= 0.5
        assert not np.array_equal(mu.predict(model, image, tile=12), whole)
    assert packed.total() == 2 * once
