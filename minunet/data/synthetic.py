"""A stand-in for electron micrographs: a drawn stack of membranes, for use where no data can be had.

Good for trying everything out and for tests. It is far easier than real tissue, so scores on it mean nothing.
"""

from __future__ import annotations

import numpy as np

from minunet.errors import UserError

SPACING = 46  # px between cell centres, so that about 22 % of the pixels are membrane, as in ISBI 2012


def synthetic_membranes(sections: int = 30, size: int = 512, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (S, size, size) and labels uint8 (S, size, size): 0 = membrane, 1 = cell interior.

    Cells are the power diagram of wandering centres in a smoothly warped plane, so that walls are curved and
    drift from section to section; walls are about 3 to 7 px wide and of varying darkness. Cytoplasm has grain at three
    scales, some cells a mitochondrion; brightness and contrast differ between sections. The same seed gives the
    same stack.
    """
    from minunet.data.drawing import wall_distance

    if sections < 1 or size < 1:
        raise UserError(f"synthetic stack: {sections} sections of {size} px; both must be 1 or more")
    rng = np.random.default_rng(seed)
    n = size // SPACING + 8  # a rim of 3 cells and the warp lie outside the picture
    wander = rng.uniform(0, 2 * np.pi, (2, n, n))  # phase of each centre's orbit
    speed = rng.choice([-1.0, 1.0], (2, n, n)) * rng.uniform(0.1, 0.35, (2, n, n))  # radians per section
    reach = rng.uniform(0.15, 0.45, (2, n, n)) * SPACING
    power = rng.uniform(0, (0.45 * SPACING) ** 2, (n, n))  # a cell grows with it
    tone = rng.normal(0, 9, (n, n)).astype(np.float32)
    organelle = np.where(rng.random((n, n)) < 0.3, rng.uniform(6, 12, (n, n)), 0.0)  # radius, 0 = none
    warp = [_Drift(rng, size, 32), _Drift(rng, size, 32)]
    width, dark = _Drift(rng, size, 40), _Drift(rng, size, 64)

    images = np.empty((sections, size, size), np.uint8)
    labels = np.empty((sections, size, size), np.uint8)
    for s in range(sections):
        centres = (np.indices((n, n)) - 2.5) * SPACING + reach * np.sin(wander + speed * s)  # (2, n, n)
        half = 2.5 + 0.5 * np.clip(width(s), -1, 1)  # half the wall's width in the unwarped plane: 2 to 3 px
        depth, cell, blob = wall_distance(centres, power, organelle, 6 * warp[0](s), 6 * warp[1](s), SPACING, 3)
        labels[s] = depth > half

        grain = 10 * _smooth(rng, size, 2) + 8 * _smooth(rng, size, 5) + 6 * _smooth(rng, size, 80)
        body = 150 + tone.ravel()[cell] + grain
        body -= 45 * np.clip(1 - blob, 0, 0.25) * 4 * (1 + 0.3 * np.cos(9 * blob))  # blob: 0 centre, 1 rim
        wall = 1 / (1 + np.exp((depth - half) / 0.7))  # 1 in the middle of a wall, 1/2 at its edge
        body -= wall * (75 + 18 * np.clip(dark(s), -2, 2))
        body += 14 * rng.standard_normal((size, size), np.float32)
        gain, shift = rng.uniform(0.85, 1.15), rng.uniform(-22, 22)
        images[s] = np.clip((body - 126) * gain + 126 + shift, 0, 255)
    return images, labels


class _Drift:
    """A smooth random field (size, size), mean 0 and sd about 1, that changes slowly from section to section."""

    def __init__(self, rng: np.random.Generator, size: int, scale: int) -> None:
        self.spread = _spread(size, scale)
        shape = (self.spread.shape[1],) * 2
        self.a, self.b = rng.normal(0, 1 / 0.47, (2, *shape))
        self.speed = rng.uniform(0.05, 0.2, shape)

    def __call__(self, s: int) -> np.ndarray:
        nodes = self.a * np.cos(self.speed * s) + self.b * np.sin(self.speed * s)
        return self.spread @ nodes @ self.spread.T


def _smooth(rng: np.random.Generator, size: int, scale: int) -> np.ndarray:
    """White noise at nodes `scale` px apart, made smooth by cubic B-splines: (size, size), sd about 1."""
    spread = _spread(size, scale)
    nodes = rng.standard_normal((spread.shape[1],) * 2, np.float32) / np.float32(0.47)
    return spread @ nodes @ spread.T


def _spread(size: int, scale: int) -> np.ndarray:
    """The cubic B-splines of nodes `scale` px apart at `size` pixels: float32 (size, nodes).

    A field made from white noise of sd 1 by them along both axes has sd 0.47 on average.
    """
    t = np.arange(size)[:, None] / scale - np.arange(-1, (size - 1) // scale + 3)[None, :]
    a = np.abs(t)
    inner, outer = 2 / 3 - a**2 + a**3 / 2, np.clip(2 - a, 0, None) ** 3 / 6
    return np.where(a < 1, inner, outer).astype(np.float32)
