"""docs/recipes.md: longer trainings beside the published scores, and what the parts of a recipe bring."""

from __future__ import annotations

from typing import Any

from bench import ablation
from bench.report import load
from bench.scores import table as durations
from bench.trained import RECIPES, machines

# Published scores, with where they stand. None: the source does not give it.
ISBI = (  # hidden test sections: V_Rand, V_Info after thinning; the old table's warping, Rand and pixel error
    ("human", 0.998, 0.999, 0.0021, 0.0010, 0.000005, "challenge; arXiv 1505.04597, table 1"),
    (
        "U-Net, mean of 7 rotations",
        0.97276,
        0.98662,
        0.0382,
        0.0611,
        0.000353,
        "leaderboard; arXiv 1505.04597",
    ),
    ("FusionNet", 0.97804, None, None, None, None, "arXiv 1612.05360"),
    ("IDSIA sliding window", None, None, 0.0504, 0.0613, 0.000420, "arXiv 1505.04597, table 1"),
)
CAMVID = (  # 233 test images of 360 x 480: G, C, mean IoU, BF
    ("SegNet, 140,000 iterations", 0.9040, 0.7120, 0.6010, 0.4684, "arXiv 1511.00561, table 3"),
    ("SegNet-Basic, as published", 0.828, 0.623, 0.463, None, "ChainerCV, examples/segnet"),
    ("SegNet-Basic, trained again", 0.827, 0.671, 0.494, None, "ChainerCV, examples/segnet"),
)
HELA = (  # hidden test sequences: cell IoU
    ("U-Net", 0.7756, "arXiv 1505.04597, table 2"),
    ("second best of 2015", 0.46, "arXiv 1505.04597, table 2"),
)


def isbi() -> str:
    """U-Net of width 32 with 30 minutes on ISBI 2012."""
    rows = [
        "| | budget | V_Rand | V_Info | Rand error | pixel error | warping error | scored on |",
        "|---|---|---|---|---|---|---|---|",
    ]
    r = load("trained/isbi-unet-30.json")
    if r is not None:
        s = {k: v["value"] for k, v in r["scores"].items()}
        names = ("v_rand", "v_info", "rand_error", "pixel_error", "warping_error")
        cells = " | ".join(_number(s[n], 6 if n == "warping_error" else 4) for n in names)
        rows.append(
            f"| **U-Net, width {r['config']['width']}, mean of {r['config']['average']}** | {_budget(r)} | {cells} |"
            " training sections 25 to 29, held out |"
        )
    for name, rand, info, old_rand, pixel, warping, source in ISBI:
        cells = " | ".join(_number(v) for v in (rand, info, old_rand, pixel))
        rows.append(f"| {name} | | {cells} | {_number(warping, 6)} | hidden test sections ({source}) |")
    return "\n".join([*rows, *_end(r, "isbi-unet-30")])


def camvid() -> str:
    """SegNet on CamVid."""
    rows = [
        "| | budget | accuracy | class mean accuracy | mean IoU | BF | scored on |",
        "|---|---|---|---|---|---|---|",
    ]
    r = load("trained/camvid-segnet.json")
    if r is not None:
        s = r["scores"]
        cells = " | ".join(_number(s.get(n)) for n in ("acc", "acc_cls", "mean_iu", "boundary_f1"))
        images = f"{len(r['held_out'])} validation images of {r['config']['size']}"
        rows.append(f"| **SegNet, width {r['config']['width']}** | {_budget(r)} | {cells} | {images} |")
    for name, *scores, source in CAMVID:
        cells = " | ".join(map(_number, scores))
        rows.append(f"| {name} | | {cells} | 233 test images of 360x480 ({source}) |")
    return "\n".join([*rows, *_end(r, "camvid-segnet")])


def hela() -> str:
    """U-Net on DIC-C2DH-HeLa."""
    rows = ["| | budget | cell IoU | SEG | accuracy | scored on |", "|---|---|---|---|---|---|"]
    r = load("trained/hela-unet.json")
    if r is not None:
        s = r["scores"]
        cells = " | ".join(_number(v) for v in (s["iu"]["cell"], s["seg"], s["acc"]))
        frames = f"last {len(r['held_out'])} frames of sequence 01 at {r['config']['size']}, silver truth"
        rows.append(f"| **U-Net, width {r['config']['width']}** | {_budget(r)} | {cells} | {frames} |")
    for name, iou, source in HELA:
        rows.append(f"| {name} | | {_number(iou)} | | | hidden test sequences ({source}) |")
    return "\n".join([*rows, *_end(r, "hela-unet")])


def _budget(r: dict[str, Any]) -> str:
    minutes = f"{r['config']['minutes']:g} min, " if r["config"]["minutes"] else ""
    return f"{minutes}{r['steps']:,} steps"


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _end(r: dict[str, Any] | None, name: str) -> list[str]:
    """The machine, or that there is no result yet, and the command."""
    said = "Ours: not measured." if r is None else f"Ours: {machines([r])}{r['parameters']:,} parameters."
    return [f"\n{said}", f"\n    minunet train {RECIPES[name]}"]


SECTIONS = {"isbi-30": isbi, "ablation": ablation.table, "camvid": camvid, "hela": hela, "scores": durations}
