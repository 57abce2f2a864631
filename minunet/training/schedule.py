"""How far a run is, and what learning rate belongs there."""

from __future__ import annotations

from math import ceil, cos, floor, pi

from minunet.training.config import Config

DENSE = 20_000  # steps


def learning_rate(config: Config, progress: float) -> float:
    """lr min(progress / warmup, 1) f(s), s = how far between warm-up (0) and the end (1)

    progress : share of the budget used, 0 .. 1
    f : "cosine" (1 + cos(pi s)) / 2 (Loshchilov & Hutter 2017, eq. 5, one cycle down to 0); "poly" (1 - s)^power
        (DeepLab); "step" step_factor^floor(progress / step_every); "constant" 1
    """
    rise = min(progress / config.warmup, 1.0) if config.warmup > 0 else 1.0
    if config.schedule == "constant":
        return config.lr * rise
    if config.schedule == "step":
        return config.lr * rise * config.step_factor ** floor(progress / config.step_every)
    s = min(max((progress - config.warmup) / (1 - config.warmup), 0.0), 1.0)
    if config.schedule == "poly":
        return config.lr * rise * (1 - s) ** config.power
    return config.lr * rise * (1 + cos(pi * s)) / 2


def thinning(step: int) -> int:
    """How many times as many steps a row of the log averages at this step: 1 before 2 DENSE steps, and twice as many
    each time that the steps double after that.

    The log lies in every checkpoint: a week of 11 million steps has 10,000 rows so, and not 550,000.
    """
    return 1 << max(0, (step // DENSE).bit_length() - 1)


def total_steps(config: Config, pixels: int, tile_pixels: int) -> int | None:
    """Steps that the budget means; None where it is in minutes.

    pixels : of all training sections      tile_pixels : that one tile predicts
    An epoch is as many tiles as cover the training sections' pixels once.
    """
    if config.steps is not None:
        return config.steps
    if config.epochs is not None:
        return max(1, ceil(config.epochs * pixels / (tile_pixels * config.batch * config.accumulate)))
    return None
