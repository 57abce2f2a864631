"""Loss scaling for factors of float16: the same bits as without, in parameters, saved state and a whole run."""

from __future__ import annotations

import numpy as np
import pytest
from test_device_reads import run, trainer

from minunet import backends, ops, optim
from minunet.tensor import Tensor
from minunet.training.config import Config
from minunet.training.setup import loss_scale

SCALE = 2.0**16
MAKERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.1, weight_decay=0.01),
}

pytestmark = pytest.mark.usefixtures("reference")


def updated(make, scales: list[float], gradient_scale: float = 1.0) -> tuple[np.ndarray, dict]:
    """A parameter after a step with each scale, the state handed from one optimiser to the next as it is saved."""
    rng = np.random.default_rng(0)
    p, state = Tensor(rng.normal(size=(5, 7)).astype(np.float32), requires_grad=True), None
    for scale in scales:
        optimizer = make([p])
        optimizer.loss_scale = scale
        if state is not None:
            optimizer.load_state_dict(state)
        p.grad = (rng.normal(size=p.shape) * gradient_scale).astype(np.float32) * np.float32(scale)
        optimizer.step()
        state = optimizer.state_dict()
    return p.data, state


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("gradient_scale", (1.0, 1e-6))
def test_the_same_bits(name, gradient_scale):
    plain = updated(MAKERS[name], [1.0] * 4, gradient_scale)
    for scales in ([SCALE] * 4, [1.0, SCALE, 1.0, 0.5]):
        p, state = updated(MAKERS[name], scales, gradient_scale)
        assert np.array_equal(p, plain[0])
        assert all(state[k].dtype == plain[1][k].dtype and np.array_equal(state[k], plain[1][k]) for k in plain[1])
    assert not np.array_equal(plain[0], updated(MAKERS[name], [1.0] * 3, gradient_scale)[0])


def test_the_scale_follows_the_pixels():
    mean, total = Config(steps=1), Config(steps=1, reduction="sum")
    assert loss_scale(mean, 350 * 350) == 1
    with backends.precision("fp16"):
        assert [loss_scale(mean, n) for n in (1, 2, 3, 1000, 2**16, 350 * 350)] == [1, 2, 2, 512, 65536, 65536]
        assert loss_scale(total, 350 * 350) == 1


def test_small_gradients_survive_float16():
    """A mean over 300 x 300 pixels, nearly learned: rounded to float16, most of its gradient is gone; scaled, none."""
    n, lost = 300, {}
    rng = np.random.default_rng(1)
    target = rng.integers(0, 2, (1, n, n)).astype(np.int32)
    logits = np.where(target[..., None] == np.arange(2), 4.0, -4.0) + rng.normal(0, 0.3, (1, n, n, 2))
    with backends.precision("fp16"):
        scale = loss_scale(Config(steps=1), n * n)
    for dy in (1.0, scale):
        x = Tensor(logits.astype(np.float32), requires_grad=True)
        ops.softmax_cross_entropy(x, target).backward(np.float32(dy))
        rounded = x.grad.astype(np.float16).astype(np.float32)
        lost[dy] = np.linalg.norm(rounded - x.grad) / np.linalg.norm(x.grad)
    assert lost[1.0] > 0.5
    assert lost[scale] <= 2**-11


@pytest.mark.parametrize("optimizer", ("sgd", "adam"))
def test_a_run_in_fp16_is_the_run(optimizer):
    """Where no kernel rounds its factors, every weight and every saved number is that of a run without scaling."""
    found = []
    for precision in ("default", "fp16"):
        with backends.precision(precision):
            made = trainer([], optimizer=optimizer, lr=0.01, steps=3, accumulate=2)
            run(made)
        found.append(made)
    plain, scaled = found
    assert plain.optimizer.loss_scale == 1 and scaled.optimizer.loss_scale > 1
    assert plain.state.pending == scaled.state.pending
    for kind in ("model", "optimizer"):
        a, b = (getattr(made, kind).state_dict() for made in found)
        assert list(a) == list(b) and all(np.array_equal(a[k], b[k]) for k in a)
