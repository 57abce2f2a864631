"""report.html: a run on one page that needs no other file and no connection."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from html import escape
from typing import Any

import numpy as np

from minunet import metrics
from minunet.training.charts import Html, confusion, line_chart, picture, swatch, table
from minunet.training.config import Config
from minunet.training.judges import Verdict
from minunet.training.loop import Trainer
from minunet.training.page import page
from minunet.training.pictures import INVENTED, MISSED
from minunet.training.seen import WRONG, Seen

NAMES = {  # a score: what it is called, and the value that is perfect
    "v_rand": ("V_Rand", 1),
    "v_info": ("V_Info", 1),
    "rand_error": ("Rand error", 0),
    "pixel_error": ("pixel error (1 - F1)", 0),
    "pixel_disagreement": ("wrong pixels", 0),
    "wrong_pixels": ("wrong pixels", 0),
    "warping_error": ("warping error", 0),
    "warping_error_all": ("warping, all kinds", 0),
    "seg": ("SEG", 1),
    "mean_iu": ("mean IoU", 1),
    "acc_cls": ("class accuracy", 1),
    "acc": ("accuracy", 1),
    "fwavacc": ("IoU by frequency", 1),
    "boundary_f1": ("contour F1", 1),
}
KINDS = ((MISSED, "cells merged"), (INVENTED, "cells split"), (WRONG, "other wrong pixels"))
NOTES = 20  # warnings that are shown, the last
WRONG_CLASS = ((MISSED, "wrong class"),)


def report(
    trainer: Trainer, seen: Seen, verdict: Verdict | None, facts: Mapping[str, Any], hints: Sequence[str]
) -> str:
    """The page: curves, scores, confusion matrix, worst and best held-out images, health, settings, versions, hashes.

    seen    : of the last validation      verdict : None while the run goes on
    facts   : of the machine, versions and hashes, {name: text}      hints : commands to go on with
    """
    state, data, config = trainer.state, trainer.data, trainer.config
    of = "" if trainer.total is None else f" of {trainer.total:,}"
    lead = f"{state.step:,}{of} steps in {state.seconds / 60:.1f} min; {len(trainer.held_out)} held-out images"
    if verdict is None:
        lead += "; the run goes on, this page is of its last validation"
    parts = [f'<p>{escape(data.source)}</p><p class="dim">{escape(lead)}</p>']
    if data.synthetic:
        parts.append('<p class="bad">SYNTHETIC data, made up: its scores say nothing about real images.</p>')
    parts += [_cards(trainer, verdict), _best(trainer, verdict)]
    parts += ["<h2>Health</h2>", _health(trainer), "<h2>Curves</h2>", _curves(trainer)]
    scores = _scores(verdict)
    parts += ["<h2>Held-out scores</h2>", scores] if scores else []
    at = f"<p>A pixel is {escape(data.classes[-1])} where its probability is above {seen.threshold:.1f}.</p>"
    parts += ["<h2>Classes</h2>", at * (data.scored == "cells"), f'<div class="scroll">{_classes(seen)}</div>']
    parts += ["<h3>Confusion matrix</h3>", f'<div class="scroll">{confusion(seen.matrix, data.classes)}</div>']
    parts += ["<h2>Held-out images, worst first</h2>", _images(trainer, seen)]
    parts += ["<h2>Settings</h2>", _settings(config), "<h2>Where it ran</h2>", table(("", ""), facts.items())]
    parts += ["<h2>To go on</h2>", *(f"<p><code>{escape(h)}</code></p>" for h in hints)]
    return page(f"{config.model} on {data.name}{' (SYNTHETIC)' if data.synthetic else ''}", parts)


def _values(trainer: Trainer, verdict: Verdict | None) -> dict[str, float | None]:
    """{score: number} of the end of the run, or of the last validation."""
    if verdict is None:
        rows = [r for r in trainer.state.log if trainer.judge.columns[0] in r][-1:]
        return {c.removeprefix("held_out_"): row[c] for row in rows for c in trainer.judge.columns}
    plain = {k: v["value"] if isinstance(v, dict) and "value" in v else v for k, v in verdict.scores.items()}
    return {k: v for k, v in plain.items() if v is None or isinstance(v, float)}


def _cards(trainer: Trainer, verdict: Verdict | None) -> str:
    """The scores, large."""
    out = ['<div class="cards">']
    for key, value in _values(trainer, verdict).items():
        name, perfect = NAMES[key]
        shown = "-" if value is None or not math.isfinite(value) else f"{value:.{6 if 0 < value < 0.01 else 4}f}"
        out.append(f'<div class="card"><span>{name}</span><b>{shown}</b><span>{perfect} is perfect</span></div>')
    return "".join([*out, "</div>"])


def _best(trainer: Trainer, verdict: Verdict | None) -> str:
    """Which step was the best, and how the scores above were made."""
    best, average = trainer.state.best, trainer.config.average
    text = ""
    if best is not None:
        text = f"Best {trainer.judge.score}: {best['score']:.4f} at step {best['step']:,}"
        text += ", from one orientation as at all validations. " if average > 1 else ". "
    if verdict is not None and average > 1:
        text += f"The scores above are of step {trainer.state.step:,}, averaged over {average} orientations."
    return f'<p class="dim">{escape(text)}</p>' if text else ""


def _health(trainer: Trainer) -> str:
    state = trainer.state
    if state.notes:
        lines = [f'<p class="bad">step {n["step"]:,}: {escape(n["text"])}</p>' for n in state.notes[-NOTES:]]
        if len(state.notes) > NOTES:
            lines.insert(0, f'<p class="bad">{len(state.notes) - NOTES:,} earlier warnings: see metrics.json</p>')
    else:
        lines = [
            '<p class="good">Nothing found: the loss moves, more than one class is predicted, ReLUs are alive.</p>'
        ]
    waited = f"Waiting for tiles: {state.waiting / max(state.seconds, 1e-9):.1%} of the time."
    if state.health:
        last = state.health[-1]
        waited = (
            f"Dead ReLUs at step {last['step']:,}: {last['dead']:.1%} of the channels, at most {last['worst']:.1%}"
            f" in a layer ({last['layer']}). {waited}"
        )
    return "".join([*lines, f"<p>{escape(waited)}</p>"])


def _curves(trainer: Trainer) -> str:
    """The charts; a ring marks the best validation."""
    log, best = trainer.state.log, trainer.state.best
    charts = [("training loss", _points(log, "loss"), True, None)]
    for k, column in enumerate(trainer.judge.columns):
        ring = (best["step"], best["score"]) if best is not None and k == 0 else None
        name = NAMES[column.removeprefix("held_out_")][0]
        charts.append((f"held out: {name}", _points(log, column), False, ring))
    charts.append(("learning rate", _points([r for r in log if "loss" in r], "learning_rate"), False, None))
    charts.append(("share of dead ReLU channels", [(h["step"], h["dead"]) for h in trainer.state.health], False, None))
    out = ['<div class="curves">']
    for name, points, log_y, ring in charts:
        svg = line_chart([(name, points)], "step", log_y=log_y, best=ring)
        if svg:
            out.append(f"<figure><figcaption>{escape(name)}</figcaption>{svg}</figure>")
    return "".join([*out, "</div>"])


def _points(log: Sequence[Mapping[str, Any]], column: str) -> list[tuple[float, float]]:
    return [(row["step"], row[column]) for row in log if column in row]


def _scores(verdict: Verdict | None) -> str:
    """The cells' scores with their thresholds and parts; "" for others, of which the cards say it all."""
    cells = {} if verdict is None else verdict.scores
    rows = [
        (NAMES[k][0], *(v[part] for part in ("value", "threshold", "split", "merge")))
        for k, v in cells.items()
        if isinstance(v, dict) and "threshold" in v
    ]
    return table(("score", "value", "threshold", "split", "merge"), rows) if rows else ""


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
    names = [Html(swatch(c) + escape(name)) for name, c in zip(seen.data.classes, seen.data.colours)]
    body = [(name, *(float(v[k]) for v in vectors)) for k, name in enumerate(names)]
    return table(("class", "IoU", "Dice", "recall", "precision", "share of pixels"), body)


def _images(trainer: Trainer, seen: Seen) -> str:
    """The worst and the best held-out images, with a key of the errors' colours."""
    cells = any(shown.pieces is not None for shown in seen.kept)
    key = "".join(f'<span class="key">{swatch(c)}{name}</span>' for c, name in (KINDS if cells else WRONG_CLASS))
    out = [f"<p>Ranked by {seen.measure}. Errors: {key}</p>"]
    out.append(
        '<div class="heads"><span>input</span><span>truth</span><span>prediction</span><span>errors</span></div>'
    )
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
