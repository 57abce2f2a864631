"""Files that are either whole or not there: write under a temporary name, then rename. And where caches lie."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minunet.errors import UserError


def cache_folder() -> Path:
    """Where downloads and compiled kernels are kept: $MINUNET_CACHE, $XDG_CACHE_HOME/minunet or ~/.cache/minunet."""
    own = os.environ.get("MINUNET_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minunet"


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; rename it to `path` once the block has ended well.

    The file's bytes reach the disk (fsync) before the rename, and the rename is atomic, so that after a crash
    `path` is the old file or the new one. If the block raises, the temporary file is removed and `path` is as
    it was. The temporary name ends in ".tmp": name the format where a library guesses it from the ending, and
    open the path yourself where a library (numpy.save) appends one.

    Raises UserError when the folder is missing, `path` is not a plain file, or the disk refuses.

    >>> with atomic_write("runs/log.json") as tmp:
    ...     tmp.write_text("{}")
    """
    target = Path(os.path.realpath(path))  # a link stays a link: the file it points to is replaced
    if not target.parent.is_dir():
        raise UserError(f"{path}: cannot be written, since its folder does not exist; make the folder first")
    if target.exists() and not target.is_file():
        kind = "a folder" if target.is_dir() else "not a plain file"
        raise UserError(f"{path}: cannot be written, since it is {kind}; choose another file name")

    tmp = target.with_name(f".{target.name[:180]}.{secrets.token_hex(4)}.tmp")
    try:
        tmp.open("xb").close()  # takes the name, with the permissions that the user's umask gives
        yield tmp
        with tmp.open("rb+") as file:
            os.fsync(file.fileno())
        tmp.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        if error.filename not in (None, str(tmp)):
            raise  # the block's own trouble with another file
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        tmp.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` last through a power cut, where the system lets folders be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
