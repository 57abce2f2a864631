"""SGD and Adam against the papers' formulas in NumPy, and against PyTorch where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from minunet import backends, optim
from minunet.nn import Parameter

pytestmark = pytest.mark.usefixtures("backend")

SHAPES = [(3, 2, 2, 5), (7,), (1,)]
STEPS = 7


def parameters(dtype: type = np.float64) -> list[Parameter]:
    rng = np.random.default_rng(0)
    return [Parameter(rng.normal(size=shape).astype(dtype)) for shape in SHAPES]


def gradients(step: int, dtype: type = np.float64) -> list[np.ndarray]:
    rng = np.random.default_rng(100 + step)
    return [rng.normal(size=shape).astype(dtype) for shape in SHAPES]


def learning_rate(step: int) -> float:
    """Changes half-way."""
    return 0.05 if step < STEPS // 2 else 0.007


def train(optimiser: optim.Optimizer, steps: range = range(STEPS), dtype: type = np.float64) -> None:
    for step in steps:
        optimiser.lr = learning_rate(step)
        for p, g in zip(optimiser.parameters, gradients(step, dtype)):
            p.grad = g
        optimiser.step()
        optimiser.zero_grad()


def sgd(p: np.ndarray, grads: list[np.ndarray], momentum=0.0, weight_decay=0.0, nesterov=False) -> np.ndarray:
    """One parameter through all steps, one element at a time."""
    p = p.copy()
    for e in np.ndindex(p.shape):
        velocity = 0.0
        for step, g in enumerate(grads):
            h = g[e] + weight_decay * p[e]
            velocity = momentum * velocity + h
            p[e] -= learning_rate(step) * (h + momentum * velocity if nesterov else velocity)
    return p


def adam(p: np.ndarray, grads: list[np.ndarray], betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0) -> np.ndarray:
    """Kingma & Ba, algorithm 1, one element at a time."""
    p = p.copy()
    for e in np.ndindex(p.shape):
        m = v = 0.0
        for step, g in enumerate(grads):
            h, t = g[e] + weight_decay * p[e], step + 1
            m, v = betas[0] * m + (1 - betas[0]) * h, betas[1] * v + (1 - betas[1]) * h * h
            p[e] -= learning_rate(step) * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
    return p


OPTIMISERS = {
    "sgd": (optim.SGD, sgd, {}),
    "sgd, momentum": (optim.SGD, sgd, {"momentum": 0.9}),
    "sgd, weight decay": (optim.SGD, sgd, {"weight_decay": 0.1}),
    "sgd, nesterov": (optim.SGD, sgd, {"momentum": 0.9, "nesterov": True}),
    "sgd, all": (optim.SGD, sgd, {"momentum": 0.99, "nesterov": True, "weight_decay": 5e-4}),
    "adam": (optim.Adam, adam, {}),
    "adam, betas, eps": (optim.Adam, adam, {"betas": (0.5, 0.9), "eps": 0.1}),
    "adam, weight decay": (optim.Adam, adam, {"weight_decay": 0.1}),
}
each = pytest.mark.parametrize("label", OPTIMISERS)


def check(found: list[Parameter], expected: list[np.ndarray], tolerance: float = 1e-13) -> None:
    for p, q in zip(found, expected, strict=True):
        error = np.abs(p.data - q).max() / np.abs(q).max()
        assert np.isfinite(error)
        assert error <= tolerance


@each
def test_against_the_formula(label):
    cls, formula, options = OPTIMISERS[label]
    found, start = parameters(), parameters()
    train(cls(found, lr=1.0, **options))
    grads = list(zip(*(gradients(step) for step in range(STEPS))))
    check(found, [formula(p.data, g, **options) for p, g in zip(start, grads)])


@each
def test_against_torch(label):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    cls, _, options = OPTIMISERS[label]
    found = parameters()
    theirs = [torch.tensor(p.data.copy(), requires_grad=True) for p in found]
    optimiser = getattr(torch.optim, cls.__name__)(theirs, lr=1.0, **options)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = learning_rate(step)
        for p, g in zip(theirs, gradients(step)):
            p.grad = torch.tensor(g)
        optimiser.step()
    train(cls(found, lr=1.0, **options))
    check(found, [p.detach().numpy() for p in theirs])


@each
def test_float32(label):
    cls, _, options = OPTIMISERS[label]
    exact, found = parameters(), parameters(np.float32)
    train(cls(exact, lr=1.0, **options))
    train(cls(found, lr=1.0, **options), dtype=np.float32)
    assert {p.dtype for p in found} == {np.dtype(np.float32)}
    check(found, [p.data for p in exact], 1e-5)


@each
def test_state_goes_back(label):
    """Three steps, saved, restored elsewhere, and the rest: the same bits as without a break."""
    cls, _, options = OPTIMISERS[label]
    straight, first, second = parameters(), parameters(), parameters()
    train(cls(straight, lr=1.0, **options))
    broken = cls(first, lr=1.0, **options)
    train(broken, range(3))
    state = broken.state_dict()
    for p, q in zip(second, first):
        p.data[...] = q.data
    train(broken, range(3, STEPS))  # the state is a copy: this does not reach it
    resumed = cls(second, lr=1.0, **options)
    resumed.load_state_dict(state)
    train(resumed, range(3, STEPS))
    for p, q, r in zip(straight, first, second):
        assert np.array_equal(p.data, q.data)
        assert np.array_equal(p.data, r.data)


def test_updates_are_in_place_and_leave_the_gradients():
    p = Parameter(np.ones(3))
    array, g = p.data, np.array([1.0, 2.0, 3.0])
    p.grad = g
    for optimiser in (optim.SGD([p], 0.1, momentum=0.9), optim.Adam([p], 0.1)):
        optimiser.step()
    assert p.data is array
    assert p.grad is g
    assert np.array_equal(g, [1.0, 2.0, 3.0])


def test_a_parameter_without_a_gradient_stands_still():
    a, b = Parameter(np.ones(2)), Parameter(np.ones(2))
    optimiser = optim.Adam([a, b], 0.1, weight_decay=0.1)
    a.grad = np.ones(2)
    optimiser.step()
    assert (a.data < 1).all()
    assert np.array_equal(b.data, np.ones(2))
    optimiser.zero_grad()
    assert a.grad is None


def test_what_is_refused():
    with pytest.raises(ValueError, match="at least one parameter"):
        optim.SGD([], 0.1)
    for lr in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"{lr}.*positive"):
            optim.Adam(parameters(), lr)
    for make, name in (
        (lambda: optim.SGD(parameters(), 0.1, weight_decay=-1e-4), "weight decay is -0.0001"),
        (lambda: optim.SGD(parameters(), 0.1, momentum=1.0), "momentum is 1.0.*below 1"),
        (lambda: optim.Adam(parameters(), betas=(1.0, 0.999)), "beta1 is 1.0.*below 1"),  # divides by 1 - beta1^t
        (lambda: optim.Adam(parameters(), betas=(0.9, float("nan"))), "beta2 is nan"),
        (lambda: optim.Adam(parameters(), eps=-1e-8), "eps is -1e-08"),
    ):
        with pytest.raises(ValueError, match=name):
            make()


def test_a_wrong_state_is_refused_and_changes_nothing():
    optimiser, other = optim.SGD(parameters(), 0.1, momentum=0.9), optim.SGD(parameters(), 0.1, momentum=0.9)
    train(optimiser, range(2))
    train(other, range(4))
    before = optimiser.state_dict()
    for breaker, words in (
        (lambda s: s.pop("velocity.1"), r"velocity\.1 has shape None.*\(7,\)"),
        (lambda s: s.update({"velocity.2": np.zeros(2)}), r"velocity\.2 has shape \(2,\).*\(1,\)"),
        (lambda s: s.pop("steps"), "steps"),
    ):
        state = other.state_dict()
        breaker(state)
        with pytest.raises(ValueError, match=words):
            optimiser.load_state_dict(state)
        after = optimiser.state_dict()
        assert list(after) == list(before)
        assert all(np.array_equal(after[k], before[k]) for k in before)


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
def test_small_parameters_are_updated_together_as_they_would_be_alone(make):
    """Each by its own rates and in its own place, to the bit; what does not fit is refused by the kernel."""
    rng = np.random.default_rng(3)
    shapes = [(3, 2, 2, 5), (7,), (optim.JOINED + 1,), (1,), (2, 3)]
    values = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    rates = [(1.0, 1.0), (2.0, 0.0), (1.0, 1.0), (2.0, 0.0), (1.0, 1.0)]

    def made(k: int) -> Parameter:
        p = Parameter(values[k].copy())
        p.lr_factor, p.decay_factor = rates[k]
        return p

    together = [made(k) for k in range(5)]
    alone = [made(k) for k in range(5)]
    optimisers = [make(together, lr=0.1, weight_decay=0.01)] + [make([p], lr=0.1, weight_decay=0.01) for p in alone]
    for step in range(3):
        for k in range(5):
            gradient = rng.normal(size=shapes[k]).astype(np.float32)
            together[k].grad = alone[k].grad = None if step == 1 and k == 3 else gradient
        with backends.count() as counter:
            optimisers[0].step()
        assert counter.calls == 3  # one for each pair of rates, one for the large parameter
        for optimiser in optimisers[1:]:
            optimiser.step()
    for p, q in zip(together, alone):
        assert p.data.tobytes() == q.data.tobytes()
    together[1].grad = np.ones((8,), np.float32)
    with pytest.raises(ValueError, match=r"\(7,\).*\(8,\)|\(8,\).*\(7,\)"):
        optimisers[0].step()
