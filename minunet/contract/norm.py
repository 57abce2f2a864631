"""Batch normalisation."""

from __future__ import annotations

from math import prod

from minunet.contract.row import SUM, Spec, Work, activated, channels, row, same


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
def batch_norm_grad(dy, x, mean, var, gamma, *, eps, training):
    """dx, dgamma, dbeta of batch_norm without activation; `training`: mean and var are x's own and move with it.

    With z = (x - mean) / s, s = sqrt(var + eps): dgamma = sum dy z, dbeta = sum dy,
    dx = gamma / s (dy - [training] (mean(dy) + z mean(dy z))). Ioffe & Szegedy 2015, section 3.
    """
    same(dy, x, "batch_norm_grad")
    vector = Spec(x.shape[-1:], x.dtype)
    return Work((x, vector, vector), 9 * prod(x.shape))
