"""Whole trainings by one recipe each, kept as results: `python -m bench train [NAME ...]`.

Each runs `minunet train` with the arguments below in a process of its own, on the real data, and keeps the run's
metrics in bench/results/trained/NAME.json. README's tables and the picture docs/compare.png are made from those files.
Nothing else should run meanwhile: a budget in minutes buys as many steps as the machine is free to make.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import RESULTS, ROOT, load
from minunet.data import read_image, write_png
from minunet.errors import UserError
from minunet.files import atomic_write

FOLDER = RESULTS / "trained"
MEMBRANES = {"isbi-unet": "U-Net", "isbi-fusionnet": "FusionNet", "isbi-segnet": "SegNet"}  # compared at equal time
LONGER = {"isbi-fusionnet-15": "FusionNet"}  # also in their table
RECIPES = {
    "isbi-unet": "isbi --minutes 2",
    "isbi-fusionnet": "isbi --model fusionnet --width 16 --tile 256 --minutes 2",
    "isbi-segnet": "isbi --model segnet --width 16 --tile 256 --minutes 2",
    "isbi-fusionnet-15": "isbi --model fusionnet --width 16 --tile 256 --weights border --minutes 15",
    "camvid-segnet": "camvid --model segnet --width 16 --size 180x240 --batch 4 --class-weights median --lr 0.003"
    " --minutes 12",
    "isbi-unet-30": "isbi --width 32 --align 1 --elastic 5 --dropout 0.5 --average 8 --minutes 30",
    "hela-unet": "hela --steps 6000 --threads 1 --average 8",
}
SHOWN = 27  # the held-out section in the picture: outputs only, since the data's terms keep the section itself out
PICTURE = "docs/compare.png"


def run(names: list[str]) -> None:
    """Train by the named recipes, one after the other; all of them where none is named."""
    for name in names:
        if name not in RECIPES:
            raise UserError(f"bench train {name}: there is no such recipe; choose from {', '.join(RECIPES)}")
    for name in names or RECIPES:
        with tempfile.TemporaryDirectory(prefix="minunet-") as scratch:
            folder = Path(scratch) / "run"
            command = [sys.executable, "-m", "minunet.train", *RECIPES[name].split(), "--quiet", "--out", str(folder)]
            print(f"{name}: minunet train {RECIPES[name]}", flush=True)
            if subprocess.run(command).returncode != 0:
                raise UserError(f"bench train {name}: the run failed; its message is above")
            keep(name, folder)


def keep(name: str, folder: Path) -> None:
    """Copy what the tables need out of a finished run. Refuses a run on synthetic data."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    if metrics["data"]["synthetic"]:
        raise UserError(f"bench train {name}: ran on synthetic data; bring the real data (--data, MINUNET_DATA)")
    metrics["data"]["source"] = metrics["data"]["name"]  # the path it had is nobody's business
    FOLDER.mkdir(parents=True, exist_ok=True)
    with atomic_write(FOLDER / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    if name in MEMBRANES:
        p = read_image(folder / "held_out_probability.tif")[metrics["held_out"].index(SHOWN)]  # (H, W), 16 bits
        write_png(FOLDER / f"{name}.png", (p >> 8).astype(np.uint8))


def draw() -> None:
    """docs/compare.png: P(cell) of the compared networks side by side. Nothing where one is missing."""
    files = [FOLDER / f"{name}.png" for name in MEMBRANES]
    if all(file.is_file() for file in files):
        gap = np.full((512, 8), 128, np.uint8)
        parts = [part for file in files for part in (gap, read_image(file))][1:]
        write_png(ROOT / PICTURE, np.concatenate(parts, axis=1))


def membranes() -> str:
    """The networks compared at equal time on ISBI 2012."""
    found = [(title, load(f"trained/{name}.json")) for name, title in (MEMBRANES | LONGER).items()]
    rows = [
        "| network | minutes | parameters | steps | V_Rand | V_Info | pixel error | wrong at 0.5 | warping error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for title, r in found:
        if r is None:
            rows.append(f"| {title} | not measured | | | | | | | |")
            continue
        s = {k: v["value"] for k, v in r["scores"].items()}
        cells = [
            f"{r['config']['minutes']:g}",
            f"{r['parameters']:,}",
            f"{r['steps']:,}",
            f"{s['v_rand']:.4f}",
            f"{s['v_info']:.4f}",
        ]
        cells += [f"{s['pixel_error']:.4f}", f"{s['pixel_disagreement']:.2%}", f"{s['warping_error']:.6f}"]
        rows.append(f"| {title}, width {r['config']['width']} | {' | '.join(cells)} |")
    rows += [f"\n{machines([r for _, r in found])}Sections 25 to 29 held out.", *_commands(MEMBRANES | LONGER)]
    if (ROOT / PICTURE).is_file():
        rows.append(f"\n![P(cell) on held-out section {SHOWN}: {', '.join(MEMBRANES.values())}]({PICTURE})")
    return "\n".join(rows)


def streets() -> str:
    """SegNet on CamVid."""
    r = load("trained/camvid-segnet.json")
    if r is None:
        return "not measured"
    s = r["scores"]
    rows = [
        "| network | parameters | steps | class mean accuracy | mean IoU | accuracy |",
        "|---|---|---|---|---|---|",
        f"| SegNet, width {r['config']['width']} | {r['parameters']:,} | {r['steps']:,} | {s['acc_cls']:.4f} |"
        f" {s['mean_iu']:.4f} | {s['acc']:.4f} |",
        f"\n{r['config']['minutes']:g} minutes, {machines([r])}{len(r['held_out'])} validation images of"
        f" {r['config']['size']}, 11 classes.",
        *_commands(["camvid-segnet"]),
    ]
    return "\n".join(rows)


def machines(runs: list[dict[str, Any] | None]) -> str:
    """Where these runs ran, as a sentence."""
    ran = [(r["threads"], r["machine"]["processor"]) for r in runs if r]
    places = sorted({f"{n} thread{'s' * (n > 1)} of {processor}" for n, processor in ran})
    return f"{' or '.join(places)}. " if places else ""


def _commands(names: Any) -> list[str]:
    return ["", *(f"    minunet train {RECIPES[name]}" for name in names)]
