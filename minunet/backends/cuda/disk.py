"""Compiled kernels on disk: cubins and host libraries, each under a hash of all that went into it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from minunet.files import atomic_write, cache_folder

KEEP_DAYS = 30  # what was compiled from other versions of the source goes after so long without use


@lru_cache
def folder() -> Path:
    """Where compiled kernels are kept, made; a folder of this process alone where the user's cache is not writable."""
    path = cache_folder() / "cuda"
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="minunet-cuda-"))
    oldest = time.time() - KEEP_DAYS * 86400
    for other in path.iterdir():
        try:
            if other.stat().st_mtime < oldest:
                other.unlink()
        except FileNotFoundError:  # another process removed it, or has renamed its temporary file
            continue
    return path


def entry(name: str, make: Callable[[Path], None]) -> Path:
    """The file `name` of the cache, written by `make(temporary path)` where it is not there yet.

    Two processes that make it at once both write, under names of their own; the later rename wins, with the same
    bytes. A failed `make` leaves nothing.
    """
    path = folder() / name
    if path.is_file():
        os.utime(path)  # in use
    else:
        with atomic_write(path) as temporary:
            make(temporary)
    return path
