"""Normalisation: by channel over a batch (Ioffe & Szegedy 2015), and across the channels of a pixel."""

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


def batch_norm_grad(dx, dgamma, dbeta, dy, x, mean, var, gamma, beta=None, *, eps, training):
    """dgamma = sum dy z, dbeta = sum dy, dx = gamma / s (dy - [training] (mean(dy) + z mean(dy z))).

    z = (x - mean) / s, s = sqrt(var + eps). With beta, dy counts where gamma z + beta > 0.
    """
    s = np.sqrt(var + eps)  # (C,)
    z = (x - mean) / s
    if beta is not None:
        dy = np.where(gamma * (x - mean) / s + beta > 0, dy, 0)
    pixels = tuple(range(x.ndim - 1))
    dgamma[...] = (dy * z).sum(axis=pixels)
    dbeta[...] = dy.sum(axis=pixels)
    if training:
        dx[...] = gamma / s * (dy - (dy.mean(axis=pixels) + z * (dy * z).mean(axis=pixels)))
    else:
        dx[...] = gamma / s * dy


def fold_batch_norm(w_folded, b_folded, w, mean, var, gamma, beta, b=None, *, eps, axis):
    """w' = f w along `axis`, b' = f (b - mean) + beta, f = gamma / sqrt(var + eps)."""
    f = gamma / np.sqrt(var + eps)
    w_folded[...] = w * (f.reshape(-1, *[1] * (w.ndim - 1)) if axis == 0 else f)
    b_folded[...] = f * ((0 if b is None else b) - mean) + beta


def lrn(y, x, *, size, alpha, beta):
    """y_c = x_c / s_c^beta, s_c = 1 + alpha / size sum of x_k^2 over k = c - size // 2 .. c + (size - 1) // 2."""
    y[...] = x / _local_scale(x, size, alpha) ** beta


def lrn_grad(dx, dy, x, *, size, alpha, beta):
    """dx_c = dy_c / s_c^beta - 2 alpha beta / size x_c sum of dy_k x_k / s_k^(beta + 1) over the k that saw c."""
    s = _local_scale(x, size, alpha)
    seen = _neighbours(dy * x / s ** (beta + 1), (size - 1) // 2, size // 2)
    dx[...] = dy / s**beta - 2 * alpha * beta / size * x * seen


def l2_normalize(y, x, *, eps):
    """y = x / max(r, eps), r the norm of x over the last axis."""
    y[...] = x / np.maximum(np.sqrt((x * x).sum(axis=-1, keepdims=True)), eps)


def l2_normalize_grad(dx, dy, x, *, eps):
    """dx = (dy - y sum_k dy_k y_k) / r where r > eps, y = x / r; else dy / eps."""
    r = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    y = np.where(r > eps, x / np.maximum(r, eps), 0)
    dx[...] = (dy - y * (dy * y).sum(axis=-1, keepdims=True)) / np.maximum(r, eps)


def _local_scale(x, size, alpha):
    """s_c = 1 + alpha / size sum_k x_k^2."""
    return 1 + alpha / size * _neighbours(x * x, size // 2, (size - 1) // 2)


def _neighbours(v, before, after):
    """out_c = sum of v_k over k = c - before .. c + after along the last axis, v being 0 outside."""
    c = v.shape[-1]
    padded = np.pad(v, [(0, 0)] * (v.ndim - 1) + [(before, after)])
    return sum(padded[..., k : k + c] for k in range(before + after + 1))
