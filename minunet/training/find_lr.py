"""`minunet train --find-lr`: which learning rates make the loss fall (Smith 2017, arXiv 1506.01186, section 3.3)."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from minunet import backends
from minunet.data import Dataset
from minunet.errors import UsageError
from minunet.files import atomic_write
from minunet.training import job
from minunet.training.charts import line_chart
from minunet.training.config import Config
from minunet.training.folder import new_folder
from minunet.training.loop import State, Trainer
from minunet.training.memory import advised, check_step
from minunet.training.page import page

LOWEST, HIGHEST = 1e-6, 10.0
KEPT = 0.95  # of the running mean, at each step
BURST = 4.0  # times the lowest loss: higher, and the sweep ends
LEAST = 20  # steps: fewer say nothing
SETTLED = 10  # steps before which the running mean is of too few losses to compare with


def run(config: Config, out: str | None, options: job.Options, own: Dataset | None, steps: int) -> int:
    """The command: sweep, print the suggestion, write the curve to a folder. Returns the exit code."""
    if steps < LEAST:
        raise UsageError(f"--find-lr {steps}: must be at least {LEAST} steps")
    options, model, data, parts = job.prepare(config, options, own)
    where = new_folder(out, f"{data.name}-find-lr")
    with backends.use_backend(options.backend), backends.precision(options.precision):
        trainer = Trainer(config, data, parts, model.to(options.backend), State(), lambda trainer: None)
        check_step(trainer)
        with advised(trainer), tqdm(total=steps, unit="step", disable=options.quiet, dynamic_ncols=True) as bar:
            found = sweep(trainer, steps, lambda k: bar.update())
    lines = words(found, suggestion(found))
    write(where, found, lines, f"Learning rates: {config.model} on {data.name}")
    print("\n".join([*lines, f"see {where / 'find_lr.html'}"]))
    return 0


class Sweep(NamedTuple):
    """The rates that were tried, the loss of each step, and its running mean."""

    rates: list[float]
    losses: list[float]
    smooth: list[float]


def sweep(trainer: Trainer, steps: int, done: Callable[[int], object] = lambda k: None) -> Sweep:
    """Train for `steps` steps with rates from LOWEST to HIGHEST, each a constant factor above the one before.

    rate_k = LOWEST (HIGHEST / LOWEST)^(k / (steps - 1)); smooth_k = sum_i w_i loss_i / sum_i w_i, w_i = KEPT^(k - i).
    Ends early where the running mean exceeds BURST times its lowest value after SETTLED steps, or a loss is not finite.
    The network is used up: weights after a sweep are good for nothing.
    """
    found = Sweep([], [], [])
    total = weight = 0.0
    trainer.model.train()
    together = trainer.config.accumulate
    batches = trainer.sampler.batches(0)
    try:
        for k in range(steps):
            rate = LOWEST * (HIGHEST / LOWEST) ** (k / (steps - 1))
            with np.errstate(all="ignore"):  # it is meant to burst
                loss = trainer.step([next(batches) for _ in range(together)], rate)
            if not math.isfinite(loss):
                break
            total, weight = KEPT * total + loss, KEPT * weight + 1
            for row, value in zip(found, (rate, loss, total / weight)):
                row.append(value)
            done(k)
            if k >= LEAST and found.smooth[-1] > BURST * min(found.smooth[SETTLED:]):
                break
    finally:
        batches.close()
    return found


def suggestion(found: Sweep) -> float | None:
    """The rate at which the running mean falls fastest over the logarithm of the rate, before its lowest value; None
    where it does not fall by 1 percent.

    The mean's slope is taken over a tenth of the sweep, so that one step's noise does not decide; the first SETTLED
    steps are left out.
    """
    if len(found.smooth) < LEAST:
        return None
    smooth, rates = np.array(found.smooth[SETTLED:]), found.rates[SETTLED:]
    lowest = int(smooth.argmin())
    span = max(1, len(found.smooth) // 10)
    if lowest <= span or smooth[lowest] > 0.99 * smooth[:lowest].max():
        return None
    slopes = smooth[span : lowest + 1] - smooth[: lowest + 1 - span]
    k = int(slopes.argmin()) + span // 2
    return float(f"{rates[k]:.1e}")


def words(found: Sweep, best: float | None) -> list[str]:
    """What a sweep says, in lines."""
    if not found.rates:
        return ["the loss was not finite at the lowest rate already; check the data and --loss"]
    settled = min(SETTLED, len(found.smooth) - 1)
    lowest = settled + int(np.argmin(found.smooth[settled:]))
    tried = f"{len(found.rates)} steps, learning rates {found.rates[0]:.1e} to {found.rates[-1]:.1e}"
    if best is None:
        return [tried, "no rate made the loss fall; try more steps (--find-lr 300), other data, or another --loss"]
    first, least, at = found.smooth[settled], found.smooth[lowest], found.rates[lowest]
    above = f"; above {at:.1e} it rises" if lowest < len(found.rates) - 1 else ""
    return [
        f"{tried}: loss {first:.4f} at first, lowest {least:.4f} at {at:.1e}",
        f"suggestion: --lr {best:g}   (where the loss falls fastest{above})",
    ]


def write(folder: Path, found: Sweep, lines: Sequence[str], title: str) -> None:
    """find_lr.csv and find_lr.html, the curve."""
    with atomic_write(folder / "find_lr.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("learning_rate", "loss", "running_mean"))
        writer.writerows(zip(*found))
    series = [("running mean", list(zip(found.rates, found.smooth))), ("loss", list(zip(found.rates, found.losses)))]
    chart = line_chart(series, "learning rate", log_x=True, log_y=True)
    body = [*(f"<p>{escape(line)}</p>" for line in lines), f"<figure>{chart}</figure>"]
    with atomic_write(folder / "find_lr.html") as temporary:
        temporary.write_text(page(title, body), encoding="utf-8")
