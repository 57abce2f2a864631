"""Pointwise kernels: both signs, away from the kink at 0."""

from __future__ import annotations

from collections.abc import Iterable

from minunet.contract import ROWS

from .sample import MAPS, Case, extreme, make, normal, off_zero, rows, uniform

_SHAPES = {**MAPS, "vector": (13,), "beyond one block": (1, 33, 35, 5)}
_GATED = {**MAPS, "long rows": (2, 21, 33, 5), "beyond the lanes": (1, 2, 3, 600)}
_SCALARS = {  # the options to try
    "relu": [{}],
    "relu_grad": [{}],
    "leaky_relu": [{"slope": 0.2}, {"slope": 0.0}],
    "leaky_relu_grad": [{"slope": 0.2}, {"slope": 0.0}],
    "elu": [{"alpha": 1.0}, {"alpha": 0.3}],
    "sigmoid_grad": [{}],
    "tanh_grad": [{}],
    "scale": [{"factor": 0.5}, {"factor": -3.7}],
    "add": [{"alpha": 1.0, "beta": 1.0}, {"alpha": 0.5, "beta": -0.3}],
    "dropout": [{"rate": 0.0, "seed": 0}, {"rate": 0.5, "seed": 2**64 - 1}, {"rate": 0.9, "seed": 1234567}],
}

_OUTPUTS = {"sigmoid_grad": (0.01, 0.99), "tanh_grad": (-0.9, 0.9)}  # the last input is an output: its range


@rows(*_SCALARS)
def _pointwise(row_name: str) -> Iterable[Case]:
    two = len(ROWS[row_name].inputs) == 2
    for label, shape in _SHAPES.items():
        for options in _SCALARS[row_name]:
            last = uniform(*_OUTPUTS[row_name], *shape) if row_name in _OUTPUTS else off_zero(*shape)
            words = "".join(f", {name} {value}" for name, value in options.items())
            yield Case(label + words, make(normal(*shape), last) if two else make(last), options)


@rows("elu_grad")
def _elu_grad(_: str) -> Iterable[Case]:
    for label, shape in _SHAPES.items():
        for alpha in (1.0, 0.3):  # y lies above -alpha
            output = uniform(-0.9 * alpha, 1.5, *shape)
            yield Case(f"{label}, alpha {alpha}", make(normal(*shape), output), {"alpha": alpha})


@rows("sigmoid", "tanh")
def _saturating(_: str) -> Iterable[Case]:
    for label, shape in _SHAPES.items():
        yield Case(label, make(normal(*shape, std=3.0)))
        yield Case(f"{label}, extreme", make(extreme(*shape)))


@rows("prelu", "prelu_grad")
def _prelu(row_name: str) -> Iterable[Case]:
    for label, shape in MAPS.items():
        arrays = (off_zero(*shape), normal(shape[3], mean=0.25, std=0.1))
        yield Case(label, make(normal(*shape, mean=0.5), *arrays) if row_name == "prelu_grad" else make(*arrays))


@rows("gate")
def _gate(_: str) -> Iterable[Case]:
    for label, (n, h, w, c) in _GATED.items():
        yield Case(label, make(normal(n, h, w, c), normal(n, 1, 1, c)))


@rows("gate_grad_g")
def _gate_grad_g(_: str) -> Iterable[Case]:
    for label, shape in _GATED.items():
        yield Case(label, make(normal(*shape, mean=0.5), normal(*shape, mean=0.5)))
