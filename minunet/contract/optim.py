"""Optimiser updates, written over their own state."""

from __future__ import annotations

from math import prod

from minunet.contract.row import SUM, Work, row, same


@row("optim", in_place=True, tolerance=SUM)
def sgd(p, velocity, g, *, lr, momentum, weight_decay, nesterov):
    """velocity' = momentum velocity + h, h = g + weight_decay p; p' = p - lr (velocity', or h + momentum velocity')."""
    for other in (velocity, g):
        same(p, other, "sgd")
    return Work((p, velocity), 6 * prod(p.shape))


@row("optim", in_place=True, tolerance=SUM)
def adam(p, m, v, g, *, lr, beta1, beta2, eps, weight_decay, step):
    """m' = beta1 m + (1 - beta1) h; v' = beta2 v + (1 - beta2) h^2, h = g + weight_decay p;
    p' = p - lr m'/(1 - beta1^step) / (sqrt(v'/(1 - beta2^step)) + eps). Kingma & Ba 2015, algorithm 1.
    """
    for other in (m, v, g):
        same(p, other, "adam")
    return Work((p, m, v), 14 * prod(p.shape))
