"""report.html: a run on one page that needs no other file and no connection."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from html import escape
from typing import Any

import numpy as np

from minunet import metrics
from minunet.training.charts import confusion, line_chart, picture, table
from minunet.training.config import Config
from minunet.training.judges import Verdict
from minunet.training.loop import Trainer
from minunet.training.seen import Seen

STYLE = """
:root { color-scheme: light dark; --ink: #222; --back: #fff; --grid: #ddd; --soft: #f4f4f6; --bad: #b3261e;
  --s0: #1f77b4; --s1: #d62728; --s2: #2ca02c; --s3: #9467bd; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e7; --back: #17181b; --grid: #3a3b40; --soft: #232428;
  --bad: #ff8a80; --s0: #6cb6f5; --s1: #ff7f7f; --s2: #7fd08a; --s3: #c3a1e8; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 1100px;
  margin: 2em auto; padding: 0 1em; }
h2 { margin-top: 2em; border-bottom: 1px solid var(--grid); } h3 { margin-bottom: .3em; }
figure { display: inline-block; margin: 0 1em 1em 0; width: min(520px, 100%); vertical-align: top; }
figure.wide { display: block; width: 100%; } figure img { width: 100%; } figcaption { font-size: 13px; }
svg.chart { width: 100%; background: var(--soft); } svg text { font-size: 12px; fill: var(--ink); }
svg .grid { stroke: var(--grid); } polyline { fill: none; stroke-width: 1.8; }
polyline.s0 { stroke: var(--s0); } polyline.s1 { stroke: var(--s1); } polyline.s2 { stroke: var(--s2); }
polyline.s3 { stroke: var(--s3); }
circle.s0, svg text.s0 { fill: var(--s0); } circle.s1, svg text.s1 { fill: var(--s1); }
circle.s2, svg text.s2 { fill: var(--s2); } circle.s3, svg text.s3 { fill: var(--s3); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; margin: .5em 0; }
th, td { padding: .2em .7em; border-bottom: 1px solid var(--grid); text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } .bad { color: var(--bad); font-weight: 600; }
code { overflow-wrap: anywhere; }
"""


def report(
    trainer: Trainer, seen: Seen, verdict: Verdict | None, facts: Mapping[str, Any], hints: Sequence[str]
) -> str:
    """The page: curves, scores, confusion matrix, worst and best held-out images, health, settings, versions, hashes.

    seen    : of the last validation      verdict : None while the run goes on
    facts   : of the machine, versions and hashes, {name: text}      hints : commands to go on with
    """
    state, data, config = trainer.state, trainer.data, trainer.config
    title = f"{config.model} on {data.name}{' (SYNTHETIC)' if data.synthetic else ''}"
    of = "" if trainer.total is None else f" of {trainer.total:,}"
    lead = f"{state.step:,}{of} steps in {state.seconds / 60:.1f} min; {len(trainer.held_out)} held-out images"
    if verdict is None:
        lead += "; the run goes on, this page is of its last validation"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><p>{escape(data.source)}</p><p>{escape(lead)}</p>",
    ]
    if data.synthetic:
        parts.append('<p class="bad">SYNTHETIC data, made up: its scores say nothing about real images.</p>')
    parts += ["<h2>Health</h2>", _health(trainer), "<h2>Curves</h2>", _curves(trainer)]
    parts += ["<h2>Held-out scores</h2>", _scores(trainer, verdict)]
    at = f"<p>A pixel is {escape(data.classes[-1])} where its probability is above {seen.threshold:.1f}.</p>"
    parts += ["<h2>Classes</h2>", at * (data.scored == "cells"), f'<div class="scroll">{_classes(seen)}</div>']
    parts += ["<h3>Confusion matrix</h3>", f'<div class="scroll">{confusion(seen.matrix, data.classes)}</div>']
    parts += ["<h2>Held-out images, worst first</h2>", _images(trainer, seen)]
    parts += ["<h2>Settings</h2>", _settings(config), "<h2>Where it ran</h2>", table(("", ""), facts.items())]
    parts += ["<h2>To go on</h2>", *(f"<p><code>{escape(h)}</code></p>" for h in hints)]
    return "\n".join([*parts, "</body></html>", ""])


def _health(trainer: Trainer) -> str:
    state = trainer.state
    if state.notes:
        lines = [f'<p class="bad">step {n["step"]:,}: {escape(n["text"])}</p>' for n in state.notes]
    else:
        lines = ["<p>Nothing found: the loss moves, more than one class is predicted, ReLUs are alive.</p>"]
    if state.health:
        last = state.health[-1]
        lines.append(
            f"<p>Dead ReLUs at step {last['step']:,}: {last['dead']:.1%} of the channels, at most {last['worst']:.1%}"
            f" in a layer ({escape(last['layer'])}). Waiting for tiles:"
            f" {state.waiting / max(state.seconds, 1e-9):.1%} of the time.</p>"
        )
    return "".join(lines)


def _curves(trainer: Trainer) -> str:
    log = trainer.state.log
    charts = [("training loss", [("loss", _points(log, "loss"))], True)]
    for name in trainer.judge.columns:
        charts.append((name.replace("_", " "), [(name, _points(log, name))], False))
    charts.append(("learning rate", [("rate", _points([r for r in log if "loss" in r], "learning_rate"))], False))
    dead = [(h["step"], h["dead"]) for h in trainer.state.health]
    charts.append(("share of dead ReLU channels", [("dead", dead)], False))
    drawn = [(name, line_chart(series, "step", log_y=log_y)) for name, series, log_y in charts]
    return "".join(f"<figure>{svg}<figcaption>{escape(name)}</figcaption></figure>" for name, svg in drawn if svg)


def _points(log: Sequence[Mapping[str, Any]], column: str) -> list[tuple[float, float]]:
    return [(row["step"], row[column]) for row in log if column in row]


def _scores(trainer: Trainer, verdict: Verdict | None) -> str:
    """The last scores, and which step was the best."""
    best = trainer.state.best
    name = trainer.judge.score
    text = f"<p>Best {escape(name)}: {best['score']:.4f} at step {best['step']:,}.</p>" if best else ""
    if verdict is None:
        rows = [r for r in trainer.state.log if trainer.judge.columns[0] in r][-1:]
        return text + table(
            ("score", "value"), [(c.replace("_", " "), r[c]) for r in rows for c in trainer.judge.columns]
        )
    cells = [(k, v) for k, v in verdict.scores.items() if isinstance(v, dict) and "value" in v]
    if cells:
        head = ("score", "value", "threshold", "split", "merge")
        text += table(
            head, [(k, *(v.get(part) for part in ("value", "threshold", "split", "merge"))) for k, v in cells]
        )
    plain = [(k, v) for k, v in verdict.scores.items() if v is None or isinstance(v, float)]
    return text + (table(("score", "value"), plain) if plain else "")


def _classes(seen: Seen) -> str:
    """IoU, Dice, recall and precision of each class."""
    if not seen.matrix.any():
        return "<p>No held-out pixel has a label.</p>"
    found = metrics.scores(seen.matrix)
    rows, columns, right = seen.matrix.sum(axis=1), seen.matrix.sum(axis=0), seen.matrix.diagonal()
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision = right / rows, right / columns
    share = rows / rows.sum()
    vectors = (found.iu, found.dice, recall, precision, share)
    body = [(name, *(float(v[k]) for v in vectors)) for k, name in enumerate(seen.data.classes)]
    return table(("class", "IoU", "Dice", "recall", "precision", "share of pixels"), body)


def _images(trainer: Trainer, seen: Seen) -> str:
    cells = any(shown.pieces is not None for shown in seen.kept)
    key = "red: cells merged; blue: cells split; yellow: other wrong pixels" if cells else "red: wrong class"
    out = [f"<p>Input, truth, prediction, errors ({key}); ranked by {seen.measure}.</p>"]
    for shown in seen.kept:
        text = f"{trainer.data.called(int(seen.held_out[shown.k]))}: {seen.measure} {shown.score:.4f}"
        if shown.pieces is not None:
            text += f"; cells merged {shown.pieces.mergers}, pieces split off {shown.pieces.splits}"
        caption = f"<figcaption>{escape(text)}</figcaption>"
        out.append(f'<figure class="wide">{picture(seen.picture(shown), text)}{caption}</figure>')
    return "".join(out)


def _settings(config: Config) -> str:
    """All settings; those that differ from Config's defaults first."""
    changed, same = [], []
    for f in fields(Config):
        value = getattr(config, f.name)
        if value is None or (f.name == "model_args" and not value):
            continue
        (changed if value != f.default else same).append((f.name.replace("_", "-"), _text(value)))
    return (
        table(("chosen", ""), changed) + f"<details><summary>as by default</summary>{table(('', ''), same)}</details>"
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else str(value)
    return str(value)
