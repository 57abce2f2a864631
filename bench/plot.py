"""The picture docs/cpu_layers.png: GFLOP/s of each layer of a U-Net, ours beside PyTorch's, in three panels."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from minunet.data import write_png

INK, GRID, OURS, THEIRS, ROOF = (40, 40, 40), (228, 228, 228), (31, 119, 180), (190, 190, 190), (214, 39, 40)
TITLES = {"forward": "forward", "grad_x": "gradient in x", "grad_w": "gradient in w"}
WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 1200, 230, 60, 20, 40, 92  # pixels; BOTTOM: the layers' names


def layers(path: str | os.PathLike[str], rows: dict[str, Any], sgemm: float, title: str) -> None:
    """Write the picture of `rows` (a set of layers in bench/results/cpu.json); `sgemm`: GFLOP/s, drawn as a line."""
    height = TOP + len(TITLES) * PANEL + BOTTOM
    picture = Image.new("RGB", (WIDTH, height), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    draw.text((LEFT, 12), title, INK, font)
    x = WIDTH - RIGHT
    for text, colour in (("sgemm", ROOF), ("PyTorch's best", THEIRS), ("minunet", OURS)):
        draw.text((x, 12), text, INK, font, anchor="ra")
        x -= draw.textlength(text, font) + 18
        draw.rectangle([x, 14, x + 12, 26], fill=colour)
        x -= 14
    most = 1.1 * max([sgemm, *(value for row in rows.values() for what in TITLES for value in _gflops(row, what))])
    for k, (what, name) in enumerate(TITLES.items()):
        bars = [_gflops(row, what) for row in rows.values()]
        _panel(draw, font, TOP + k * PANEL, bars, name, sgemm, most)
    step = (WIDTH - LEFT - RIGHT) / len(rows)
    for k, name in enumerate(rows):
        _upright(picture, font, name, round(LEFT + (k + 0.5) * step), height - BOTTOM + 6)
    write_png(path, np.asarray(picture))


def _panel(
    draw: ImageDraw.ImageDraw, font, top: int, bars: list[tuple[float, float]], name: str, sgemm: float, most: float
) -> None:
    bottom, scale = top + PANEL - 14, (PANEL - 40) / most
    for value in range(0, int(most) + 1, 100 if most > 250 else 50):
        y = bottom - value * scale
        draw.line([(LEFT, y), (WIDTH - RIGHT, y)], fill=GRID)
        draw.text((LEFT - 8, y), f"{value}", INK, font, anchor="rm")
    step = (WIDTH - LEFT - RIGHT) / len(bars)
    for k, (ours, theirs) in enumerate(bars):
        x = LEFT + k * step
        for value, colour, shift in ((ours, OURS, 0.14), (theirs, THEIRS, 0.5)):
            draw.rectangle([x + shift * step, bottom - value * scale, x + (shift + 0.34) * step, bottom], fill=colour)
    draw.line([(LEFT, bottom - sgemm * scale), (WIDTH - RIGHT, bottom - sgemm * scale)], fill=ROOF)
    draw.text((LEFT + 6, top + 4), f"{name}, GFLOP/s of the plain sum", INK, font)


def _gflops(row: dict[str, Any], what: str) -> tuple[float, float]:
    """Ours and the best peer's; 0 where not measured."""
    entry = row[what]
    if "times" not in entry:
        return 0.0, 0.0
    times = entry["times"]
    best = times.get(entry.get("best_peer"))
    return 1e3 * row["gflop"] / times["minunet"]["median_ms"], 1e3 * row["gflop"] / best["median_ms"] if best else 0.0


def _upright(picture: Image.Image, font, text: str, x: int, y: int) -> None:
    """`text` from bottom to top, its end at y, its middle at x."""
    length = int(font.getlength(text)) + 2
    label = Image.new("RGB", (length, 18), "white")
    ImageDraw.Draw(label).text((0, 0), text, INK, font)
    picture.paste(label.rotate(90, expand=True), (x - 9, y))
