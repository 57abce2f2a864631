"""Batch normalisation (Ioffe & Szegedy 2015)."""

from __future__ import annotations

import numpy as np

from minunet.backends.reference.pointwise import activate


def channel_moments(mean, var, x):
    """mean[c] and biased variance[c] of x over n, i, j."""
    flat = x.reshape(-1, x.shape[-1])  # (P, C)
    mean[...] = flat.mean(axis=0)
    var[...] = ((flat - mean) ** 2).mean(axis=0)


def batch_norm(y, x, mean, var, gamma, beta, *, eps, activation):
    """y = act(gamma (x - mean) / sqrt(var + eps) + beta), per channel."""
    y[...] = activate(gamma * (x - mean) / np.sqrt(var + eps) + beta, activation)


def batch_norm_grad(dx, dgamma, dbeta, dy, x, mean, var, gamma, *, eps, training):
    """dgamma = sum dy z, dbeta = sum dy, dx = gamma / s (dy - [training] (mean(dy) + z mean(dy z))).

    z = (x - mean) / s, s = sqrt(var + eps).
    """
    s = np.sqrt(var + eps)  # (C,)
    z = (x - mean) / s
    pixels = tuple(range(x.ndim - 1))
    dgamma[...] = (dy * z).sum(axis=pixels)
    dbeta[...] = dy.sum(axis=pixels)
    if training:
        dx[...] = gamma / s * (dy - (dy.mean(axis=pixels) + z * (dy * z).mean(axis=pixels)))
    else:
        dx[...] = gamma / s * dy
