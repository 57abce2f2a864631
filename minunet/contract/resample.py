"""Up-sampling, nearest and bilinear."""

from __future__ import annotations

from math import prod

from minunet.contract.row import SUM, Spec, Work, row


@row("resample", linear=("x",), shape_only=("size",))
def upsample_nearest(x, *, size):
    """y[n,i,j,c] = x[n, i H // OH, j W // OW, c]."""
    n, _, _, c = x.shape
    return Work((Spec((n, *size, c), x.dtype),), 0)


@row("resample", linear=("dy",), shape_only=("size",), tolerance=SUM)
def upsample_nearest_grad(dy, *, size):
    """Adjoint of upsample_nearest; size = (H, W) of x."""
    n, _, _, c = dy.shape
    return Work((Spec((n, *size, c), dy.dtype),), prod(dy.shape))


@row("resample", linear=("x",), shape_only=("size",), tolerance=SUM)
def upsample_bilinear(x, *, size, align_corners):
    """y = x at src = i (H-1)/(OH-1) (align_corners) or max((i + 1/2) H/OH - 1/2, 0), linear between pixels.

    With align_corners and OH = 1, src = 0.
    """
    n, _, _, c = x.shape
    return Work((Spec((n, *size, c), x.dtype),), 7 * n * prod(size) * c)


@row("resample", linear=("dy",), shape_only=("size",), tolerance=SUM)
def upsample_bilinear_grad(dy, *, size, align_corners):
    """Adjoint of upsample_bilinear; size = (H, W) of x."""
    n, _, _, c = dy.shape
    return Work((Spec((n, *size, c), dy.dtype),), 8 * prod(dy.shape))
