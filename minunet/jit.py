"""`njit` with a cache on disk that notices every change. Also: how threads wait.

Numba keeps compiled code under a hash of the function's own file. But the code of one function holds those that it
calls and the constants that it reads, from other files: change those, and a stale block size writes past the end of
a buffer. So compiled code lies in a folder named by a hash over all files of the package folder that it comes from,
and of the formulas.py beside that folder, if there is one; compiled functions call none of another file.

Where: NUMBA_CACHE_DIR if set, else the user's cache (`minunet.files.cache_folder`), else (not writable) where Numba
puts it by itself, else (nothing is) nowhere: then every process compiles anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

# GNU OpenMP's threads spin while they wait for the next loop. On a busy machine a spinning thread holds the core that
# the last worker of the loop needs. A width-16 U-Net's step on two cores took (median, ms) alone / beside one busy
# process / beside several programs with threads: spinning as by default 46 / 100 / over 500, sleeping at once 60 / 80 /
# 90, sleeping after 2000 turns 50 / 97 / 70 to 110. Read when Numba starts its threads, which is later than this line;
# the user's own settings stand.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import numba
from numba import config

from minunet.files import cache_folder

# Numba takes TBB where some other package (OpenVINO) has loaded it: small calls then take up to twice as long.
if not any(name.startswith("NUMBA_THREADING_LAYER") for name in os.environ):
    config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]

KEEP_DAYS = 30  # code of other versions of the source goes after so long without use


@lru_cache
def folder(source: Path) -> Path | None:
    """The folder for code compiled from the files in `source`, made; None where it cannot be written."""
    digest = hashlib.sha256(numba.__version__.encode())
    for file in (*sorted(source.glob("*.py")), *source.parent.glob("formulas.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    base = Path(config.CACHE_DIR) if config.CACHE_DIR else cache_folder()
    path = base / "kernels" / f"{source.name}-{digest.hexdigest()[:16]}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
        os.utime(path)  # in use
    except OSError:
        return None
    for other in path.parent.iterdir():
        if other != path and time.time() - other.stat().st_mtime > KEEP_DAYS * 86400:
            shutil.rmtree(other, ignore_errors=True)
    return path


def compiled(source: Path) -> bool:
    """Whether an earlier run has left code compiled from several files in `source`: `minunet check` compiles of one."""
    path = folder(source)
    return path is not None and len({file.name.partition(".")[0] for file in path.rglob("*.nbi")}) > 1


def njit(function: Callable | None = None, **options: Any) -> Any:
    """`numba.njit(cache=True, **options)`, cached in `folder`. With or without parentheses, as numba's."""
    if function is None:
        return lambda f: njit(f, **options)
    before, own = config.CACHE_DIR, folder(Path(function.__code__.co_filename).parent)
    config.CACHE_DIR = before if own is None else str(own)  # read when the function is decorated
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # Numba found no place either: another user's installation, and no home of one's own
        if own is not None:
            raise
        return numba.njit(**options)(function)
    finally:
        config.CACHE_DIR = before
