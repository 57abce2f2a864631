"""Normalisation: kernels/cuda/norm.cu, and norm_local.cu for what happens within a pixel."""

from __future__ import annotations

from math import prod

from minunet.backends.cuda.columns import columns, finish, lanes_of, last_stage
from minunet.backends.cuda.launch import ACTIVATION, THREADS, flat_grid, launch

FILE, LOCAL = "norm.cu", "norm_local.cu"


def channel_moments(device, mean, var, x):
    g = columns(device, x)
    partial = device.empty((g.grid[1], g.channels, 3), x.dtype)
    arguments = (partial, x, g.pixels, g.channels, g.wide)
    launch(device, FILE, "channel_moments_partial", x.dtype, g.grid, g.block, *arguments)
    arguments = (mean, var, partial, g.grid[1], g.channels)
    launch(device, FILE, "channel_moments_finish", x.dtype, *last_stage(g.channels), *arguments)


def batch_norm(device, y, x, mean, var, gamma, beta, *, eps, activation):
    g = columns(device, x, y)
    arguments = (y, x, mean, var, gamma, beta, g.pixels, g.channels, eps, ACTIVATION[activation], g.wide)
    launch(device, FILE, "batch_norm", x.dtype, g.grid, g.block, *arguments)


def batch_norm_grad(device, dx, dgamma, dbeta, dy, x, mean, var, gamma, beta=None, *, eps, training):
    g = columns(device, x, dy, dx)
    partial = device.empty((2, g.grid[1], g.channels), x.dtype)
    arguments = (partial, dy, x, mean, var, gamma, beta, g.pixels, g.channels, eps, g.wide)
    launch(device, FILE, "batch_norm_grad_partial", x.dtype, g.grid, g.block, *arguments)
    for total, part in ((dgamma, partial[:1]), (dbeta, partial[1:])):
        finish(device, total, part)
    moving = 1 / g.pixels if training else 0.0
    arguments = (dx, dy, x, mean, var, gamma, beta, dgamma, dbeta, g.pixels, g.channels, eps, moving, g.wide)
    launch(device, FILE, "batch_norm_grad", x.dtype, g.grid, g.block, *arguments)


def fold_batch_norm(device, folded, bias, w, mean, var, gamma, beta, b=None, *, eps, axis):
    c = beta.size
    inner = prod(w.shape[1:]) if axis == 0 else 1
    arguments = (folded, w, var, gamma, w.size, inner, c, eps)
    launch(device, LOCAL, "fold_weights", w.dtype, flat_grid(w.size), THREADS, *arguments)
    launch(device, LOCAL, "fold_bias", w.dtype, flat_grid(c), THREADS, bias, mean, var, gamma, beta, b, c, eps)


def _lrn_scale(device, x, size, alpha):
    s = device.empty(x.shape, x.dtype)
    arguments = (s, x, x.size, x.shape[-1], size, alpha / size)
    launch(device, LOCAL, "lrn_scale", x.dtype, flat_grid(x.size), THREADS, *arguments)
    return s


def lrn(device, y, x, *, size, alpha, beta):
    s = _lrn_scale(device, x, size, alpha)
    launch(device, LOCAL, "lrn", x.dtype, flat_grid(x.size), THREADS, y, x, s, x.size, beta)


def lrn_grad(device, dx, dy, x, *, size, alpha, beta):
    s = _lrn_scale(device, x, size, alpha)
    arguments = (dx, dy, x, s, x.size, x.shape[-1], size, alpha / size, beta)
    launch(device, LOCAL, "lrn_grad", x.dtype, flat_grid(x.size), THREADS, *arguments)


def _within_pixels(device, kernel, arrays, eps):
    *pixels, channels = arrays[0].shape
    lanes, n = lanes_of(channels), prod(pixels)
    arguments = (*arrays, n, channels, lanes, eps)
    launch(device, LOCAL, kernel, arrays[0].dtype, flat_grid(n * lanes), THREADS, *arguments)


def l2_normalize(device, y, x, *, eps):
    _within_pixels(device, "l2_normalize", (y, x), eps)


def l2_normalize_grad(device, dx, dy, x, *, eps):
    _within_pixels(device, "l2_normalize_grad", (dx, dy, x), eps)
