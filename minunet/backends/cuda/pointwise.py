"""One element in, one element out: kernels/cuda/pointwise.cu."""

from __future__ import annotations

from math import ceil
from typing import Any

from minunet.backends.cuda.columns import columns, finish
from minunet.backends.cuda.launch import THREADS, Device, flat_grid, launch, vectors
from minunet.backends.cuda.maps import maps

FILE = "pointwise.cu"
PER_THREAD = 16  # elements: four groups of 16 bytes of floats


def flat(device: Device, kernel: str, *arrays: Any, numbers: tuple = ()) -> None:
    """A kernel on arrays of one shape, (arrays..., n, vectors, numbers...)."""
    y = arrays[0]
    arguments = (*arrays, y.size, vectors(device, y.size, *arrays), *numbers)
    launch(device, FILE, kernel, y.dtype, flat_grid(y.size, PER_THREAD), THREADS, *arguments)


def relu(device, y, x):
    flat(device, "relu", y, x)


def relu_grad(device, dx, dy, y):
    flat(device, "relu_grad", dx, dy, y)


def leaky_relu(device, y, x, *, slope):
    flat(device, "leaky_relu", y, x, numbers=(slope,))


def leaky_relu_grad(device, dx, dy, x, *, slope):
    flat(device, "leaky_relu_grad", dx, dy, x, numbers=(slope,))


def elu(device, y, x, *, alpha):
    flat(device, "elu", y, x, numbers=(alpha,))


def elu_grad(device, dx, dy, y, *, alpha):
    flat(device, "elu_grad", dx, dy, y, numbers=(alpha,))


def sigmoid(device, y, x):
    flat(device, "sigmoid", y, x)


def sigmoid_grad(device, dx, dy, y):
    flat(device, "sigmoid_grad", dx, dy, y)


def tanh(device, y, x):
    flat(device, "tanh_forward", y, x)  # C's own tanh has the shorter name


def tanh_grad(device, dx, dy, y):
    flat(device, "tanh_grad", dx, dy, y)


def add(device, y, a, b, *, alpha, beta):
    flat(device, "add", y, a, b, numbers=(alpha, beta))


def scale(device, y, x, *, factor):
    flat(device, "scale", y, x, numbers=(factor,))


def dropout(device, y, x, *, rate, seed):
    flat(device, "dropout", y, x, numbers=(seed, ceil(rate * 2**24), 1 - rate))


def prelu(device, y, x, slope):
    g = columns(device, x, y, slope)
    launch(device, FILE, "prelu", x.dtype, g.grid, g.block, y, x, slope, g.pixels, g.channels, g.wide)


def prelu_grad(device, dx, dslope, dy, x, slope):
    g = columns(device, x, dx, dy, slope)
    partial = device.empty((1, g.grid[1], g.channels), x.dtype)
    arguments = (dx, partial, dy, x, slope, g.pixels, g.channels, g.wide)
    launch(device, FILE, "prelu_grad", x.dtype, g.grid, g.block, *arguments)
    finish(device, dslope, partial)


def gate(device, y, x, g):
    m = maps(device, y, x, g)
    launch(device, FILE, "gate", x.dtype, m.grid, m.block, y, x, g, *x.shape, m.wide)


def gate_grad_g(device, dg, dy, x):
    g = columns(device, dy, x, samples=x.shape[0])
    partial = device.empty((g.samples, g.grid[1], g.channels), x.dtype)
    arguments = (partial, dy, x, g.pixels, g.channels, g.wide)
    launch(device, "channel_sum.cu", "product_sum_partial", x.dtype, g.grid, g.block, *arguments)
    finish(device, dg, partial)
