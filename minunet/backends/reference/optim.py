"""Optimiser updates. An output may be the input of the same name, so everything is computed before it is written."""

from __future__ import annotations

import numpy as np


def sgd(p_out, velocity_out, p, velocity, g, *, lr, momentum, weight_decay, nesterov):
    """velocity' = momentum velocity + h, h = g + weight_decay p; p' = p - lr (velocity', or h + momentum velocity')."""
    h = g + weight_decay * p
    new_velocity = momentum * velocity + h
    new_p = p - lr * (h + momentum * new_velocity if nesterov else new_velocity)
    p_out[...], velocity_out[...] = new_p, new_velocity


def adam(p_out, m_out, v_out, p, m, v, g, *, lr, beta1, beta2, eps, weight_decay, step):
    """m' = beta1 m + (1 - beta1) h; v' = beta2 v + (1 - beta2) h^2, h = g + weight_decay p;
    p' = p - lr m'/(1 - beta1^step) / (sqrt(v'/(1 - beta2^step)) + eps). Kingma & Ba 2015, algorithm 1.
    """
    h = g + weight_decay * p
    new_m = beta1 * m + (1 - beta1) * h
    new_v = beta2 * v + (1 - beta2) * h**2
    m_hat = new_m / (1 - beta1**step)
    v_hat = new_v / (1 - beta2**step)
    new_p = p - lr * m_hat / (np.sqrt(v_hat) + eps)
    p_out[...], m_out[...], v_out[...] = new_p, new_m, new_v
