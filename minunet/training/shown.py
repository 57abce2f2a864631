"""Images of any type and size as pictures of one size, for the eye only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minunet.data.dataset import resize_image, resize_labels

LARGEST = 640  # pixels: height and width of a picture


def alike(
    images: Sequence[np.ndarray], truth: Sequence[np.ndarray], found: Sequence[np.ndarray], largest: int = LARGEST
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(images uint8 (S, h, w[, C]), truth, found (S, h, w)): of the first one's size, sides of `largest` at most; 8-bit
    images of that size stay as they are, others are stretched between their 1st and 99th percentile.
    """
    h, w = truth[0].shape
    shrink = min(1.0, largest / max(h, w))
    size = (max(1, round(h * shrink)), max(1, round(w * shrink)))
    pictures = [resize_image(_eight_bits(image), size) for image in images]
    return np.stack(pictures), *(np.stack([resize_labels(m, size) for m in maps]) for maps in (truth, found))


def _eight_bits(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    low, high = np.percentile(image, (1, 99))
    scale = 255 / (high - low) if high > low else 0.0
    return np.clip((image.astype(np.float64) - low) * scale, 0, 255).astype(np.uint8)
