"""Parts of an HTML page, as text: line charts in SVG, tables, pictures as data URIs. The page's CSS colours them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 34
Points = Sequence[tuple[float, float]]
NUMBER = (int, float, np.integer, np.floating)
RIGHT_HAND = ' class="n"'


def line_chart(
    series: Sequence[tuple[str, Points]],
    x_label: str,
    log_x: bool = False,
    log_y: bool = False,
    best: tuple[float, float] | None = None,
) -> str:
    """An SVG of lines by name over one pair of axes; points that are not finite, or not above 0 on a log axis, are left
    out. The lines have the classes s0, s1, ...; a ring marks the point `best`. "" where there is no point.
    """
    kept = [
        (name, [(x, y) for x, y in points if _drawable(x, log_x) and _drawable(y, log_y)]) for name, points in series
    ]
    every = [p for _, points in kept for p in points]
    if not every:
        return ""
    across, x_ticks = _axis([x for x, _ in every], log_x, LEFT, WIDTH - RIGHT)
    up, y_ticks = _axis([y for _, y in every], log_y, HEIGHT - BOTTOM, TOP)
    label = escape(", ".join(name for name, _ in kept))
    out = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
    for value in y_ticks:
        y = up(value)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in x_ticks:
        out.append(f'<text x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:.6g}</text>')
    out.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 2}" text-anchor="end">{escape(x_label)}</text>')
    for k, (name, points) in enumerate(kept):
        out += _line(k, name, [(across(x), up(y), x, y) for x, y in points], len(kept) > 1)
    if best is not None:
        x, y = best
        tip = f"<title>best: {y:.6g} at {x:.6g}</title>"
        out.append(f'<circle class="best" cx="{across(x):.1f}" cy="{up(y):.1f}" r="7">{tip}</circle>')
    return "".join([*out, "</svg>"])


def _line(k: int, name: str, points: Sequence[tuple[float, float, float, float]], named: bool) -> list[str]:
    """Line k through points (pixel x, pixel y, x, y), with dots to point at where they are few, and its name."""
    out = [f'<polyline class="s{k}" points="{" ".join(f"{u:.1f},{v:.1f}" for u, v, _, _ in points)}"/>']
    if len(points) <= 60:
        for u, v, x, y in points:
            tip = f"<title>{escape(name)} {y:.6g} at {x:.6g}</title>"
            out.append(f'<circle class="s{k}" cx="{u:.1f}" cy="{v:.1f}" r="3.5">{tip}</circle>')
    if named:
        out.append(f'<text class="s{k}" x="{LEFT + 10 + 150 * k}" y="{HEIGHT - 2}">{escape(name)}</text>')
    return out


def _drawable(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _axis(values: Sequence[float], log: bool, begin: float, end: float) -> tuple[Any, list[float]]:
    """(from a value to its pixel, the values at ticks); the axis is a little longer than the values."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-300):
        low, high = (0.9 * low, 1.1 * high) if log else (min(2 * low, 0.0), max(2 * high, 0.0)) if low else (0.0, 1.0)
    ticks = _log_ticks(low, high) if log and high > 2 * low else _even_ticks(low, high)
    scale = math.log10 if log else float
    first, last = scale(ticks[0]), scale(ticks[-1])

    def place(value: float) -> float:
        return begin + (scale(value) - first) / (last - first) * (end - begin)

    return place, ticks


def _even_ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, two to five steps over low .. high.

    >>> _even_ticks(0.63, 0.95)
    [0.6, 0.7, 0.8, 0.9, 1.0]
    """
    step = 10 ** math.floor(math.log10((high - low) / 2))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= 5)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten around low .. high; powers of ten only, not each, where that would be many.

    >>> _log_ticks(0.03, 0.4)
    [0.02, 0.05, 0.1, 0.2, 0.5]
    """
    first, last = math.floor(math.log10(low) + 1e-6), math.ceil(math.log10(high) - 1e-6)
    if high > 50 * low:
        step = -(-(last - first) // 6)
        return [float(f"1e{e}") for e in range(first, last + step, step)]
    every = [float(f"{m}e{e}") for e in range(first, last + 1) for m in (1, 2, 5)]
    begin = max(k for k, tick in enumerate(every) if tick <= low * (1 + 1e-6))
    end = min(k for k, tick in enumerate(every) if tick >= high * (1 - 1e-6))
    return every[begin : end + 1]


class Html(str):
    """A cell of a table that is HTML already."""


def swatch(colour: Sequence[int]) -> Html:
    """A small square in a colour (r, g, b), 0 .. 255."""
    return Html(f'<span class="swatch" style="background: rgb({", ".join(map(str, colour))})"></span>')


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """An HTML table: numbers to the right, floats with 4 digits after the point (6 below 0.01), None and NaN
    as a dash.
    """
    rows = list(rows)
    numbers = [any(isinstance(v, NUMBER) for v in column) for column in zip(*rows)] or [False] * len(head)
    cells = [f"<th{RIGHT_HAND * number}>{escape(str(h))}</th>" for h, number in zip(head, numbers)]
    out = ["<table><thead><tr>", *cells, "</tr></thead><tbody>"] if any(head) else ["<table><tbody>"]
    for row in rows:
        out += ["<tr>", *(_cell(value) for value in row), "</tr>"]
    return "".join([*out, "</tbody></table>"])


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return f"<td{RIGHT_HAND}>-</td>"
    if isinstance(value, float | np.floating):
        return f"<td{RIGHT_HAND}>{value:.{6 if 0 < abs(value) < 0.01 else 4}f}</td>"
    if isinstance(value, int | np.integer):
        return f"<td{RIGHT_HAND}>{value:,}</td>"
    return f"<td>{value if isinstance(value, Html) else escape(str(value))}</td>"


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """A confusion matrix as a table: rows are true classes, shares of the row, the darker the larger."""
    out = ['<table class="matrix"><thead><tr><th>true \\ predicted</th>']
    out += [*(f"<th{RIGHT_HAND}>{escape(c)}</th>" for c in (*classes, "pixels")), "</tr></thead><tbody>"]
    for name, row in zip(classes, matrix):
        out.append(f"<tr><th>{escape(name)}</th>")
        n = int(row.sum())
        for k in row.tolist():
            share = k / n if n else 0.0
            shade = f"background: color-mix(in srgb, var(--s0) {60 * share:.0f}%, transparent)"
            out.append(f'<td{RIGHT_HAND} style="{shade}" title="{k:,} pixels">{f"{share:.1%}" if n else "-"}</td>')
        out.append(f"<td{RIGHT_HAND}>{n:,}</td></tr>")
    return "".join([*out, "</tbody></table>"])


def picture(image: np.ndarray, alt: str) -> str:
    """An image uint8 (H, W, 3) inside the page, as PNG."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(data, format="PNG", compress_level=3)
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}">'
