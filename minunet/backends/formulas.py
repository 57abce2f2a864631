"""Point-wise formulas, written once: plain functions of numbers, which Numba compiles for the CPU and for the GPU.

A type is that of the argument (`type(x)(0)`), so that float32 stays float32. Where a formula needs an exponential the
caller hands it in, since each device has its own best one. The reference shares none of these: it judges them.
"""

from __future__ import annotations

import numpy as np


def relu(x):
    """max(x, 0); NaN <= 0 is false, so NaN stays."""
    return type(x)(0) if x <= 0 else x


def relu_grad(dy, y):
    """dy [y > 0]."""
    return dy if y > 0 else type(dy)(0)


def leaky_relu(x, slope):
    """x where x > 0, else slope x. With a slope for each channel it is prelu."""
    return x if x > 0 else slope * x


def leaky_relu_grad(dy, x, slope):
    """dy where x > 0, else slope dy."""
    return dy if x > 0 else slope * dy


def prelu_grad_slope(dy, x):
    """What an element adds to the slope's gradient: x dy [x <= 0]."""
    return type(x)(0) if x > 0 else x * dy


def not_positive(x):
    """min(x, 0), NaN staying NaN: what elu's exponential is taken of."""
    return type(x)(0) if x > 0 else x


def elu(x, less, alpha):
    """x where x > 0, else alpha less; less = exp(not_positive(x)) - 1."""
    return x if x > 0 else alpha * less


def elu_grad(dy, y, alpha):
    """dy where y > 0, else dy (y + alpha)."""
    return dy if y > 0 else dy * (y + alpha)


def sigmoid(x, e):
    """1 / (1 + exp(-x)); e = exp(-|x|), which cannot overflow."""
    one = type(x)(1)
    return (one if x >= 0 else e) / (one + e)


def sigmoid_grad(dy, y):
    """dy y (1 - y)."""
    return dy * (y * (type(y)(1) - y))


def tanh(x, less):
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)); less = exp(-2 |x|) - 1."""
    return (-less if x >= 0 else less) / (type(x)(2) + less)


def tanh_grad(dy, y):
    """dy (1 - y^2)."""
    return dy * (type(y)(1) - y * y)


def add(a, b, alpha, beta):
    """alpha a + beta b."""
    return alpha * a + beta * b


def scale(x, factor):
    """factor x."""
    return factor * x


def splitmix(seed, index):
    """The upper 24 bits of splitmix64(seed, index), uint64 all through (Steele, Lea, Flood 2014)."""
    z = seed + (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) >> np.uint64(40)


def dropout(x, random, threshold, factor):
    """factor x where the 24 random bits are at least the threshold, else 0."""
    return factor * x if random >= threshold else type(x)(0)
