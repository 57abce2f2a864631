"""Checkpoints that are whole, and say what cannot be: wrong kinds, wrong shapes, entries too many or too few."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from minunet import checkpoint

ENDLESS = {"steps", "epochs", "minutes", "batch", "accumulate", "validate", "average", "tile", "width", "depth", "size"}
VALUES = (
    None,
    True,
    -1,
    0,
    3,
    0.5,
    -2.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "é\n\x1b[2J",
    [],
    {},
    [[]],
    [None],
)
VALUES += (["x"], {"x": 1}, [1, 2, 3], {"mean": "x", "sd": 0}, {"mean": [1, 2], "sd": 1.0}, 2**70, 255, "section")


def distort(value: Any, rng: random.Random) -> Any:
    """A copy with one to three entries, anywhere in it, changed, removed or added."""
    out = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place = out
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
                place = place[key]
                continue
            if rng.random() < 0.2 and isinstance(place, dict):
                del place[key]
            elif rng.random() < 0.1 and isinstance(place, dict):
                place["unheard_of"] = rng.choice(VALUES)
            else:
                few = [v for v in VALUES if key not in ENDLESS or type(v) is not int or v < 4]
                place[key] = rng.choice(few)
            break
    return out


def liars(new: Callable[[str, bytes], Path], file: Path, n: int, rng: random.Random) -> Iterator[Path]:
    """n checkpoints with the right checksum, in which something is said that cannot be, or tensors are missing;
    `new` makes a file.
    """
    saved = checkpoint.load(file)
    for _ in range(n):
        extra, config, state = saved.extra, saved.model.config, dict(saved.optimizer_state or {})
        where = rng.random()
        if where < 0.8:
            extra = distort(extra, rng)
        elif where < 0.9:
            config = distort(config, rng)
        elif state:
            name = rng.choice(sorted(state))
            state[name] = rng.choice((state[name][..., None], np.zeros(0), np.full(state[name].shape, np.nan)))
            if rng.random() < 0.3:
                del state[name]
        model = SimpleNamespace(config=config, state_dict=saved.model.state_dict)
        path = new(file.name, b"")
        checkpoint.save(path, model, optimizer=SimpleNamespace(state_dict=lambda s=state: s), extra=extra)
        yield path
