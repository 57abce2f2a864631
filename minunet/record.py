"""What a checkpoint says beside its weights, looked at before it is believed: a file may be whole, and yet be wrong.

`minunet train` writes these entries (`minunet.training.folder`); `predict`, `models` and `train --resume` read them. An
entry that is not there is no fault here: programs that save checkpoints of their own may leave out what they do not
have.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from minunet.cli import PRECISIONS
from minunet.data.align import REACH
from minunet.errors import UserError
from minunet.models.base import Network

REMEDY = "take a checkpoint as minunet train wrote it"
SHOWN = 60  # characters of a wrong entry in the message
LARGEST = 1_000_000  # pixels of an image's side


def check(path: str | os.PathLike[str], extra: Mapping[str, Any], model: Network) -> None:
    """Raise UserError (one line: file, entry, what it must be) unless the entries of `extra` that are there are what
    `minunet train` writes for this network.
    """
    for name, (fits, words) in _entries(model).items():
        if name in extra and not fits(extra[name]):
            raise UserError(f"{path}: its {name} is {brief(extra[name])}, but must be {words}; {REMEDY}")


def brief(value: Any) -> str:
    """A value from a file, short and on one line."""
    text = ascii(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def whole(value: Any, low: int = 0) -> bool:
    """Whether a value is an integer, at least `low`."""
    return type(value) is int and value >= low


def number(value: Any, low: float = -math.inf) -> bool:
    """Whether a value is a finite real number, at least `low`."""
    return type(value) in (int, float) and -1e300 < value < 1e300 and value >= low


def _entries(model: Network) -> dict[str, tuple[Callable[[Any], bool], str]]:
    """{entry: (whether a value fits, in words)}."""
    classes = max(2, model.config["n_classes"])  # one output is the logit of the second of two classes
    text = lambda value: isinstance(value, str)  # noqa: E731
    return {
        "normalise": (
            lambda v: text(v) or (isinstance(v, Mapping) and _statistics(v, model)),
            "the name of a way, or mean and sd",
        ),
        "displaced": (
            lambda v: v is None or _list(v, 2, lambda n: number(n, -REACH) and n <= REACH),
            f"None, or two distances of at most {REACH} pixels",
        ),
        "size": (
            lambda v: v is None or _list(v, 2, lambda n: whole(n, 1) and n <= LARGEST),
            f"height and width, 1 to {LARGEST:,}",
        ),
        "classes": (lambda v: _list(v, classes, text), f"the names of {classes} classes"),
        "colours": (
            lambda v: _list(v, classes, lambda c: _list(c, 3, lambda n: whole(n) and n < 256)),
            f"{classes} colours, each three numbers of 0 to 255",
        ),
        "labels": (lambda v: v is None or isinstance(v, Mapping), "a table"),
        "synthetic": (lambda v: type(v) is bool, "true or false"),
        "data": (lambda v: isinstance(v, Mapping) and all(map(text, v.values())), "texts by name"),
        "threads": (lambda v: whole(v, 1), "a number of threads"),
        "backend": (text, "a name"),
        "precision": (lambda v: text(v) and v in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
        "versions": (lambda v: isinstance(v, Mapping) and all(map(text, v.values())), "texts by name"),
        "config": (lambda v: isinstance(v, Mapping), "settings by name"),
        "state": (lambda v: isinstance(v, Mapping), "values by name"),
    }


def _list(value: Any, count: int, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(map(fits, value))


def _statistics(value: Mapping[str, Any], model: Network) -> bool:
    """Whether this is mean and sd of all pixels, or of each channel that the network takes."""
    mean, sd = value.get("mean"), value.get("sd")
    if isinstance(mean, list) and isinstance(sd, list):
        fits = len(mean) == len(sd) and len(mean) in {1, *model.channels}
        return fits and all(map(number, mean)) and all(number(s) and s > 0 for s in sd)
    return number(mean) and number(sd) and sd > 0


# ---------------------------------------------------------------------------------------------- where a run stands

_TEXTS = {"text": lambda v: isinstance(v, str), "layer": lambda v: isinstance(v, str)}
_ROWS = {  # a list of records with these keys
    "health": ("step", "dead", "worst", "layer"),
    "notes": ("step", "text"),
    "log": ("step", "seconds", "learning_rate"),
}


def check_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Raise UserError unless the entries of a run's state that are there are of the kinds that
    `minunet.training.loop.State` has.
    """
    for name, value in state.items():
        if not _state_fits(name, value):
            raise UserError(f"{path}: its state's {name} is {brief(value)}, which no run can have; {REMEDY}")


def _state_fits(name: str, value: Any) -> bool:
    if name in ("step", "validations"):
        return whole(value)
    if name in ("seconds", "waiting"):
        return number(value, 0)
    if name == "pending":
        return isinstance(value, list) and all(map(number, value))
    if name == "best":
        return value is None or _row(value, ("step", "score"))
    if name in _ROWS:
        return isinstance(value, list) and all(_row(row, _ROWS[name]) for row in value)
    return True  # what is not known is refused by State itself


def _row(value: Any, needed: tuple[str, ...]) -> bool:
    """Whether this is a record of numbers (NaN: a score that was none), but for its texts, with all that is needed."""
    if not isinstance(value, Mapping) or not all(key in value for key in needed) or not whole(value["step"]):
        return False
    return all(_TEXTS[k](v) if k in _TEXTS else type(v) in (int, float) for k, v in value.items())
