"""Normalisation: kernels/numba_cuda/norm.py, and norm_local.py for what happens within a pixel."""

from __future__ import annotations

from math import prod

from minunet.backends.numba_cuda.launch import (
    Device,
    ceil_div,
    columns,
    finish,
    flat,
    launch,
    matrix,
    optional,
    real,
    up_to_power,
)
from minunet.backends.numba_cuda.library import sizes

FILE, LOCAL = "norm", "norm_local"


def channel_moments(device, mean, var, x):
    s, c = sizes(), mean.size
    grid, block = columns(x.size // c, c)
    partial = device.empty((grid[1], c, 3), x.dtype)
    launch(device, FILE, "channel_moments_partial", grid, block, partial, matrix(x))
    lanes = up_to_power(c, s.LANES)
    launch(device, FILE, "channel_moments_finish", ceil_div(c, lanes), (lanes, s.THREADS // lanes), mean, var, partial)


def batch_norm(device, y, x, mean, var, gamma, beta, *, eps, activation):
    grid, block = columns(x.size // mean.size, mean.size)
    arguments = (matrix(y), matrix(x), mean, var, gamma, beta, *real(x, eps), activation == "relu")
    launch(device, FILE, "batch_norm", grid, block, *arguments)


def batch_norm_grad(device, dx, dgamma, dbeta, dy, x, mean, var, gamma, beta=None, *, eps, training):
    pixels = x.size // mean.size
    grid, block = columns(pixels, mean.size)
    partial = device.empty((2, grid[1], mean.size), x.dtype)
    maps = (matrix(dy), matrix(x), mean, var, gamma, *optional(beta, gamma))
    launch(device, FILE, "batch_norm_grad_partial", grid, block, partial, *maps, *real(x, eps))
    finish(device, dgamma, partial[:1])
    finish(device, dbeta, partial[1:])
    numbers = real(x, eps, 1 / pixels if training else 0.0)
    launch(device, FILE, "batch_norm_grad", grid, block, matrix(dx), *maps, dgamma, dbeta, *numbers)


def fold_batch_norm(device, folded, bias, w, mean, var, gamma, beta, b=None, *, eps, axis):
    c = mean.size
    shape = (1, c, w.size // c) if axis == 0 else (w.size // c, c, 1)
    flat(device, LOCAL, "fold_weights", w.size, folded.reshape(shape), w.reshape(shape), var, gamma, *real(w, eps))
    flat(device, LOCAL, "fold_bias", c, bias, mean, var, gamma, beta, *optional(b, mean), *real(w, eps))


def lrn(device, y, x, *, size, alpha, beta):
    flat(device, LOCAL, "lrn", x.size, matrix(y), matrix(x), size, *real(x, alpha / size, beta))


def lrn_grad(device, dx, dy, x, *, size, alpha, beta):
    factor, share = device.empty(matrix(x).shape, x.dtype), device.empty(matrix(x).shape, x.dtype)
    maps, a = (matrix(dy), matrix(x)), alpha / size
    flat(device, LOCAL, "lrn_share", x.size, factor, share, *maps, size, *real(x, a, beta))
    flat(device, LOCAL, "lrn_grad", x.size, matrix(dx), *maps, factor, share, size, *real(x, 2 * a * beta))


def _within_pixels(device: Device, kernel: str, arrays: tuple, eps: float) -> None:
    s = sizes()
    *pixels, c = arrays[0].shape
    lanes = up_to_power(c, s.LANES)
    rows = s.THREADS // lanes
    blocks = max(1, min(s.MOST_BLOCKS, ceil_div(prod(pixels), rows)))
    launch(device, LOCAL, kernel, blocks, (lanes, rows), *map(matrix, arrays), *real(arrays[0], eps))


def l2_normalize(device, y, x, *, eps):
    _within_pixels(device, "l2_normalize", (y, x), eps)


def l2_normalize_grad(device, dx, dy, x, *, eps):
    _within_pixels(device, "l2_normalize_grad", (dx, dy, x), eps)
