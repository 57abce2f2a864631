"""Optimiser updates: kernels/cuda/optim.cu."""

from __future__ import annotations

from typing import Any

from minunet.backends.cuda.launch import THREADS, Device, flat_grid, launch, vectors

PER_THREAD = 4


def _update(device: Device, kernel: str, arrays: tuple[Any, ...], *numbers: float) -> None:
    p = arrays[0]
    arguments = (*arrays, p.size, vectors(device, p.size, *arrays), *numbers)
    launch(device, "optim.cu", kernel, p.dtype, flat_grid(p.size, PER_THREAD), THREADS, *arguments)


def sgd(device, p_out, velocity_out, p, velocity, g, *, lr, momentum, weight_decay, nesterov):
    _update(device, "sgd", (p_out, velocity_out, p, velocity, g), lr, momentum, weight_decay, nesterov)


def adam(device, p_out, m_out, v_out, p, m, v, g, *, lr, beta1, beta2, eps, weight_decay, step):
    correct = 1 / (1 - beta1**step), 1 / (1 - beta2**step)
    numbers = (lr, beta1, beta2, 1 - beta1, 1 - beta2, eps, weight_decay, *correct)
    _update(device, "adam", (p_out, m_out, v_out, p, m, v, g), *numbers)
