"""The point-wise formulas, run as plain Python: what the CPU and Numba CUDA compile, CUDA C++ must agree with too."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
from checks import run

from minunet import backends
from minunet.backends import formulas
from minunet.contract import ROWS

pytestmark = pytest.mark.skipif("cuda_host" not in backends.available(), reason="no C++ compiler for cuda_host")

SPECIAL = (0.0, -0.0, np.inf, -np.inf, np.nan, 1e-300, -1e-300, 745.0, -745.0, 88.8, -88.8)
# {row: (what it is in formulas.py, options)}; an exponential that a formula is given is made here as its caller does.
UNARY = {
    "relu": (formulas.relu, {}),
    "leaky_relu": (lambda x: formulas.leaky_relu(x, 0.125), {"slope": 0.125}),
    "elu": (lambda x: formulas.elu(x, np.expm1(formulas.not_positive(x)), 0.75), {"alpha": 0.75}),
    "sigmoid": (lambda x: formulas.sigmoid(x, np.exp(-abs(x))), {}),
    "tanh": (lambda x: formulas.tanh(x, np.expm1(-2 * abs(x))), {}),
    "scale": (lambda x: formulas.scale(x, 0.3), {"factor": 0.3}),
}
BINARY = {
    "relu_grad": (formulas.relu_grad, {}),
    "leaky_relu_grad": (lambda d, x: formulas.leaky_relu_grad(d, x, 0.125), {"slope": 0.125}),
    "elu_grad": (lambda d, y: formulas.elu_grad(d, y, 0.75), {"alpha": 0.75}),
    "sigmoid_grad": (formulas.sigmoid_grad, {}),
    "tanh_grad": (formulas.tanh_grad, {}),
    "add": (lambda a, b: formulas.add(a, b, 0.3, -1.7), {"alpha": 0.3, "beta": -1.7}),
}


def same(name: str, formula, options, *arrays: np.ndarray) -> None:
    """CUDA C++'s kernel gives what the formula gives, to a few roundings; NaN and infinities where it does."""
    with np.errstate(all="ignore"):
        truth = np.array([formula(*numbers) for numbers in zip(*arrays)], arrays[0].dtype)
    result = run("cuda_host", ROWS[name], arrays, options)[0]
    np.testing.assert_allclose(result, truth, rtol=8 * np.finfo(truth.dtype).eps, atol=0, err_msg=name)


@pytest.mark.parametrize("name", sorted(UNARY))
def test_unary(name, rng):
    same(name, *UNARY[name], np.concatenate([SPECIAL, rng.normal(0, 4, 50)]))


@pytest.mark.parametrize("name", sorted(BINARY))
def test_binary(name, rng):
    first, second = (np.ravel(a) for a in np.meshgrid(SPECIAL, SPECIAL))
    more = rng.normal(0, 1, (2, 50))
    same(name, *BINARY[name], np.concatenate([first, more[0]]), np.concatenate([second, more[1]]))


def test_dropout_draws_the_same_bits(rng):
    x, seed, rate = rng.normal(size=64), 12345, 0.37
    threshold, factor = np.uint64(math.ceil(rate * 2**24)), 1 / (1 - rate)
    with np.errstate(over="ignore"):
        bits = [formulas.splitmix(np.uint64(seed), np.uint64(k)) for k in range(x.size)]
    truth = np.array([formulas.dropout(a, b, threshold, factor) for a, b in zip(x, bits)])
    result = run("cuda_host", ROWS["dropout"], (x,), {"rate": rate, "seed": seed})[0]
    assert 10 < np.count_nonzero(truth) < 54
    np.testing.assert_allclose(result, truth, rtol=1e-15)


def test_prelu_and_its_slope(rng):
    x, dy = rng.normal(size=(9, 1)), rng.normal(size=(9, 1))
    slope = np.array([0.4])
    dx, dslope = run("cuda_host", ROWS["prelu_grad"], (dy, x, slope), {})
    ravel = list(zip(dy.ravel(), x.ravel()))
    np.testing.assert_allclose(dx.ravel(), [formulas.leaky_relu_grad(d, a, 0.4) for d, a in ravel], rtol=1e-15)
    np.testing.assert_allclose(dslope, [sum(formulas.prelu_grad_slope(d, a) for d, a in ravel)], rtol=1e-13)
    y = run("cuda_host", ROWS["prelu"], (x, slope), {})[0]
    np.testing.assert_allclose(y.ravel(), [formulas.leaky_relu(a, 0.4) for a in x.ravel()], rtol=1e-15)


def test_every_formula_is_asked():
    """A new formula is compared here too."""
    text = inspect.getsource(inspect.getmodule(same))
    names = [name for name, value in vars(formulas).items() if inspect.isfunction(value)]
    assert len(names) > 10 and not [name for name in names if not re.search(rf"formulas\.{name}\b", text)]
