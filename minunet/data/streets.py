"""Drawn street scenes: a stand-in for CamVid, for tests and for trying things out without data.

Far easier than real roads, so scores on it mean nothing.
"""

from __future__ import annotations

import numpy as np

from minunet.data.camvid import CLASSES as CAMVID
from minunet.data.dataset import IGNORE, Dataset
from minunet.data.download import pixels_sha256
from minunet.errors import UserError

CLASSES = {name: CAMVID[name] for name in ("sky", "building", "pole", "road", "pavement", "tree", "car")}
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, CAR = range(len(CLASSES))
_LOOKS = np.array(  # mean colour of each class as the camera sees it
    [(170, 195, 225), (140, 110, 95), (90, 90, 95), (95, 95, 100), (160, 150, 145), (65, 95, 50), (60, 40, 90)]
)


def synthetic_streets(count: int = 150, size: tuple[int, int] = (90, 120), seed: int = 0) -> Dataset:
    """`count` scenes uint8 (S, H, W, 3) with labels of 7 classes, IGNORE on the car's own bonnet at the bottom.

    Sky, houses, trees and poles stand above the horizon, a road between pavements and cars below it. Light, colours and
    places differ from scene to scene. The first four fifths are "train", the rest "val". The same seed gives the same
    scenes. Raises UserError for fewer than 2 scenes or a side below 8.
    """
    if count < 2 or min(size) < 8:
        raise UserError(f"synthetic streets: {count} scenes of {size}; there must be 2 or more, 8 x 8 or larger")
    scenes = [_scene(np.random.default_rng([seed, s]), *size) for s in range(count)]
    images, labels = (np.stack(arrays) for arrays in zip(*scenes))
    cut = min(count - 1, max(1, round(0.8 * count)))
    return Dataset(
        images,
        labels,
        "streets",
        True,
        f"SYNTHETIC street scenes, drawn with seed {seed}: no real data",
        pixels_sha256(images, labels),
        tuple(CLASSES),
        tuple(CLASSES.values()),
        "classes",
        {"train": np.arange(cut), "val": np.arange(cut, count)},
        tuple(f"scene {s}" for s in range(count)),
    )


def _scene(rng: np.random.Generator, H: int, W: int) -> tuple[np.ndarray, np.ndarray]:
    i, j = np.mgrid[:H, :W] + 0.5
    i, j = i / H, j / W  # (H, W), 0 .. 1 from the top left
    horizon, centre = rng.uniform(0.35, 0.5), rng.uniform(0.35, 0.65)
    labels = np.full((H, W), SKY, np.uint8)
    for left in np.arange(0, 1, 0.2):
        labels[(j >= left) & (j < left + 0.2) & (i > horizon - rng.uniform(-0.05, 0.35))] = BUILDING
    for _ in range(rng.integers(1, 4)):
        radius = rng.uniform(0.05, 0.14)
        labels[(i - horizon + radius) ** 2 + (j - rng.random()) ** 2 < radius**2] = TREE
    below = i > horizon
    depth = np.clip((i - horizon) / (1 - horizon), 0, 1)  # 0 at the horizon, 1 at the camera
    aside = np.abs(j - (centre + depth * (0.5 - centre)))
    labels[below] = BUILDING
    labels[below & (aside < 0.08 + 0.62 * depth)] = PAVEMENT
    labels[below & (aside < 0.05 + 0.42 * depth)] = ROAD
    for _ in range(rng.integers(0, 3)):
        near = rng.uniform(0.1, 0.6)
        row, column = horizon + near * (1 - horizon), centre + rng.uniform(-0.3, 0.3) * near
        labels[(np.abs(i - row) < 0.02 + 0.12 * near) & (np.abs(j - column) < 0.02 + 0.14 * near)] = CAR
    for _ in range(rng.integers(1, 3)):
        labels[(np.abs(j - rng.random()) < max(0.012, 0.6 / W)) & (i > 0.1) & (i < horizon + 0.15)] = POLE

    looks = _LOOKS + rng.normal(0, 12, _LOOKS.shape)
    image = looks[labels] + 25 * (0.5 - i)[..., None] + rng.normal(0, 9, (H, W, 1)) + rng.normal(0, 5, (H, W, 3))
    image = image * rng.uniform(0.75, 1.2) + rng.uniform(-15, 15)
    labels[i > 0.97] = IGNORE
    return np.clip(image, 0, 255).astype(np.uint8), labels
