"""Training batches: batch k is a function of (seed, k), made ahead of time by a thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from minunet.data import Augment, instances_from_labels, sample_tile, weight_map
from minunet.training.config import WEIGHTS, Config

VARIATIONS = ("elastic", "zoom", "brightness", "contrast", "gamma", "noise", "colour")


class Batch(NamedTuple):
    x: np.ndarray  # float32 (N, H, W, C)
    y: np.ndarray  # int32 (N, OH, OW), class indices, 255 = does not count
    w: np.ndarray | None  # float32 (N, OH, OW)


class Sampler:
    """Tiles of `images` (S, H, W[, C]), normalised, and `labels` (S, H, W). No state: resuming needs only k.

    instances : cell numbers (S, H, W) for the border weights; None: the connected components of each label map
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        labels: np.ndarray,
        config: Config,
        in_size: tuple[int, int],
        out_size: tuple[int, int],
        instances: Sequence[np.ndarray] | None = None,
    ):
        self.images, self.labels, self.config = images, labels, config
        self.in_size, self.out_size = in_size, out_size
        self.augment = Augment(
            flips=bool(config.flips), rotations=bool(config.rotations), **{n: getattr(config, n) for n in VARIATIONS}
        )
        self.kind = WEIGHTS[config.weights]
        if self.kind is None:
            return
        if instances is None:
            self.instances = [instances_from_labels(s) for s in labels]
        else:  # without the line that keeps touching cells apart
            self.instances = [np.where(s == 1, cells, 0).astype(np.int32) for s, cells in zip(labels, instances)]
        self.in_shape = config.elastic == config.zoom == 0
        if self.in_shape:  # labels stay in shape, so that one map a section serves every tile
            options = {"w0": config.w0, "sigma": config.sigma, "class_weights": self.kind}
            self.maps = [weight_map(s, **options) for s in self.instances]

    def batch(self, k: int) -> Batch:
        """Batch k."""
        rng = np.random.default_rng([self.config.seed, k])
        size = self.config.batch
        tiles = [self._tile(rng, self._section(rng, k * size + n)) for n in range(size)]
        x, y, w = zip(*tiles)
        return Batch(np.stack(x), np.stack(y).astype(np.int32), None if self.kind is None else np.stack(w))

    def _section(self, rng: np.random.Generator, n: int) -> int:
        """The section that tile n of the run is cut from: any, or the next of its shuffled round."""
        count = len(self.images)
        if not self.config.shuffle:
            return int(rng.integers(count))
        turn = np.random.default_rng([self.config.seed, n // count, 1]).permutation(count)
        return int(turn[n % count])

    def _tile(self, rng: np.random.Generator, s: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        weighting = {}
        if self.kind is not None and self.in_shape:
            weighting = {"weights": self.maps[s]}
        elif self.kind is not None:
            weighting = {"weights": self.kind, "instances": self.instances[s]}
            weighting |= {"w0": self.config.w0, "sigma": self.config.sigma}
        sizes = (self.in_size, self.out_size)
        return sample_tile(rng, self.images[s], self.labels[s], *sizes, self.augment, **weighting)

    def batches(self, first: int, ahead: int = 3) -> Iterator[Batch]:
        """Batches first, first + 1, ... without end; `ahead` of them wait ready."""
        with ThreadPoolExecutor(1, thread_name_prefix="minunet-tiles") as pool:
            waiting = [pool.submit(self.batch, first + k) for k in range(ahead)]
            k = first + ahead
            try:
                while True:
                    yield waiting.pop(0).result()
                    waiting.append(pool.submit(self.batch, k))
                    k += 1
            finally:
                pool.shutdown(cancel_futures=True)
