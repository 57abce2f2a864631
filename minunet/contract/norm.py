"""Normalisation: by channel over a batch, and across the channels of a pixel."""

from __future__ import annotations

from math import prod

from minunet.contract.row import SUM, Spec, Work, activated, channels, require, row, same


@row("norm", tolerance=SUM)
def channel_moments(x):
    """mean[c] and biased variance[c] of x over n, i, j."""
    vector = Spec(x.shape[-1:], x.dtype)
    return Work((vector, vector), 4 * prod(x.shape))


@row("norm", tolerance=SUM)
def batch_norm(x, mean, var, gamma, beta, *, eps, activation):
    """y = act(gamma (x - mean) / sqrt(var + eps) + beta), per channel."""
    for name, vector in (("mean", mean), ("variance", var), ("gamma", gamma), ("beta", beta)):
        channels(vector, x.shape[-1], f"batch_norm: the {name}")
    activated(activation, "batch_norm")
    return Work((x,), 3 * prod(x.shape))


@row("norm", linear=("dy",), tolerance=SUM)
def batch_norm_grad(dy, x, mean, var, gamma, beta=None, *, eps, training):
    """dx, dgamma, dbeta of batch_norm; `training`: mean and var are x's own and move with it.

    With z = (x - mean) / s, s = sqrt(var + eps): dgamma = sum dy z, dbeta = sum dy,
    dx = gamma / s (dy - [training] (mean(dy) + z mean(dy z))). Ioffe & Szegedy 2015, section 3.
    beta is given where relu follows: in all of this dy is then dy [gamma z + beta > 0].
    """
    same(dy, x, "batch_norm_grad")
    for name, numbers in (("mean", mean), ("variance", var), ("gamma", gamma), ("beta", beta)):
        channels(numbers, x.shape[-1], f"batch_norm_grad: the {name}")
    vector = Spec(x.shape[-1:], x.dtype)
    return Work((x, vector, vector), (9 if beta is None else 11) * prod(x.shape))


@row("norm", tolerance=SUM)
def fold_batch_norm(w, mean, var, gamma, beta, b=None, *, eps, axis):
    """w', b' with conv(x, w') + b' = batch_norm(conv(x, w) + b): f = gamma / sqrt(var + eps) for each output channel,

    w' = f w along `axis` of w (0: a convolution's (O, KH, KW, C); -1: a transposed one's (C_in, KH, KW, C_out)),
    b' = f (b - mean) + beta, b = 0 where it is missing.
    """
    require(axis in (0, -1), f"fold_batch_norm: axis {axis} must be 0 (convolution) or -1 (transposed convolution)")
    c = w.shape[axis]
    for name, vector in (("mean", mean), ("variance", var), ("gamma", gamma), ("beta", beta), ("bias", b)):
        channels(vector, c, f"fold_batch_norm: the {name}")
    return Work((w, beta), prod(w.shape) + 6 * c)


def _local(size: int, what: str) -> None:
    require(size >= 1, f"{what}: size {size} must be at least 1")


@row("norm", tolerance=SUM)
def lrn(x, *, size, alpha, beta):
    """y_c = x_c / s_c^beta, s_c = 1 + alpha / size sum_k x_k^2 over `size` neighbours of the last axis.

    k = c - size // 2 .. c + (size - 1) // 2, those outside being 0. Krizhevsky et al. 2012, section 3.3, with alpha
    divided by size, as frameworks do.
    """
    _local(size, "lrn")
    return Work((x,), (size + 4) * prod(x.shape))


@row("norm", linear=("dy",), tolerance=SUM)
def lrn_grad(dy, x, *, size, alpha, beta):
    """dx_c = dy_c / s_c^beta - 2 alpha beta / size x_c sum_k dy_k x_k / s_k^(beta + 1).

    The sum is over the k whose window holds c: k = c - (size - 1) // 2 .. c + size // 2.
    """
    same(dy, x, "lrn_grad")
    _local(size, "lrn_grad")
    return Work((x,), (2 * size + 9) * prod(x.shape))


@row("norm", tolerance=SUM)
def l2_normalize(x, *, eps):
    """y = x / max(r, eps), r = sqrt(sum_k x_k^2) over the last axis."""
    return Work((x,), 3 * prod(x.shape))


@row("norm", linear=("dy",), tolerance=SUM)
def l2_normalize_grad(dy, x, *, eps):
    """dx = (dy - y sum_k dy_k y_k) / r where r > eps, y = x / r; else dy / eps."""
    same(dy, x, "l2_normalize_grad")
    return Work((x,), 7 * prod(x.shape))
