"""Where a backend keeps the function for each row: under the row's name, in the module of the row's stem."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from importlib import import_module
from typing import Any

from minunet.contract import ROWS


def by_row(package: str) -> dict[str, Callable[..., None]]:
    """{row name: function}, `package`.stem.name for every row: conv2d is minunet.backends.cpu.conv.conv2d."""
    return {row.name: getattr(import_module(f"{package}.{row.stem}"), row.name) for row in ROWS.values()}


def bind(package: str, device: Any) -> dict[str, Callable[..., None]]:
    """`by_row` of launchers, which take the device they launch on first."""
    return {name: update_wrapper(partial(f, device), f) for name, f in by_row(package).items()}
