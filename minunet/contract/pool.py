"""Max-pooling by index, and averages over windows and over whole maps."""

from __future__ import annotations

from math import prod

from minunet.contract.row import I32, SUM, Spec, Work, require, row, same


def pool_output(size: int, kernel: int, stride: int, pad: int, ceil: bool, what: str = "max_pool2d") -> int:
    """Windows along one axis; in ceil mode a last window that would start in the far padding is dropped."""
    require(0 <= pad <= kernel // 2, f"{what}: padding {pad} must be at most half the kernel {kernel}")
    span = size + 2 * pad - kernel
    require(span >= 0, f"{what}: kernel {kernel} is larger than the input {size} with padding {pad}")
    out = (-(-span // stride) if ceil else span // stride) + 1
    return out - 1 if ceil and (out - 1) * stride >= size + pad else out


@row("pool", shape_only=("ceil_mode",))
def max_pool2d(x, *, kernel, stride, padding, ceil_mode):
    """y = maximum over each window; indices = h W + w of the first maximum in row-major order. Padding never wins.

    A window that holds NaN gives NaN.
    """
    require(len(x.shape) == 4, f"max_pool2d: needs x[N,H,W,C]; got shape {x.shape}")
    require(min(*kernel, *stride) >= 1, f"max_pool2d: kernel {kernel} and stride {stride} must be at least 1")
    n, h, w, c = x.shape
    oh, ow = (pool_output(s, k, t, p, ceil_mode) for s, k, t, p in zip((h, w), kernel, stride, padding))
    y = (n, oh, ow, c)
    return Work((Spec(y, x.dtype), Spec(y, I32)), prod(y) * prod(kernel))


@row("pool", linear=("values",), shape_only=("size",), integers=("indices",), tolerance=SUM)
def scatter_by_index(values, indices, *, size):
    """out[n, indices[n,i,j,c], c] += values[n,i,j,c] on a plane of zeros: max-pool backward, unpool forward.

    Indices must lie in 0 .. H W - 1, as `max_pool2d` makes them; kernels may refuse others but need not look.
    """
    same(values, indices, "scatter_by_index")
    require(len(values.shape) == 4, f"scatter_by_index: needs values[N,OH,OW,C]; got shape {values.shape}")
    require(prod(values.shape[1:3]) > 0, f"scatter_by_index: values of shape {values.shape} have no pixels")
    n, _, _, c = values.shape
    return Work((Spec((n, *size, c), values.dtype),), prod(values.shape))


@row("pool", linear=("plane",), integers=("indices",))
def gather_by_index(plane, indices):
    """out[n,i,j,c] = plane[n, indices[n,i,j,c], c]: unpool backward. Indices as in `scatter_by_index`."""
    require(
        len(plane.shape) == len(indices.shape) == 4 and plane.shape[::3] == indices.shape[::3],
        f"gather_by_index: {plane.shape} and {indices.shape} do not fit",
    )
    return Work((Spec(indices.shape, plane.dtype),), 0)


@row("pool", linear=("x",), tolerance=SUM)
def global_avg_pool(x):
    """y[n,0,0,c] = mean_{i,j} x[n,i,j,c]."""
    require(len(x.shape) == 4, f"global_avg_pool: needs x[N,H,W,C]; got shape {x.shape}")
    require(prod(x.shape[1:3]) > 0, f"global_avg_pool: x of shape {x.shape} has no pixels")
    return Work((Spec((x.shape[0], 1, 1, x.shape[3]), x.dtype),), prod(x.shape))


@row("pool", linear=("dy",), shape_only=("size",))
def global_avg_pool_grad(dy, *, size):
    """dx[n,i,j,c] = dy[n,0,0,c] / (H W)."""
    n, c = dy.shape[0], dy.shape[-1]
    expected = (n, 1, 1, c)
    require(dy.shape == expected, f"global_avg_pool_grad: dy has shape {dy.shape}; it must be {expected}")
    return Work((Spec((n, *size, c), dy.dtype),), prod(size) * n * c)


def _averaged(x: tuple[int, ...], kernel, stride, padding) -> tuple[int, ...]:
    """(N, OH, OW, C) of avg_pool2d."""
    require(len(x) == 4, f"avg_pool2d: needs x[N,H,W,C]; got shape {x}")
    require(min(*kernel, *stride) >= 1, f"avg_pool2d: kernel {kernel} and stride {stride} must be at least 1")
    n, h, w, c = x
    windows = zip((h, w), kernel, stride, padding)
    return n, *(pool_output(s, k, t, p, False, "avg_pool2d") for s, k, t, p in windows), c


@row("pool", linear=("x",), tolerance=SUM)
def avg_pool2d(x, *, kernel, stride, padding):
    """y[n,i,j,c] = sum_{u,v} x[n, i sh + u - ph, j sw + v - pw, c] / (KH KW); x is 0 outside, and counts there."""
    y = _averaged(x.shape, kernel, stride, padding)
    return Work((Spec(y, x.dtype),), prod(y) * prod(kernel))


@row("pool", linear=("dy",), shape_only=("size",), tolerance=SUM)
def avg_pool2d_grad(dy, *, size, kernel, stride, padding):
    """dx[n,h,w,c] = sum of dy[n,i,j,c] / (KH KW) over the windows (i, j) that hold (h, w). size = (H, W)."""
    dx = (dy.shape[0], *size, dy.shape[3])
    y = _averaged(dx, kernel, stride, padding)
    require(y == dy.shape, f"avg_pool2d_grad: a {size} input gives {y}, but dy has {dy.shape}")
    return Work((Spec(dx, dy.dtype),), prod(y) * prod(kernel))
