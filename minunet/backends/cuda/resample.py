"""Up-sampling, nearest and bilinear: kernels/cuda/resample.cu."""

from __future__ import annotations

from typing import Any

from minunet.backends.cuda.launch import Device, launch
from minunet.backends.cuda.maps import maps
from minunet.errors import UserError

MOST = 2**30  # rows of y times rows of x, and columns: kernels place twice as many in an int


def _resample(device: Device, kernel: str, y: Any, x: Any, *options: int) -> None:
    if max(a * b for a, b in zip(y.shape[1:3], x.shape[1:3])) >= MOST:
        raise UserError(f"{kernel}: sides of {x.shape[1:3]} to {y.shape[1:3]} pixels are too long; use smaller tiles")
    g = maps(device, y, x)
    arguments = (y, x, *y.shape, *x.shape[1:3], *options, g.wide)
    launch(device, "resample.cu", kernel, y.dtype, g.grid, g.block, *arguments)


def upsample_nearest(device, y, x):
    _resample(device, "upsample_nearest", y, x)


def upsample_nearest_grad(device, dx, dy):
    _resample(device, "upsample_nearest_grad", dx, dy)


def upsample_bilinear(device, y, x, *, align_corners):
    _resample(device, "upsample_bilinear", y, x, align_corners)


def upsample_bilinear_grad(device, dx, dy, *, align_corners):
    _resample(device, "upsample_bilinear_grad", dx, dy, align_corners)
