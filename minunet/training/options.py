"""From what the user gave to a Config: options win over the preset, that over the data set's defaults, and those over
the network's own and Config's.
"""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from minunet import models
from minunet.errors import UsageError, UserError
from minunet.training.config import CLASS_WEIGHTED, Config
from minunet.training.defaults import CELLS, DATASETS, FULL, SCENES, SMALL, UNET
from minunet.training.presets import recipe

BUDGETS = ("steps", "epochs", "minutes")
FIXED = {"in_channels": "follows from the data", "n_classes": "follows from the data and --loss", "seed": "is --seed"}


def configure(given: Mapping[str, Any], model_args: Iterable[str] = ()) -> Config:
    """The Config that the given options describe. Raises UsageError for what does not go together.

    given      : fields of Config by name, only those that the user set, "dataset" among them
    model_args : "key=value" texts: further arguments of the network
    """
    data = DATASETS[given["dataset"]]
    data = data._replace(n_classes=given.get("n_classes") or data.n_classes)
    network = given.get("model") or data.settings.get("model", Config.model)
    try:
        signature = inspect.signature(models.network_class(network).__init__).parameters
        extra = _arguments(network, signature, model_args)
        own = {} if network == Config.model else dict.fromkeys(UNET) | {"width": _width(network, signature)}
        asked = recipe(network, given.get("preset", ""), data.n_classes) | dict(given)
        suited = (CELLS if data.n_classes == 2 else SCENES).get(network, {})
        chosen = own | suited | data.settings | asked
        if "class_weights" not in asked and chosen.get("loss", Config.loss) not in CLASS_WEIGHTED:
            chosen["class_weights"] = "none"  # the data set's own are for the losses that take them
        for name in UNET:
            if name in extra and not isinstance(extra[name], list):
                chosen[name] = extra.pop(name)
            elif name in given and name not in signature:
                raise UserError(f"--{name} {given[name]}: {_unknown(network, name, signature)}")
            elif name in given and isinstance(signature[name].default, tuple):
                default = ",".join(map(str, signature[name].default))
                raise UserError(f"--{name} {given[name]}: {network} has several; write --model-arg {name}={default}")
            elif name not in signature or name in extra:
                chosen[name] = None
        if not any(b in chosen for b in BUDGETS):
            chosen["steps"] = data.steps
        return Config(**chosen, model_args=extra)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _width(network: str, signature: Mapping[str, inspect.Parameter]) -> int | None:
    """The width of a network that the user did not choose: small; None: its own."""
    if network in FULL or "width" not in signature:
        return None
    return max(1, signature["width"].default // SMALL)


def _arguments(network: str, signature: Mapping[str, inspect.Parameter], texts: Iterable[str]) -> dict[str, Any]:
    """The values of "key=value" texts, each of the type that the network's argument has."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--model-arg {text}: cannot be read; write KEY=VALUE, such as form=article")
        if key in FIXED:
            raise UserError(f"--model-arg {text}: {key} {FIXED[key]}; leave it out")
        if key not in _open(signature):
            raise UserError(f"--model-arg {text}: {_unknown(network, key, signature)}")
        found[key] = _typed(text, value, signature[key])
    return found


def _typed(text: str, value: str, parameter: inspect.Parameter) -> Any:
    """`value` as the type of the argument: a text stays one, the rest are Python's literals."""
    default, stated = parameter.default, str(parameter.annotation)
    if stated.split(" ")[0] == "str" or isinstance(default, str):
        return value
    words = {"yes": True, "true": True, "no": False, "false": False, "none": None}
    try:
        read = words[value.lower()] if value.lower() in words else ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise UserError(f"--model-arg {text}: {value} cannot be read; it is to be {stated}") from error
    if isinstance(default, bool) and read in (0, 1):
        return bool(read)
    if isinstance(default, float) and type(read) is int:
        return float(read)
    if isinstance(read, tuple) and (default is None or isinstance(default, tuple)):
        return list(read)  # as it comes back from a checkpoint
    if default is not inspect.Parameter.empty and default is not None and type(read) is not type(default):
        raise UserError(f"--model-arg {text}: {value} is no {type(default).__name__}, as {default} is; correct it")
    return read


def _open(signature: Mapping[str, inspect.Parameter]) -> list[str]:
    """The arguments of a network that the user may choose."""
    return [name for name in signature if name != "self" and name not in FIXED]


def _unknown(network: str, name: str, signature: Mapping[str, inspect.Parameter]) -> str:
    known = _open(signature)
    close = difflib.get_close_matches(name, known, n=len(known), cutoff=0.4)
    return f"{network} has no argument {name}; it has {', '.join([*close, *(k for k in known if k not in close)])}"
