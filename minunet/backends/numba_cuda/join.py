"""Putting maps together, around and apart: kernels/numba_cuda/join.py."""

from __future__ import annotations

from typing import Any

from minunet.backends.numba_cuda.launch import Device, over_map, real

FILE = "join"


def _window(device: Device, y: Any, x: Any, offset: tuple[int, int, int], value: float = 0.0) -> None:
    """y[n,i,j,c] = x[n, i + offset[0], j + offset[1], c + offset[2]], `value` outside of x."""
    over_map(device, FILE, "window", y, x, *offset, *real(x, value))


def crop(device, y, x, *, offset):
    _window(device, y, x, offset)


def embed(device, dx, dy, *, offset):
    top, left, first = offset
    _window(device, dx, dy, (-top, -left, -first))


def crop_concat(device, y, x, skip):
    over_map(device, FILE, "crop_concat", y, x, skip)


def crop_concat_grad(device, dx, dskip, dy):
    (_, h, w, split), (_, hs, ws, _) = dx.shape, dskip.shape
    _window(device, dx, dy, (0, 0, 0))
    _window(device, dskip, dy, (-((hs - h) // 2), -((ws - w) // 2), split))


def pad(device, y, x, *, padding, mode, value):
    top, _, left, _ = padding
    if mode == "constant":
        _window(device, y, x, (-top, -left, 0), value)
    else:
        over_map(device, FILE, "pad_reflect", y, x, top, left)


def pad_grad(device, dx, dy, *, padding, mode):
    top, _, left, _ = padding
    if mode == "constant":
        _window(device, dx, dy, (top, left, 0))
    else:
        over_map(device, FILE, "pad_reflect_grad", dx, dy, top, left)
