"""Optimiser updates: kernels/numba_cuda/optim.py."""

from __future__ import annotations

from minunet.backends.numba_cuda.launch import flat, real


def sgd(device, p_out, velocity_out, p, velocity, g, *, lr, momentum, weight_decay, nesterov):
    arrays = (a.reshape(-1) for a in (p_out, velocity_out, p, velocity, g))
    flat(device, "optim", "sgd", p.size, *arrays, *real(p, lr, momentum, weight_decay), bool(nesterov))


def adam(device, p_out, m_out, v_out, p, m, v, g, *, lr, beta1, beta2, eps, weight_decay, step):
    arrays = (a.reshape(-1) for a in (p_out, m_out, v_out, p, m, v, g))
    correct = 1 / (1 - beta1**step), 1 / (1 - beta2**step)
    numbers = real(p, lr, beta1, beta2, 1 - beta1, 1 - beta2, eps, weight_decay, *correct)
    flat(device, "optim", "adam", p.size, *arrays, *numbers)
