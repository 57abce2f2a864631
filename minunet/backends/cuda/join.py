"""Putting maps together, around and apart: kernels/cuda/join.cu."""

from __future__ import annotations

from typing import Any

from minunet.backends.cuda.launch import Device, launch
from minunet.backends.cuda.maps import maps

FILE = "join.cu"


def _window(device: Device, y: Any, x: Any, offset: tuple[int, int, int], value: float = 0.0) -> None:
    """y[n,i,j,c] = x[n, i + offset[0], j + offset[1], c + offset[2]], `value` outside of x."""
    g = maps(device, y, x, parts=(x.shape[3], offset[2]))
    launch(device, FILE, "window", y.dtype, g.grid, g.block, y, x, *y.shape, *x.shape[1:], *offset, value, g.wide)


def crop(device, y, x, *, offset):
    _window(device, y, x, offset)


def embed(device, dx, dy, *, offset):
    top, left, first = offset
    _window(device, dx, dy, (-top, -left, -first))


def crop_concat(device, y, x, skip):
    g = maps(device, y, x, skip, parts=(x.shape[3], skip.shape[3]))
    sizes = (*x.shape, *skip.shape[1:])
    launch(device, FILE, "crop_concat", y.dtype, g.grid, g.block, y, x, skip, *sizes, g.wide)


def crop_concat_grad(device, dx, dskip, dy):
    _window(device, dx, dy, (0, 0, 0))
    (_, h, w, split), (_, hs, ws, _) = dx.shape, dskip.shape
    _window(device, dskip, dy, (-((hs - h) // 2), -((ws - w) // 2), split))


def pad(device, y, x, *, padding, mode, value):
    top, _, left, _ = padding
    if mode == "constant":
        _window(device, y, x, (-top, -left, 0), value)
    else:
        g = maps(device, y, x)
        sizes = (*y.shape, *x.shape[1:3], top, left)
        launch(device, FILE, "pad_reflect", y.dtype, g.grid, g.block, y, x, *sizes, g.wide)


def pad_grad(device, dx, dy, *, padding, mode):
    top, _, left, _ = padding
    if mode == "constant":
        _window(device, dx, dy, (top, left, 0))
    else:
        g = maps(device, dx, dy)
        sizes = (*dx.shape, *dy.shape[1:3], top, left)
        launch(device, FILE, "pad_reflect_grad", dx.dtype, g.grid, g.block, dx, dy, *sizes, g.wide)
