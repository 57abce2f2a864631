"""Files that are either whole or not there: write under a temporary name, then rename. And where caches lie."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from minunet.errors import UserError, reason, remedy

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


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
    it was. What a killed process left behind is removed by the next write of the same file. The temporary name
    ends in ".tmp": name the format where a library guesses it from the ending, and open the path yourself where a
    library (numpy.save) appends one.

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

    tmp, held = _temporary(target), None
    try:
        held = _held(tmp)
        yield tmp
        with tmp.open("rb+") as file:
            os.fsync(file.fileno())
        tmp.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        if error.filename is not None and str(error.filename) != str(tmp):
            raise  # the block's own trouble with another file
        raise UserError(f"{path}: cannot be written ({reason(error)}){remedy(error)}") from error
    finally:
        _remove(tmp)
        if held is not None:
            held.close()


def second_name(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> None:
    """Let `other` be a second name of the file that `path` now is: it stays when `path` gets another file.

    At once and without space, or by a copy where files have one name only; `other` is its old file or this one at every
    moment. Raises UserError when the disk refuses.
    """
    source, target = Path(os.path.realpath(path)), Path(other)
    if target.exists() and target.samefile(source):
        return
    try:
        tmp = _temporary(target)
        os.link(source, tmp)
    except OSError:  # such as FAT
        with atomic_write(target) as copy:
            shutil.copyfile(source, copy)
        return
    try:
        tmp.replace(target)
    except OSError as error:
        raise UserError(f"{other}: cannot be written ({reason(error)}){remedy(error)}") from error
    finally:
        _remove(tmp)


def remove_left_over(path: str | os.PathLike[str]) -> None:
    """Remove what killed writers of `path` left beside it, for a file that may not be written again."""
    target = Path(path)
    _remove_left_over(target.parent, f".{target.name[:180]}.")


def _remove(tmp: Path) -> None:
    """Remove a temporary file, if it is there: on a read-only disk, removing nothing is an error of its own."""
    if tmp.exists():
        tmp.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    """A free name beside `target`, once what dead writers of `target` left behind is removed."""
    start = f".{target.name[:180]}."
    _remove_left_over(target.parent, start)
    return target.with_name(f"{start}{secrets.token_hex(4)}.tmp")


def _held(tmp: Path) -> BinaryIO | None:
    """Make the file, with the permissions that the user's umask gives, and hold its lock for as long as it is written:
    the system lets go of a lock when its process ends, however it ends.
    """
    while True:
        file = tmp.open("xb")
        if fcntl is None:  # where files that are open cannot be renamed
            file.close()
            return None
        fcntl.flock(file, fcntl.LOCK_EX)
        if tmp.exists():
            return file
        file.close()  # taken for a left-over before it was locked


def _remove_left_over(folder: Path, start: str) -> None:
    """Remove the temporary files of this beginning whose writers are gone: nobody holds their locks."""
    if fcntl is None or not os.access(folder, os.R_OK):
        return
    for name in os.listdir(folder):
        if not (name.startswith(start) and name.endswith(".tmp") and len(name) == len(start) + 12):
            continue
        try:
            with open(folder / name, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (folder / name).unlink(missing_ok=True)
        except OSError:  # its writer lives, or has just renamed it, or it is not ours to remove
            continue


def _sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` last through a power cut, where the system lets folders be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
