"""Who unpacks a TIFF's pixels: tifffile, and Pillow where tifffile would need another package. Both keep quiet."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_log = threading.Lock()  # tifffile's one logger serves the whole process


@contextmanager
def quiet_tifffile() -> Iterator[list[str]]:
    """Collect what tifffile logs as errors, out of sight: it logs a broken page list and reads on."""
    complaints: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            complaints.append(record.getMessage())
        return False

    logger = logging.getLogger("tifffile")
    with _log:
        logger.addFilter(collect)
        try:
            yield complaints
        finally:
            logger.removeFilter(collect)


def by_pillow(path: str | os.PathLike[str], pages: int, white_is_zero: bool) -> np.ndarray:
    """The pixels of a TIFF of so many pages packed by LZW, JPEG, PackBits or fax, as they are stored.

    white_is_zero : what the pages say of their numbers, and why Pillow inverts those of 8 bits and less
    """
    from PIL import Image, ImageSequence

    with _silent_libtiff(), Image.open(path, formats=["TIFF"]) as image:
        frames = [np.array(frame) for frame in ImageSequence.Iterator(image)]
    if len(frames) != pages:
        raise ValueError(f"{len(frames)} of {pages} pages")
    pixels = frames[0] if pages == 1 else np.stack(frames)
    return ~pixels if white_is_zero and pixels.dtype in (np.bool_, np.uint8) else pixels


@contextmanager
def _silent_libtiff() -> Iterator[None]:
    """Keep libtiff's remarks off the terminal: its C code writes to file 2, so file 2 is put aside."""
    if sys.stderr is None:  # a program without a terminal
        yield
        return
    with warnings.catch_warnings(), open(os.devnull, "wb") as nowhere:
        warnings.simplefilter("ignore")
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
