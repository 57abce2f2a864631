"""The log as TensorBoard's event files, where a package that writes them is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WRITERS = (("tensorboardX", "SummaryWriter"), ("tensorboard.summary", "Writer"))


def write_events(folder: Path, log: Sequence[Mapping[str, Any]]) -> bool:
    """Write all rows of the log to folder/tensorboard, in place of what is there; False where no package does it."""
    found = [(module, name) for module, name in WRITERS if find_spec(module.split(".")[0]) is not None]
    if not found:
        return False
    module, name = found[0]
    where = folder / "tensorboard"
    for file in where.glob("events.out.tfevents.*"):
        file.unlink()
    writer = getattr(import_module(module), name)(str(where))
    for row in log:
        for column in row.keys() - {"step", "seconds"}:
            writer.add_scalar(column, row[column], row["step"])
    writer.close()
    return True
