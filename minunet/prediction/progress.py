"""How far a prediction has come, in a small file beside its results, so that a killed one can go on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minunet.errors import UsageError
from minunet.files import atomic_write
from minunet.models.base import Network
from minunet.prediction.stores import Store

EVERY = 5.0  # seconds between syncs
BEFORE, DIGITS = '{"done": ', 12


class Progress:
    """`done` tiles of a prediction are on the disk. What it depends on is `about`, as JSON says it.

    The record is made before the first tile, and its number is then written over in its place: so a disk that has
    become full cannot keep it from saying what is there. Raises UsageError where the prediction that is to be resumed
    is another one.
    """

    def __init__(self, path: Path, about: dict[str, Any], resume: bool):
        self.path, self.about, self.done = path, json.loads(json.dumps(about)), 0
        self._last = time.monotonic()
        if not path.exists():
            return
        kept = _read(path) if resume else {}
        for key, value in self.about.items() if kept else ():
            if kept["about"].get(key) != value:
                raise UsageError(
                    f"{path}: is of a prediction with another {key} ({kept['about'].get(key)}, now {value}); give the "
                    "same, or leave out --resume to begin anew"
                )
        self.done = kept.get("done", 0)

    def begin(self) -> None:
        """Make the record. Raises UserError where the folder refuses it."""
        with atomic_write(self.path) as tmp:
            tmp.write_text(f'{BEFORE}{self.done:{DIGITS}d}, "about": {json.dumps(self.about)}}}\n', encoding="utf-8")

    def advance(self, stores: Iterable[Store]) -> None:
        """One more tile is written; now and then this reaches the disk, after the tiles themselves."""
        self.done += 1
        if time.monotonic() - self._last >= EVERY:
            self.keep(stores)

    def keep(self, stores: Iterable[Store]) -> None:
        """Bring the tiles to the disk, then their number, if there is a record."""
        for store in stores:
            store.sync()
        if self.path.exists():
            with self.path.open("rb+", buffering=0) as file:
                file.seek(len(BEFORE))
                file.write(f"{self.done:{DIGITS}d}".encode())
                os.fsync(file.fileno())
        self._last = time.monotonic()

    def end(self) -> None:
        """All is finished, or given up: the record goes."""
        self.path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """The record; empty where it is none of ours."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept if isinstance(kept["about"], dict) and isinstance(kept["done"], int) else {}
    except (ValueError, KeyError, TypeError):
        return {}


def weights_digest(model: Network) -> str:
    """sha256 of a network's weights and statistics."""
    digest = hashlib.sha256()
    for name, array in model.state_dict().items():
        digest.update(name.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def identity(file: str) -> list[int]:
    """Size and time of change of a file."""
    status = os.stat(file)
    return [status.st_size, status.st_mtime_ns]
