"""`minunet train folder`: the data set that the command line names, read before the run is planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from minunet.data.dataset import Dataset
from minunet.data.folder import load_folder
from minunet.errors import UsageError
from minunet.training.config import read_size

VAL = 0.2
FOLDERS = ("images", "masks", "val_images", "val_masks")


def read_own(given: Mapping[str, Any], show: Callable[[str], object] | None = None) -> Dataset:
    """The images and masks that the options name (fields of Config); `show` gets each line of what was paired.

    Raises UsageError for options that are missing, UserError for what is wrong with the files.
    """
    for name in ("images", "masks"):
        if not given.get(name):
            raise UsageError(f"train folder: --{name} is missing; name the folder that holds the {name}")
    return load_folder(
        given["images"],
        given["masks"],
        given.get("val_images"),
        given.get("val_masks"),
        VAL if given.get("val") is None else given["val"],
        labels=given.get("labels") or "",
        instances=bool(given.get("instances")),
        size=read_size(given.get("size") or ""),
        show=show,
    )
