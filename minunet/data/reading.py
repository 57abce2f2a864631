"""Sections of an image file as a network sees them, a window at a time, normalised as whole sections are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minunet.data.align import displaced_window
from minunet.data.mapped import forget, is_mapped, open_image
from minunet.data.sections import as_sections, network_input
from minunet.data.tiles import window
from minunet.errors import UserError

CHUNK = 1 << 20  # numbers that statistics look at in one go
BAND = 64  # rows of a mapped image that are read in one go: the system maps 16 pages around each that is touched


class SectionFile:
    """A file's sections. `shape` is (S, H, W, C) as the network takes them; an array (S, H, W, C) is taken too.

    Raises UserError where the file cannot be read, or does not suit a network of `channels` input channels.
    """

    def __init__(self, file: str, channels: int, trained: Mapping[str, Any], scratch: str | None = None):
        self.file, self.trained = file, trained
        self.pixels = as_sections(file, open_image(file, scratch), channels)
        self.shape = self.pixels.shape
        self.decoded = 0 if is_mapped(self.pixels) else 2 * self.pixels.nbytes  # bytes in memory; decoders take as much
        self.size = None if trained.get("size") is None else tuple(trained["size"])  # that the network wants
        self._section = -1
        self._moments: list[tuple[float, float]] | None = None
        self._resized: np.ndarray | None = None

    @property
    def seen(self) -> tuple[int, int]:
        """(H, W) of what `read` reads from."""
        return self.size or self.shape[1:3]

    def choose(self, s: int) -> None:
        """Read from section s from now on. Raises UserError for NaN and infinite values."""
        if s == self._section:
            return
        self._section = s
        if self.size is not None and self.size != self.shape[1:3]:
            self._resized = network_input(_native(self.pixels[s]), self.trained, self.file)
        elif self.trained.get("normalise", "section") == "section":
            self._moments = [_moments(self.pixels[s, :, :, c], self.file) for c in range(self.shape[3])]

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """That window (height, width, C), float32, normalised and displaced as in training, mirrored beyond the edges
        of the section.
        """
        place = (top, left, height, width)
        by = self.trained.get("displaced")
        return self._normalised(*place) if by is None else displaced_window(self._normalised, self.seen, by, place)

    def _normalised(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """As `read`, in the image's own place."""
        if self._resized is not None:
            return window(self._resized, top, left, height, width)
        x = self.raw(top, left, height, width)
        if self._moments is None:
            return network_input(x, {**self.trained, "size": None}, self.file)
        out = np.empty(x.shape, np.float32)
        for c, (mean, sd) in enumerate(self._moments):
            out[..., c] = (x[..., c].astype(np.float64) - mean) / sd if sd > 0 else 0
        return out

    def raw(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """That window of the chosen section's own pixels."""
        section = self.pixels[self._section]
        if not is_mapped(section):
            return window(section, top, left, height, width)
        x = np.empty((height, width, section.shape[2]), section.dtype.newbyteorder("="))
        for i in range(0, height, BAND):
            x[i : i + BAND] = window(section, top + i, left, min(BAND, height - i), width)
            forget(section)
        return x

    def sample(self, most: int = 1 << 18) -> np.ndarray:
        """About `most` pixels of the chosen section (h, w, C), evenly spread."""
        section = self.pixels[self._section]
        step = max(1, int((section.shape[0] * section.shape[1] / most) ** 0.5))
        rows = range(0, section.shape[0], BAND * step)
        bands = []
        for i in rows:
            bands.append(_native(np.array(section[i : i + BAND * step : step, ::step])))
            forget(section)
        return np.concatenate(bands)


def _moments(plane: np.ndarray, file: str) -> tuple[float, float]:
    """Mean and sd of (H, W), the latter 0 where all pixels are equal; of one chunk exactly `normalise`'s."""
    rows = max(1, CHUNK // plane.shape[1])
    starts = range(0, plane.shape[0], rows)
    total, low, high = 0.0, np.inf, -np.inf
    for i in starts:
        x = plane[i : i + rows].astype(np.float64)
        forget(plane)
        if not np.isfinite(x).all():
            raise UserError(f"{file}: holds NaN or infinite values; replace them and save it again")
        low, high = min(low, x.min()), max(high, x.max())
        if len(starts) == 1:
            return float(x.mean()), float(x.std()) if low < high else 0.0
        total += float(x.sum())
    mean, squares = total / plane.size, 0.0
    for i in starts:
        x = plane[i : i + rows].astype(np.float64)
        forget(plane)
        squares += float(np.square(x - mean).sum())
    return mean, (squares / plane.size) ** 0.5 if low < high else 0.0


def _native(x: np.ndarray) -> np.ndarray:
    return np.asarray(x).astype(x.dtype.newbyteorder("="), copy=False)
