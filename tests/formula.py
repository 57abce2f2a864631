"""Weights and images by formula, so that a network can be checked anywhere without stored weights, and what to do with
them: the forward and backward pass whose numbers tests/test_models_known.py compares. Everything in float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minunet import models, nn, ops
from minunet.models import Network
from minunet.tensor import Tensor


def u(shape: tuple[int, ...]) -> np.ndarray:
    """2 ((31 i^2 + 7919 i + 17) mod 10007) / 10007 - 1, i counted in C order."""
    i = np.arange(np.prod(shape), dtype=np.int64)
    return (2 * ((31 * i**2 + 7919 * i + 17) % 10007) / 10007 - 1).reshape(shape)


def images(n: int, c: int, h: int, w: int) -> np.ndarray:
    """u over (N, C, H, W), as NHWC."""
    return np.ascontiguousarray(u((n, c, h, w)).transpose(0, 2, 3, 1))


def weights_by_formula(model: Network) -> Network:
    """sqrt(6 shape[0] / size) u for weights, in the order (O, C, KH, KW) or, transposed, (C_in, C_out, KH, KW);
    0.01 cos i for biases, 1 + 0.1 sin i and 0.1 cos i for batch-norm's gamma and beta, 0.25 for PReLU's slope.
    Frozen parameters keep their values; dropout is switched off.
    """
    special: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            i = np.arange(module.gamma.data.size)
            special |= {id(module.gamma): 1 + 0.1 * np.sin(i), id(module.beta): 0.1 * np.cos(i)}
        elif isinstance(module, nn.PReLU):
            special[id(module.slope)] = np.full(module.slope.shape, 0.25)
        elif isinstance(module, nn.Dropout):
            module.rate = 0.0
    for p in model.parameters():
        if not p.requires_grad:
            continue
        if id(p) in special:
            p.data[...] = special[id(p)]
        elif p.data.ndim == 1:
            p.data[...] = 0.01 * np.cos(np.arange(p.data.size))
        else:
            a, kh, kw, b = p.shape
            p.data[...] = np.sqrt(6 * a / p.data.size) * u((a, b, kh, kw)).transpose(0, 2, 3, 1)
    return model


class Answer(NamedTuple):
    """What a network of formula weights gives for a formula image."""

    parameters: int
    output: tuple[int, int, int, int]  # N, C, H, W
    evaluated: tuple[float, float, float, float]  # first, last, mean, standard deviation
    train_mean: float
    loss: float
    gradient_norm: float


def answer(name: str, image: tuple[int, int, int, int], arguments: dict[str, Any]) -> Answer:
    """Evaluate the network; then, from fresh weights, a forward and backward pass with batch statistics.

    Loss: mean cross-entropy with labels (3h + 5w + 7n) mod classes; of a network with one output channel mean binary
    cross-entropy with (h + w + n) mod 2, and its outputs are probabilities.
    """

    def fresh() -> Network:
        return weights_by_formula(models.build(name, **arguments).astype(np.float64))

    x = images(*image)
    one = arguments["n_classes"] == 1

    def seen(logits: Tensor) -> np.ndarray:
        """(N, C, H, W)"""
        return (ops.sigmoid(logits) if one else logits).numpy().transpose(0, 3, 1, 2)

    y = seen(fresh().eval()(Tensor(x)))
    model = fresh().train()
    logits = model(Tensor(x))
    n, h, w = np.indices(logits.shape[:3])
    if one:
        loss = ops.sigmoid_cross_entropy(logits, ((h + w + n) % 2)[..., None])
    else:
        loss = ops.softmax_cross_entropy(logits, (3 * h + 5 * w + 7 * n) % arguments["n_classes"])
    loss.backward()
    squares = [float((p.grad**2).sum()) for p in model.parameters() if p.requires_grad]
    return Answer(
        sum(p.data.size for p in model.parameters() if p.requires_grad),
        y.shape,
        (y.ravel()[0], y.ravel()[-1], y.mean(), y.std()),
        seen(logits).mean(),
        loss.item(),
        float(np.sqrt(sum(squares))),
    )
