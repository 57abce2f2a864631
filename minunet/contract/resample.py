"""Up-sampling, nearest and bilinear."""

from __future__ import annotations

from math import prod

from minunet.contract.row import SUM, Spec, Work, require, row


def _resized(a: Spec, size: tuple[int, int], what: str) -> Spec:
    """(N, *size, C) for a (N, H, W, C); raises unless both have pixels."""
    require(len(a.shape) == 4, f"{what}: needs an array [N,H,W,C]; got shape {a.shape}")
    n, h, w, c = a.shape
    require(min(h, w, *size) > 0, f"{what}: {h} x {w} pixels cannot become {tuple(size)}; both need some")
    return Spec((n, *size, c), a.dtype)


@row("resample", linear=("x",), shape_only=("size",))
def upsample_nearest(x, *, size):
    """y[n,i,j,c] = x[n, i H // OH, j W // OW, c]."""
    return Work((_resized(x, size, "upsample_nearest"),), 0)


@row("resample", linear=("dy",), shape_only=("size",), tolerance=SUM)
def upsample_nearest_grad(dy, *, size):
    """Adjoint of upsample_nearest; size = (H, W) of x."""
    return Work((_resized(dy, size, "upsample_nearest_grad"),), prod(dy.shape))


@row("resample", linear=("x",), shape_only=("size",), tolerance=SUM)
def upsample_bilinear(x, *, size, align_corners):
    """y = x at src = i (H-1)/(OH-1) (align_corners) or max((i + 1/2) H/OH - 1/2, 0), linear between pixels.

    With align_corners and OH = 1, src = 0.
    """
    y = _resized(x, size, "upsample_bilinear")
    return Work((y,), 7 * prod(y.shape))


@row("resample", linear=("dy",), shape_only=("size",), tolerance=SUM)
def upsample_bilinear_grad(dy, *, size, align_corners):
    """Adjoint of upsample_bilinear; size = (H, W) of x."""
    return Work((_resized(dy, size, "upsample_bilinear_grad"),), 8 * prod(dy.shape))
