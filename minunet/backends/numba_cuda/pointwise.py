"""One element in, one element out: kernels/numba_cuda/pointwise.py."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

from minunet.backends.numba_cuda.channel_sum import product_sum
from minunet.backends.numba_cuda.launch import Device, columns, finish, flat, launch, matrix, over_map, real

FILE = "pointwise"


def _each(device: Device, kernel: str, *arrays: Any, numbers: tuple = ()) -> None:
    """A kernel on arrays of one shape, seen as flat."""
    flat(device, FILE, kernel, arrays[0].size, *(a.reshape(-1) for a in arrays), *real(arrays[0], *numbers))


def relu(device, y, x):
    _each(device, "relu", y, x)


def relu_grad(device, dx, dy, y):
    _each(device, "relu_grad", dx, dy, y)


def leaky_relu(device, y, x, *, slope):
    _each(device, "leaky_relu", y, x, numbers=(slope,))


def leaky_relu_grad(device, dx, dy, x, *, slope):
    _each(device, "leaky_relu_grad", dx, dy, x, numbers=(slope,))


def elu(device, y, x, *, alpha):
    _each(device, "elu", y, x, numbers=(alpha,))


def elu_grad(device, dx, dy, y, *, alpha):
    _each(device, "elu_grad", dx, dy, y, numbers=(alpha,))


def sigmoid(device, y, x):
    _each(device, "sigmoid", y, x)


def sigmoid_grad(device, dx, dy, y):
    _each(device, "sigmoid_grad", dx, dy, y)


def tanh(device, y, x):
    _each(device, "tanh", y, x)


def tanh_grad(device, dx, dy, y):
    _each(device, "tanh_grad", dx, dy, y)


def add(device, y, a, b, *, alpha, beta):
    _each(device, "add", y, a, b, numbers=(alpha, beta))


def scale(device, y, x, *, factor):
    _each(device, "scale", y, x, numbers=(factor,))


def dropout(device, y, x, *, rate, seed):
    # u >= rate with u = m / 2^24 is m >= rate 2^24, and that product is exact.
    numbers = (np.uint64(seed), np.uint64(ceil(rate * 2**24)), *real(x, 1.0 / (1.0 - rate)))
    flat(device, FILE, "dropout", y.size, y.reshape(-1), x.reshape(-1), *numbers)


def prelu(device, y, x, slope):
    grid, block = columns(x.size // slope.size, slope.size)
    launch(device, FILE, "prelu", grid, block, matrix(y), matrix(x), slope)


def prelu_grad(device, dx, dslope, dy, x, slope):
    grid, block = columns(x.size // slope.size, slope.size)
    partial = device.empty((1, grid[1], slope.size), x.dtype)
    launch(device, FILE, "prelu_grad", grid, block, matrix(dx), partial, matrix(dy), matrix(x), slope)
    finish(device, dslope, partial)


def gate(device, y, x, g):
    over_map(device, FILE, "gate", y, x, g)


def gate_grad_g(device, dg, dy, x):
    product_sum(device, dg, dy, x)
