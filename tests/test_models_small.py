"""Every network, small and in float64: its outputs, and its gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from small import SMALL

from minunet import backends, models, nn
from minunet.models import Network
from minunet.tensor import Tensor, record

pytestmark = pytest.mark.parametrize("title", SMALL)


@pytest.fixture(autouse=True)
def _judge():
    with backends.use_backend("reference"):
        yield


def fresh(title: str) -> tuple[Network, np.ndarray]:
    """The network in float64, its vectors moved off their constant starts, and an image."""
    name, arguments, size = SMALL[title]
    model = models.build(name, **arguments).astype(np.float64)
    rng = np.random.default_rng(7)
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.1 * rng.normal(size=p.shape)
    return model, rng.normal(size=(2, *size, model.channels[0]))


def everything(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def backward_all(maps: tuple[Tensor, ...], seeds: list[np.ndarray]) -> None:
    """Gradients of sum_k sum(seeds_k maps_k): one walk over the tape that the maps share."""
    total = sum(float((dy * y.numpy()).sum()) for dy, y in zip(seeds, maps))
    record("seeded sum", np.array(total), maps, lambda one, need: [float(one) * dy for dy in seeds]).backward()


def test_outputs(title):
    """In training as many maps as `outputs` says; in evaluation one, as large as `output_size` says."""
    model, x = fresh(title)
    kept = x.copy()
    maps = everything(model(Tensor(x)))
    assert len(maps) == len(model.outputs)
    for y in maps:
        assert np.isfinite(y.numpy()).all()
    y = model.eval()(Tensor(x))
    assert y.shape == (2, *model.output_size(*x.shape[1:3]), model.config["n_classes"])
    assert np.isfinite(y.numpy()).all()
    assert np.array_equal(x, kept)


def test_gradients_against_finite_differences(title):
    """d/dt of sum(dy y(parameters + t direction, image + t direction)), dy random, in training. Dropout's masks are
    part of the function: each evaluation starts with the counters at zero.
    """
    model, x = fresh(title)
    rng = np.random.default_rng(3)
    trained = [p for p in model.parameters() if p.requires_grad]
    statistics = [
        (m, m.running_mean.copy(), m.running_var.copy()) for m in model.modules() if isinstance(m, nn.BatchNorm2d)
    ]
    drops = [m for m in model.modules() if isinstance(m, nn.Dropout)]

    def run(image: np.ndarray, requires_grad: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        for m in drops:
            m.calls[...] = 0
        for m, mean, var in statistics:
            m.running_mean[...], m.running_var[...] = mean, var
        tensor = Tensor(image, requires_grad=requires_grad)
        return tensor, everything(model(tensor))

    tensor, maps = run(x, requires_grad=True)
    seeds = [rng.normal(size=y.shape) for y in maps]
    backward_all(maps, seeds)

    def value(image: np.ndarray) -> float:
        return sum(float((dy * y.numpy()).sum()) for dy, y in zip(seeds, run(image)[1]))

    # one direction for the image and every parameter, each scaled to the gradient's own size
    directions = [rng.normal(size=x.shape), *(rng.normal(size=p.shape) for p in trained)]
    gradients = [tensor.grad, *(np.zeros(p.shape) if p.grad is None else p.grad for p in trained)]
    expected = sum(float((d * g).sum()) for d, g in zip(directions, gradients))
    starts = [p.data.copy() for p in trained]

    def moved(t: float) -> float:
        for p, start, d in zip(trained, starts, directions[1:]):
            p.data[...] = start + t * d
        return value(x + t * directions[0])

    errors = []
    for step in (1e-4, 1e-5, 1e-6, 1e-7):  # a kink (ReLU, max) between the two points spoils a step, not all of them
        found = (moved(step) - moved(-step)) / (2 * step)
        errors.append(abs(found - expected) / max(abs(expected), 1e-12))
    assert np.isfinite(errors).any()
    assert min(e for e in errors if np.isfinite(e)) <= 1e-5, errors


def test_every_trained_parameter_gets_a_gradient(title):
    """But those whose names begin as the network's `unused` says."""
    model, x = fresh(title)
    maps = everything(model(Tensor(x)))
    rng = np.random.default_rng(0)
    backward_all(maps, [rng.normal(size=y.shape) for y in maps])
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == {n for n, _ in model.named_parameters() if n.startswith(model.unused)}
