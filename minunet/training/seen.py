"""What a validation has seen, image by image, for the report: confusion matrix, and the worst and best images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from minunet import metrics
from minunet.data import IGNORE, Dataset, instances_from_labels, paint, resize_labels
from minunet.metrics.pieces import MERGED, SPLIT, Pieces, pieces
from minunet.metrics.segments import TrueCells, rand_parts
from minunet.training.pictures import INVENTED, MISSED
from minunet.training.shown import alike

WORST, BEST = 3, 2  # images kept
WRONG = (240, 228, 66)
SIDE = 384  # pixels: height and width of a picture
GAP = 4


class Kept(NamedTuple):
    """An image of which the report shows everything."""

    score: float
    k: int  # which of the held-out images
    found: np.ndarray  # classes, uint8 (H, W)
    pieces: Pieces | None  # of cells


class Seen:
    """Class maps of the held-out images as they pass: what they add up to, and the pixels of a few.

    threshold : above which a probability was taken as the class, where that is how the maps were made
    Images are ranked, worst first: cells by the Rand F-score of the section's thinned segments, others by mean IoU.
    """

    def __init__(self, data: Dataset, held_out: np.ndarray, step: int, threshold: float = 0.5):
        self.data, self.held_out, self.step, self.threshold = data, held_out, step, threshold
        self.matrix = np.zeros((data.n_classes, data.n_classes), np.int64)
        self.kept: list[Kept] = []

    @property
    def measure(self) -> str:
        """What images are ranked by."""
        return "Rand F-score" if self.data.scored == "cells" else "mean IoU"

    def passing(self, predictions: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same probabilities (H, W, K), each looked at on its way."""
        for k, p in enumerate(predictions):
            self.add(k, likeliest(p))
            yield p

    def add(self, k: int, found: np.ndarray) -> None:
        """Take the class map uint8 (H, W) of held-out image k."""
        s = int(self.held_out[k])
        truth = self.data.labels[s]
        matrix = metrics.confusion_matrix(truth, found, self.data.n_classes)
        self.matrix += matrix
        score, parts = self._score(s, truth, found, matrix)
        if math.isfinite(score):
            self.kept.append(Kept(score, k, found, parts))
            self.kept.sort(key=lambda shown: shown[:2])
            del self.kept[WORST:-BEST]

    def _score(self, s: int, truth: np.ndarray, found: np.ndarray, matrix: np.ndarray) -> tuple[float, Pieces | None]:
        if self.data.scored == "cells":
            cells, segments = TrueCells(truth == 1), metrics.thin_borders(found == 1)
            if not cells.count:
                return math.nan, None
            agreed = cells.agreement(segments, int(segments.max()))
            return rand_parts(agreed.both, agreed.truth, agreed.predicted).f, pieces(cells.labels, segments)
        if not matrix.any():
            return math.nan, None
        score = metrics.scores(matrix).mean_iu
        if self.data.instances is None:
            return score, None
        return score, pieces(self.data.instances[s], instances_from_labels(found == 1))

    def picture(self, shown: Kept) -> np.ndarray:
        """Input, truth, prediction and errors side by side, uint8 (h, 4 w + gaps, 3), sides of SIDE at most.

        Errors: orange where cells are merged, blue where they are split, yellow where a pixel is wrong and does
        neither; without cells, orange where the class is wrong.
        """
        s = int(self.held_out[shown.k])
        image, truth, found = (
            a[0] for a in alike([self.data.images[s]], [self.data.labels[s]], [shown.found], largest=SIDE)
        )
        photo = image[..., :3] if image.ndim == 3 and image.shape[-1] >= 3 else np.atleast_3d(image)[..., :1]
        photo = np.broadcast_to(photo, (*photo.shape[:2], 3))
        counted = truth != IGNORE
        error = np.repeat((photo.mean(axis=2) // 2 + 110).astype(np.uint8)[..., None], 3, axis=2)
        error[counted & (truth != found)] = MISSED if shown.pieces is None else WRONG
        if shown.pieces is not None:
            kinds = resize_labels(shown.pieces.kinds, truth.shape)
            for kind, colour in ((MERGED, MISSED), (SPLIT, INVENTED)):
                error[kinds == kind] = (error[kinds == kind] + 2 * np.array(colour)) // 3
        colours = tuple(self.data.colours)
        tiles = [photo, paint(truth, colours), paint(np.where(counted, found, IGNORE), colours), error]
        gap = np.full((truth.shape[0], GAP, 3), 255, np.uint8)
        return np.hstack([part for tile in tiles for part in (tile, gap)][:-1]).astype(np.uint8)


def likeliest(p: np.ndarray) -> np.ndarray:
    """The likeliest classes of probabilities (H, W, K), uint8 (H, W); of one logit, class 1 above 1/2."""
    return (p.argmax(axis=2) if p.shape[2] > 1 else p[..., 0] > 0.5).astype(np.uint8)
