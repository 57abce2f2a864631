"""Up-sampling: up, down, by odd ratios, from and to one pixel."""

from __future__ import annotations

from collections.abc import Iterable

from .sample import Case, make, normal, rows

_RESIZE = {  # label: (N, H, W, C), (OH, OW)
    "twice": ((2, 3, 5, 3), (6, 10)),
    "eight times": ((1, 3, 2, 21), (24, 16)),
    "odd ratio": ((1, 5, 4, 7), (13, 9)),
    "same size": ((2, 4, 3, 2), (4, 3)),
    "smaller": ((1, 11, 8, 4), (5, 3)),
    "taller and narrower": ((2, 4, 9, 3), (7, 2)),
    "from one pixel": ((2, 1, 1, 5), (4, 7)),
    "to one pixel": ((1, 6, 5, 1), (1, 1)),
    "64 channels": ((1, 4, 6, 64), (8, 12)),
}


@rows("upsample_nearest", "upsample_nearest_grad", "upsample_bilinear", "upsample_bilinear_grad")
def _upsample(row_name: str) -> Iterable[Case]:
    modes: dict[str, dict[str, bool]] = {"": {}}
    if "bilinear" in row_name:
        modes = {"": {"align_corners": False}, ", corners aligned": {"align_corners": True}}
    for label, (x, (oh, ow)) in _RESIZE.items():
        shape, size = (x, (oh, ow)) if not row_name.endswith("grad") else ((x[0], oh, ow, x[3]), x[1:3])
        for mode, options in modes.items():
            yield Case(label + mode, make(normal(*shape)), {"size": size} | options)
