"""Training batches: batch k is a function of (seed, k), made ahead of time by a thread, or on the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from minunet import backends
from minunet.data import Augment, instances_from_labels, sample_tile, weight_map
from minunet.data.shelf import Shelf
from minunet.training.config import WEIGHTS, Config
from minunet.training.resident import SHARE, Resident, needed

VARIATIONS = ("elastic", "zoom", "brightness", "contrast", "gamma", "noise", "colour")


class Batch(NamedTuple):
    """Tiles: NumPy's arrays where the host made them, the device's where it did."""

    x: Any  # float32 (N, H, W, C)
    y: Any  # int32 (N, OH, OW), class indices, 255 = does not count
    w: Any  # float32 (N, OH, OW), or None


def _kept(what: str, arrays: Iterable[np.ndarray], total: int) -> list[np.ndarray]:
    """The arrays, `total` of them: what would be too much for memory in a file of the cache."""
    shelf = Shelf(what)
    return [shelf.put(a, share=(k + 1) / total) for k, a in enumerate(arrays)]


class Sampler:
    """Tiles of `images` (S, H, W[, C]), normalised, and `labels` (S, H, W). No state: resuming needs only k.

    instances : cell numbers (S, H, W) for the border weights; None: the connected components of each label map

    On a backend whose arrays are not NumPy's the sections are copied to the device when the sampler is made, and the
    batches are made there. Where they would take more than SHARE of its memory, the host goes on making the batches,
    each of which is then copied, and `note` says so. `on_device` is what the sections take there, in
    bytes.
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
        self.instances = self.maps = None
        if self.kind is not None:
            self._weigh(instances)
        self.resident, self.on_device, self.note = None, 0, ""
        if backends.get().Array is not np.ndarray:
            self._move()

    def _weigh(self, instances: Sequence[np.ndarray] | None) -> None:
        """Number the cells, and make the weight maps that can be made beforehand."""
        config, labels = self.config, self.labels
        if instances is None:
            numbered = (instances_from_labels(s) for s in labels)
        else:  # without the line that keeps touching cells apart
            numbered = (np.where(s == 1, cells, 0).astype(np.int32) for s, cells in zip(labels, instances))
        self.instances = _kept("the cells' numbers", numbered, len(labels))
        if config.elastic == config.zoom == 0:  # labels stay in shape, so that one map a section serves every tile
            options = {"w0": config.w0, "sigma": config.sigma, "class_weights": self.kind}
            self.maps = _kept("the weight maps", (weight_map(s, **options) for s in self.instances), len(labels))

    def _move(self) -> None:
        """The sections to the device, if there is room."""
        need, room = needed(self), SHARE * backends.get().capacity()
        if need <= room:
            self.resident, self.on_device = Resident(self), need
        else:
            self.note = (
                f"the training images would take {need / 2**30:.2f} GiB of the device's memory, and {room / 2**30:.2f}"
                " GiB are for them: tiles are made on the host"
            )

    def batch(self, k: int) -> Batch:
        """Batch k."""
        if self.resident is not None:
            return Batch(*self.resident.batch(self, k))
        rng = np.random.default_rng([self.config.seed, k])
        size = self.config.batch
        x, y, w = zip(*(self._tile(rng, self.section(rng, k * size + n)) for n in range(size)))
        return Batch(np.stack(x), np.stack(y).astype(np.int32), None if self.kind is None else np.stack(w))

    def section(self, rng: np.random.Generator, n: int) -> int:
        """The section that tile n of the run is cut from: any, or the next of its shuffled round."""
        total = len(self.images)
        if not self.config.shuffle:
            return int(rng.integers(total))
        turn = np.random.default_rng([self.config.seed, n // total, 1]).permutation(total)
        return int(turn[n % total])

    def _tile(self, rng: np.random.Generator, s: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        weighting = {}
        if self.maps is not None:
            weighting = {"weights": self.maps[s]}
        elif self.kind is not None:
            weighting = {"weights": self.kind, "instances": self.instances[s]}
            weighting |= {"w0": self.config.w0, "sigma": self.config.sigma}
        sizes = (self.in_size, self.out_size)
        return sample_tile(rng, self.images[s], self.labels[s], *sizes, self.augment, **weighting)

    def batches(self, first: int, ahead: int = 3) -> Iterator[Batch]:
        """Batches first, first + 1, ... without end. Those of the host wait ready, `ahead` of them; those of the
        device are begun when they are asked for, in the order of its stream.
        """
        if self.resident is not None:
            yield from map(self.batch, count(first))
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
