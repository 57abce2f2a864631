"""Pictures of a run: the loss curve, and input / truth / prediction / error side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from minunet.data import IGNORE, paint, write_png
from minunet.data.dataset import Colour

INK, GRID, LOSS, SCORE = (40, 40, 40), (225, 225, 225), (0, 114, 178), (213, 94, 0)
MISSED = (213, 94, 0)  # membrane that was not found, which merges cells. Orange and blue: any eye tells them apart
INVENTED = (0, 114, 178)  # membrane where there is none, which splits a cell


def curve(
    path: str | os.PathLike[str],
    loss: Sequence[tuple[int, float]],
    held_out: Sequence[tuple[int, float]],
    title: str,
    score: str = "V_Rand",
    least: float = 0.8,
) -> None:
    """Write the loss (log axis, left) and a held-out score (right, `least` to 1 or wider) over the steps as PNG."""
    width, height, left, right, top, bottom = 960, 480, 70, 70, 40, 50
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    steps = max([1, *(s for s, _ in (*loss, *held_out))])
    values = np.log10([max(v, 1e-6) for _, v in loss] or [1.0])
    low, high = float(np.floor(values.min() * 5) / 5), float(np.ceil(values.max() * 5) / 5) + 1e-9
    score_low = min([least, *(float(np.floor(v * 20) / 20) for _, v in held_out)])

    def place(step: int, share: float) -> tuple[float, float]:
        return left + step / steps * (width - left - right), top + (1 - share) * (height - top - bottom)

    for k in range(5):
        share = k / 4
        y = place(0, share)[1]
        draw.line([(left, y), (width - right, y)], fill=GRID)
        draw.text((left - 8, y), f"{10 ** (low + share * (high - low)):.3f}", LOSS, font, anchor="rm")
        draw.text((width - right + 8, y), f"{score_low + share * (1 - score_low):.3f}", SCORE, font, anchor="lm")
        draw.text((place(round(share * steps), 0)[0], height - bottom + 8), f"{round(share * steps)}", INK, font, "ma")
    line = [place(s, (np.log10(max(v, 1e-6)) - low) / (high - low)) for s, v in loss]
    if len(line) > 1:
        draw.line(line, fill=LOSS, width=2)
    dots = [place(s, (v - score_low) / (1 - score_low)) for s, v in held_out]
    if len(dots) > 1:
        draw.line(dots, fill=SCORE, width=2)
    for x, y in dots:
        draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=SCORE)
    draw.text((left, 10), title, INK, font)
    draw.text((width - right, 10), f"loss (left)  held-out {score} (right)  over steps", INK, font, anchor="ra")
    write_png(path, np.asarray(picture))


def panel(
    path: str | os.PathLike[str],
    sections: Sequence[int],
    images: np.ndarray,
    truth: np.ndarray,
    p_cell: np.ndarray,
    note: str = "",
) -> None:
    """Write one row a section: input, truth, prediction, error; as PNG

    images : uint8 (S, H, W)      truth : (S, H, W), 1 = cell      p_cell : (S, H, W) in 0 .. 1
    Error is at threshold 0.5: orange where membrane was missed (cells merge), blue where it was invented (cells split).
    """
    s, h, w = images.shape
    gap, head = 6, 24
    columns = ("input", "truth", "P(cell)", "error: orange merges, blue splits")
    picture = Image.new("RGB", (4 * w + 3 * gap, head + s * (h + gap)), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    for k, name in enumerate(columns):
        draw.text((k * (w + gap) + 4, 4), name, INK, font)
    draw.text((picture.width - 4, 4), note, INK, font, anchor="ra")
    for row in range(s):
        y = head + row * (h + gap)
        cells, guess = truth[row] > 0, p_cell[row] > 0.5
        error = np.repeat((images[row] // 2 + 110).astype(np.uint8)[..., None], 3, axis=2)
        error[~cells & guess], error[cells & ~guess] = MISSED, INVENTED
        tiles = (images[row], cells.astype(np.uint8) * 255, np.round(p_cell[row] * 255).astype(np.uint8), error)
        for k, tile in enumerate(tiles):
            picture.paste(Image.fromarray(np.ascontiguousarray(tile)), (k * (w + gap), y))
        draw.text((6, y + 4), f"section {sections[row]}", (255, 255, 0), font, stroke_width=2, stroke_fill="black")
    write_png(path, np.asarray(picture))


def scene_panel(
    path: str | os.PathLike[str],
    names: Sequence[str],
    images: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    classes: Sequence[str],
    colours: Sequence[Colour],
    note: str = "",
) -> None:
    """Write one row an image: input, truth, prediction, error, over a key of the classes' colours; as PNG

    images : uint8 (S, H, W) or (S, H, W, C), of which three channels are shown   truth, predicted : classes (S, H, W)
    Pixels without a label are black in truth and prediction, and never an error.
    """
    s, h, w = truth.shape
    gap, head, line = 6, 24, 18
    width = 4 * w + 3 * gap
    columns = max(1, width // 130)
    key = line * -(-len(classes) // columns)
    picture = Image.new("RGB", (width, head + s * (h + gap) + key), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for k, name in enumerate(("input", "truth", "prediction", "wrong: orange")):
        draw.text((k * (w + gap) + 4, 4), name, INK, font)
    draw.text((picture.width - 4, 4), note, INK, font, anchor="ra")
    for row in range(s):
        y = head + row * (h + gap)
        for k, tile in enumerate(_scene_row(images[row], truth[row], predicted[row], tuple(colours))):
            picture.paste(Image.fromarray(np.ascontiguousarray(tile)), (k * (w + gap), y))
        draw.text((6, y + 4), names[row], (255, 255, 0), font, stroke_width=2, stroke_fill="black")
    for k, (name, colour) in enumerate(zip(classes, colours)):
        x, y = 130 * (k % columns), picture.height - key + line * (k // columns)
        draw.rectangle([x + 4, y + 3, x + 16, y + 15], fill=tuple(colour))
        draw.text((x + 22, y + 2), name, INK, font)
    write_png(path, np.asarray(picture))


def _scene_row(
    image: np.ndarray, truth: np.ndarray, predicted: np.ndarray, colours: tuple[Colour, ...]
) -> tuple[np.ndarray, ...]:
    """Input, truth, prediction and error of one image, each uint8 (H, W, 3)."""
    grey = image.ndim == 2 or image.shape[-1] < 3
    photo = np.repeat(np.atleast_3d(image)[..., :1], 3, axis=2) if grey else image[..., :3]
    counted = truth != IGNORE
    error = np.repeat((photo.mean(axis=2) // 2 + 110).astype(np.uint8)[..., None], 3, axis=2)
    error[counted & (truth != predicted)] = MISSED
    return photo, paint(truth, colours), paint(np.where(counted, predicted, IGNORE), colours), error
