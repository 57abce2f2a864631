"""Up-sampling, nearest and bilinear: kernels/numba_cuda/resample.py."""

from __future__ import annotations

from minunet.backends.numba_cuda.launch import over_map

FILE = "resample"


def upsample_nearest(device, y, x):
    over_map(device, FILE, "upsample_nearest", y, x)


def upsample_nearest_grad(device, dx, dy):
    over_map(device, FILE, "upsample_nearest_grad", dx, dy)


def upsample_bilinear(device, y, x, *, align_corners):
    over_map(device, FILE, "upsample_bilinear", y, x, bool(align_corners))


def upsample_bilinear_grad(device, dx, dy, *, align_corners):
    over_map(device, FILE, "upsample_bilinear_grad", dx, dy, bool(align_corners))
