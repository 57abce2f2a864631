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


def line_chart(series: Sequence[tuple[str, Points]], x_label: str, log_x: bool = False, log_y: bool = False) -> str:
    """An SVG of lines by name over one pair of axes; points that are not finite, or not above 0 on a log axis, are left
    out. The lines have the classes s0, s1, ...; "" where there is no point.
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
        out.append(f'<text x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:.4g}</text>')
    out.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 2}" text-anchor="end">{escape(x_label)}</text>')
    for k, (name, points) in enumerate(kept):
        line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        out.append(f'<polyline class="s{k}" points="{line}"/>')
        if len(points) <= 60:
            for x, y in points:
                tip = f"<title>{escape(name)} {y:.6g} at {x:.6g}</title>"
                out.append(f'<circle class="s{k}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="3">{tip}</circle>')
        if len(kept) > 1:
            out.append(f'<text class="s{k}" x="{LEFT + 10 + 150 * k}" y="{HEIGHT - 2}">{escape(name)}</text>')
    return "".join([*out, "</svg>"])


def _drawable(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _axis(values: Sequence[float], log: bool, begin: float, end: float) -> tuple[Any, list[float]]:
    """(from a value to its pixel, the values at ticks); the axis is a little longer than the values."""
    low, high = min(values), max(values)
    if log:
        low, high = math.log10(low), math.log10(high)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-300):
        low, high = low - 0.5, high + 0.5
    step = 10 ** math.floor(math.log10((high - low) / 2))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= 5)
    if log and step >= 1:
        step = math.ceil(step)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    ticks = [round(k * step, 12) for k in range(first, last + 1)]

    def place(value: float) -> float:
        inside = math.log10(value) if log else value
        return begin + (inside - ticks[0]) / (ticks[-1] - ticks[0]) * (end - begin)

    return place, [10**t for t in ticks] if log else ticks


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """An HTML table: numbers to the right, floats with 4 digits after the point (6 below 0.01), None and NaN
    as a dash.
    """
    out = ["<table><thead><tr>", *(f"<th>{escape(str(h))}</th>" for h in head), "</tr></thead><tbody>"]
    for row in rows:
        out += ["<tr>", *(_cell(value) for value in row), "</tr>"]
    return "".join([*out, "</tbody></table>"])


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return '<td class="n">-</td>'
    if isinstance(value, float | np.floating):
        return f'<td class="n">{value:.{6 if abs(value) < 0.01 else 4}f}</td>'
    if isinstance(value, int | np.integer):
        return f'<td class="n">{value:,}</td>'
    return f"<td>{escape(str(value))}</td>"


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """A confusion matrix as a table: rows are true classes, shares of the row, the darker the larger."""
    out = ['<table class="matrix"><thead><tr><th>true \\ predicted</th>']
    out += [*(f"<th>{escape(c)}</th>" for c in classes), "<th>pixels</th></tr></thead><tbody>"]
    for name, row in zip(classes, matrix):
        out.append(f"<tr><th>{escape(name)}</th>")
        n = int(row.sum())
        for k in row.tolist():
            share = k / n if n else 0.0
            shade = f"background: color-mix(in srgb, var(--s0) {60 * share:.0f}%, transparent)"
            out.append(f'<td class="n" style="{shade}" title="{k:,} pixels">{f"{share:.1%}" if n else "-"}</td>')
        out.append(f'<td class="n">{n:,}</td></tr>')
    return "".join([*out, "</tbody></table>"])


def picture(image: np.ndarray, alt: str) -> str:
    """An image uint8 (H, W, 3) inside the page, as PNG."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(data, format="PNG", compress_level=3)
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}">'
