"""Every network of tests/small.py against PyTorch with the same weights: outputs in evaluation and in training, every
gradient, running statistics. The mirrors are in tests/torch_nets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch_nets
from small import SMALL

from minunet import backends, models, nn
from minunet.models import Network
from minunet.tensor import Tensor, no_grad, record

TITLES = [title for title, (name, _, _) in SMALL.items() if name in torch_nets.mirrored()]


@pytest.fixture
def torch():
    found = pytest.importorskip("torch", reason="PyTorch is not installed")
    found.set_num_threads(1)
    return found


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


def images_first(torch: Any, x: np.ndarray, **options: Any) -> Any:
    return torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)), **options)


def several(maps: Any) -> tuple[Any, ...]:
    return maps if isinstance(maps, tuple | list) else (maps,)


def step(model: Network, x: np.ndarray, seeds: list[np.ndarray]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Forward, and backward of sum_k sum(seeds_k maps_k); the image with its gradient, and the maps."""
    image = Tensor(x, requires_grad=True)
    maps = several(model(image))
    total = sum(float((dy * y.numpy()).sum()) for dy, y in zip(seeds, maps, strict=True))
    record("seeded sum", np.array(total), maps, lambda one, need: list(seeds)).backward(np.array(1.0))
    return image, maps


def close(found: np.ndarray, known: np.ndarray, tol: float, what: str, least: float = 0.0) -> None:
    """The norm of the difference is at most `tol` of the norm of what is known, or of `least` where that is more."""
    assert found.shape == known.shape, what
    error = np.linalg.norm(found - known) / max(np.linalg.norm(known), least)
    assert np.isfinite(error), what
    assert error <= tol, f"{what}: {error:.1e}"


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
    model, net, x = twins(torch, title)
    _compare_step(torch, title, model, net, x, "reference", 1e-10, beside=0.01)


@pytest.mark.parametrize("title", TITLES)
def test_training_in_float32(torch, title):
    """The cpu backend in float32 against PyTorch in float64. A gradient is judged beside the whole one, since
    rounding in one layer is felt in all of them.
    """
    if "cpu" not in backends.available():
        pytest.skip("backend 'cpu' is not available here")
    model, net, x = twins(torch, title)
    _compare_step(torch, title, model.astype(np.float32), net, x, "cpu", 1e-5, beside=1.0)


def _compare_step(
    torch, title: str, model: Network, net: Any, x: np.ndarray, backend: str, tol: float, beside: float
) -> None:
    """A step of both: every map, the gradients of the image and of all parameters, the running statistics.

    beside : a gradient of less than this share of the norm of all of them is judged as if it had that share: of a bias
        that batch-norm takes away again the gradient is 0, and rounding leaves something of it
    """
    name = SMALL[title][0]
    image_known = images_first(torch, x, requires_grad=True)
    maps_known = several(net.train()(image_known))
    rng = np.random.default_rng(6)
    seeds = [rng.normal(size=(y.shape[0], *y.shape[2:], y.shape[1])) for y in maps_known]
    sum((images_first(torch, dy) * y).sum() for dy, y in zip(seeds, maps_known)).backward()

    dtype = model.parameters()[0].dtype
    with backends.use_backend(backend):
        image, maps = step(model.train(), x.astype(dtype), [dy.astype(dtype) for dy in seeds])
    assert len(maps) == len(model.outputs)
    for k, (y, known) in enumerate(zip(maps, maps_known, strict=True)):
        close(y.numpy(), torch_nets.channels_last(known), tol, f"map {k}")
    close(image.grad, torch_nets.channels_last(image_known.grad), tol, "gradient of the image")
    triples = list(torch_nets.pairs(name, model, net))
    norm = sum(float((q.grad**2).sum()) for _, _, q in triples if q.grad is not None) ** 0.5
    for what, p, q in triples:
        assert p.requires_grad == q.requires_grad, what
        if not p.requires_grad or q.grad is None:
            assert p.grad is None, what
            continue
        close(p.grad, torch_nets.channels_last(q.grad), tol, what, least=beside * norm)
    again = torch_nets.twin(name, SMALL[title][1], net)
    for (what, found), (_, known) in zip(model.named_buffers(), again.named_buffers()):
        if known.dtype.kind == "f":
            close(found, known, tol, what)
