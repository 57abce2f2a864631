"""Up-sampling without weights. Kernels: upsample_nearest, upsample_bilinear and their adjoints."""

from __future__ import annotations

from typing import Any

from minunet.ops.shared import Tensor, as_map, call, pair, record


def upsample(
    x: Tensor,
    scale: int | tuple[int, int] | None = None,
    size: int | tuple[int, int] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Tensor:
    """Resize maps to `size` = (OH, OW), or to `scale` times theirs. Either way is linear in x; smaller is allowed.

    "nearest"  : y[n,i,j,c] = x[n, i H // OH, j W // OW, c]
    "bilinear" : linear between the pixels around src = i (H - 1) / (OH - 1) with align_corners, else
                 max((i + 1/2) H / OH - 1/2, 0); edges repeat

    x : (N, H, W, C) -> (N, OH, OW, C). Raises ValueError unless exactly one of scale and size is given.
    """
    x = as_map(x, "upsample")
    if (scale is None) == (size is None):
        raise ValueError("upsample: give either scale or size")
    h, w = x.shape[1:3]
    if size is None:
        sh, sw = pair(scale, "upsample: scale")
        out = (h * sh, w * sw)
    else:
        out = pair(size, "upsample: size")
    if min(out) < 1:
        raise ValueError(f"upsample: an output of {out} has no pixels")
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f"upsample: mode {mode!r} is unknown; it is 'nearest' or 'bilinear'")
    options = {"align_corners": bool(align_corners)} if mode == "bilinear" else {}
    if mode == "nearest" and align_corners:
        raise ValueError("upsample: align_corners belongs to mode='bilinear'")

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (call(f"upsample_{mode}_grad", dy, size=(h, w), **options),)

    return record("upsample", call(f"upsample_{mode}", x.data, size=out, **options), (x,), backward)
