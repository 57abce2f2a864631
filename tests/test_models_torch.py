"""Every network of tests/small.py against PyTorch with the same weights: outputs in evaluation and in training, every
gradient, running statistics. The mirrors are in bench/torch_nets.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import pytest
from small import SMALL

from bench import torch_nets
from minunet import backends, models, nn
from minunet.models import Network
from minunet.tensor import Tensor, no_grad, record

TITLES = [title for title, (name, _, _) in SMALL.items() if name in torch_nets.mirrored()]


def twins(torch: Any, title: str) -> tuple[Network, Any, np.ndarray]:
    """Our network and PyTorch's with the same random weights, float64, without dropout; and images (N, H, W, C)."""
    name, arguments, size = SMALL[title]
    net = torch_nets.make(torch, name, arguments)
    torch_nets.draw(torch, net, seed=11)
    model = torch_nets.twin(name, arguments, net)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.rate = 0.0
    return model, net, np.random.default_rng(5).normal(size=(2, *size, model.channels[0]))


def images_first(torch: Any, x: np.ndarray, dtype: str = "float64", **options: Any) -> Any:
    return torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)), dtype=getattr(torch, dtype), **options)


def several(maps: Any) -> tuple[Any, ...]:
    return maps if isinstance(maps, tuple | list) else (maps,)


class Step(NamedTuple):
    """What a training step computes, as arrays in our layout."""

    maps: list[np.ndarray]
    image: np.ndarray  # its gradient
    parameters: dict[str, np.ndarray | None]  # by our names


def seeds_for(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """The gradient that each map is given."""
    rng = np.random.default_rng(6)
    return [rng.normal(size=shape) for shape in shapes]


def our_step(model: Network, x: np.ndarray, backend: str) -> Step:
    """Forward, and backward of sum_k sum(seeds_k maps_k)."""
    with backends.use_backend(backend):
        image = Tensor(x, requires_grad=True)
        maps = several(model.train()(image))
        seeds = [dy.astype(x.dtype) for dy in seeds_for([y.shape for y in maps])]
        total = np.array(sum(float((dy * y.numpy()).sum()) for dy, y in zip(seeds, maps)), x.dtype)
        record("seeded sum", total, maps, lambda one, need: seeds).backward(np.ones((), x.dtype))
    return Step([y.numpy() for y in maps], image.grad, {n: p.grad for n, p in model.named_parameters()})


def torch_step(torch: Any, title: str, model: Network, net: Any, x: np.ndarray, dtype: str) -> Step:
    """The same of the mirror."""
    net.to(getattr(torch, dtype)).train()
    image = images_first(torch, x, dtype, requires_grad=True)
    maps = several(net(image))
    seeds = seeds_for([(y.shape[0], *y.shape[2:], y.shape[1]) for y in maps])
    sum((images_first(torch, dy, dtype) * y).sum() for dy, y in zip(seeds, maps)).backward()
    last = torch_nets.channels_last
    gradients = {
        n: None if q.grad is None else last(q.grad) for n, _, q in torch_nets.pairs(SMALL[title][0], model, net)
    }
    return Step([last(y) for y in maps], last(image.grad), gradients)


def difference(found: np.ndarray, known: np.ndarray, least: float = 0.0) -> float:
    """The norm of the difference as a share of the norm of what is known, or of `least` where that is more."""
    assert found.shape == known.shape
    return float(np.linalg.norm(found - known) / max(np.linalg.norm(known), least))


def close(found: np.ndarray, known: np.ndarray, tol: float, what: str, least: float = 0.0) -> None:
    error = difference(found, known, least)
    assert np.isfinite(error), what
    assert error <= tol, f"{what}: {error:.1e} > {tol:.1e}"


def flat(gradients: dict[str, np.ndarray | None]) -> np.ndarray:
    return np.concatenate([g.ravel() for g in gradients.values() if g is not None])


def test_every_network_has_a_mirror():
    assert sorted(torch_nets.mirrored()) == sorted(models.names())
    assert {name for name, _, _ in SMALL.values()} == set(models.names())


@pytest.mark.parametrize("title", TITLES)
def test_evaluation(torch, title):
    """With the tape, and without it, where batch-norm is folded into the convolutions."""
    model, net, x = twins(torch, title)
    known = torch_nets.channels_last(net.eval()(images_first(torch, x)))
    with backends.use_backend("reference"):
        close(model.eval()(Tensor(x)).numpy(), known, 1e-10, "output")
        with no_grad():
            close(model(Tensor(x)).numpy(), known, 1e-10, "output, folded")


@pytest.mark.parametrize("title", TITLES)
def test_training(torch, title):
    """A step in float64: every map, the gradients of the image and of all parameters, the running statistics."""
    name, arguments, _ = SMALL[title]
    model, net, x = twins(torch, title)
    frozen = {n: not q.requires_grad for n, _, q in torch_nets.pairs(name, model, net)}
    assert {n: not p.requires_grad for n, p in model.named_parameters()} == frozen
    known = torch_step(torch, title, model, net, x, "float64")
    found = our_step(model, x, "reference")
    assert len(found.maps) == len(known.maps) == len(model.outputs)
    for k, (y, theirs) in enumerate(zip(found.maps, known.maps)):
        close(y, theirs, 1e-10, f"map {k}")
    close(found.image, known.image, 1e-10, "gradient of the image")
    # a bias that batch-norm takes away again has the gradient 0, of which rounding leaves something
    least = 0.01 * np.linalg.norm(flat(known.parameters))
    for what, theirs in known.parameters.items():
        ours = found.parameters[what]
        assert (ours is None) == (theirs is None), what
        if theirs is not None:
            close(ours, theirs, 1e-10, what, least)
    after = torch_nets.twin(name, arguments, net)
    for (what, ours), (_, theirs) in zip(model.named_buffers(), after.named_buffers(), strict=True):
        if theirs.dtype.kind == "f":
            close(ours, theirs, 1e-10, what)


@pytest.mark.parametrize("title", TITLES)
def test_training_in_float32(torch, title):
    """The cpu backend's float32 step is as exact as PyTorch's: both are compared with PyTorch's in float64. Rounding
    errors of more than 1e-5 are the network's own, by many layers and few pixels; four times PyTorch's are allowed.
    """
    if "cpu" not in backends.available():
        pytest.skip("backend 'cpu' is not available here")
    model, net, x = twins(torch, title)
    single = deepcopy(net)
    known = torch_step(torch, title, model, net, x, "float64")
    theirs = torch_step(torch, title, model, single, x, "float32")
    ours = our_step(model.astype(np.float32), x.astype(np.float32), "cpu")
    triples = [(f"map {k}", *three) for k, three in enumerate(zip(ours.maps, theirs.maps, known.maps, strict=True))]
    triples.append(("gradient of the image", ours.image, theirs.image, known.image))
    triples.append(("gradient", *(flat(one.parameters) for one in (ours, theirs, known))))
    for what, found, peer, exact in triples:
        close(found, exact, max(1e-5, 4 * difference(peer, exact)), what)
