"""One run to a folder: a second one that writes there too would mix its files with those of the first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minunet.errors import UserError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside the block no other process gets past here with this folder. Raises UserError where one is inside.

    The lock is on the folder itself, so that no file is left behind; the system lets go of it when the process ends,
    however it ends. File systems that lock no folders (NFS) keep nobody out.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not _locked(handle):
            raise UserError(f"{folder}: another run is writing there; wait until it ends, or give another --out")
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    """Whether nobody else has the lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here at all
        return True
    return True
