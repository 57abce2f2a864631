"""The training sections in a GPU's memory, and the batches that are made of them there.

The draws are those of the host (minunet/data/draw.py), and so are the rows that do the work (minunet/contract/
augment.py): a tile is the host's, its labels exactly, grey values and weights to float32's rounding. But for noise,
which would have to be drawn and copied for each tile: here it is a function of (seed, k, element), made by the row
`add_noise`, so that what is drawn after it in the batch differs as well.

A batch costs the host its draws, and copies of some hundred bytes to the device: places, nodes, lights. Nothing is
read back, and all is in the order of the current stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minunet import backends
from minunet.data import IGNORE
from minunet.data.draw import Window, draw_light, draw_window, relit
from minunet.data.weights import class_weight_table, rim_of
from minunet.errors import UserError

if TYPE_CHECKING:
    from minunet.training.config import Config
    from minunet.training.sampler import Sampler

SHARE = 0.5  # of the device's memory that the sections may take: the network needs the rest
MOST_ELEMENTS = 1 << 30  # of a stack: kernels count in int
NOISE = 2  # (seed, k, NOISE) is the seed of a batch's noise


class Stack(NamedTuple):
    """Sections of one size, on the device."""

    images: Any  # float32 (S, H, W, C)
    labels: Any  # int32 (S, H, W)
    cells: Any  # int32 (S, H, W), numbers of cells, for the weights of deformed tiles; or None
    maps: Any  # float32 (S, H, W, 1), weights of tiles that keep their shape; or None


class Run(NamedTuple):
    """Tiles beside each other in a batch whose sections are in one stack."""

    tiles: slice
    stack: Stack
    sections: list[int]  # in the stack
    windows: list[Window]
    nodes: Any  # float64 (tiles, 2, 3, 3) on the device; None: not deformed


def needed(sampler: Sampler) -> int:
    """Bytes that the sampler's sections take on the device."""
    arrays = prod(sampler.images[0].shape[2:]) + 1 + (sampler.kind is not None)
    return 4 * arrays * sum(prod(labels.shape) for labels in sampler.labels)


class Resident:
    """The sections of a sampler on the backend in use, and its batches. Raises UserError for labels of no class: on
    the device nobody looks at them again.

    It does not keep the sampler, which keeps it: in a circle of references the device's memory would stay full until
    Python's collector comes by.
    """

    def __init__(self, sampler: Sampler):
        self.sizes = [labels.shape for labels in sampler.labels]
        shape = sampler.images[0].shape
        self.tile, self.out_size = (*sampler.in_size, *shape[2:]), sampler.out_size
        every = range(len(self.sizes))
        self.one = len(set(self.sizes)) == 1 and len(every) * prod(shape) <= MOST_ELEMENTS
        self.stacks = [self._stack(sampler, every)] if self.one else [self._stack(sampler, [s]) for s in every]
        if sampler.kind is not None and sampler.maps is None:
            tables = np.concatenate([class_weight_table(labels, sampler.kind) for labels in sampler.labels])
            self.tables = backends.get().asarray(tables)  # (256 S,)

    def _stack(self, sampler: Sampler, sections: Sequence[int]) -> Stack:
        """These sections, copied one after the other: those that the host makes when asked for are never all there."""
        size = (len(sections), *self.sizes[sections[0]])
        cells = sampler.instances if sampler.maps is None else None
        classes = sampler.config.facts().n_classes
        return Stack(
            _upload((sampler.images[s] for s in sections), (*size, *(self.tile[2:] or (1,))), np.float32),
            _upload((_valid(sampler.labels[s], classes) for s in sections), size, np.int32),
            None if cells is None else _upload((cells[s] for s in sections), size, np.int32),
            None if sampler.maps is None else _upload((sampler.maps[s] for s in sections), (*size, 1), np.float32),
        )

    def batch(self, sampler: Sampler, k: int) -> tuple[Any, Any, Any]:
        """x, y and w of batch k of this sampler, on the device."""
        augment, count = sampler.augment, sampler.config.batch
        rng = np.random.default_rng([sampler.config.seed, k])
        sections, windows, lights = [], [], []
        for n in range(count):
            sections.append(sampler.section(rng, k * count + n))
            windows.append(draw_window(rng, augment, self.sizes[sections[-1]], sampler.out_size))
            lights.append(draw_light(rng, augment, self.tile, noise=False))
        runs = self._runs(sections, windows)
        x = self._cut("deform", "images", runs, sampler.in_size, cubic=augment.sampling == "cubic")
        seed = int(np.random.SeedSequence([sampler.config.seed, k, NOISE]).generate_state(1, np.uint64)[0])
        sd = np.array([light.sd for light in lights], np.float32)
        x = relit(x, lights, augment, lambda x: backends.call("add_noise", x, backends.get().asarray(sd), seed=seed))
        y = self._cut("deform_nearest", "labels", runs, sampler.out_size, outside=IGNORE)
        return x, y, None if sampler.kind is None else self._weights(sampler, y, sections, runs)

    def _runs(self, sections: list[int], windows: list[Window]) -> list[Run]:
        nodes = None
        if windows[0].nodes is not None:
            nodes = backends.get().asarray(np.stack([window.nodes for window in windows]))  # (N, 2, 3, 3)
        if self.one:
            return [Run(slice(0, len(windows)), self.stacks[0], sections, windows, nodes)]
        runs = []
        for n, (section, window) in enumerate(zip(sections, windows)):
            tiles = slice(n, n + 1)
            runs.append(Run(tiles, self.stacks[section], [0], [window], None if nodes is None else nodes[tiles]))
        return runs

    def _cut(self, row: str, what: str, runs: list[Run], size: tuple[int, int], **options: Any) -> Any:
        """The tiles (N, h, w) or (N, h, w, C) of `what` of their stacks, by a row that cuts windows."""
        module, like = backends.get(), getattr(runs[0].stack, what)
        tiles = module.empty((runs[-1].tiles.stop, *size, *like.shape[3:]), like.dtype)
        for run in runs:
            places = [w.place(s, size, self.out_size) for s, w in zip(run.sections, run.windows)]
            inputs = getattr(run.stack, what), module.asarray(np.array(places, np.int32)), run.nodes
            backends.call(row, *inputs, size=size, out=(tiles[run.tiles],), **options)
        return tiles

    def _weights(self, sampler: Sampler, y: Any, sections: list[int], runs: list[Run]) -> Any:
        """float32 (N, OH, OW): of premade maps, or made of the tiles' labels y and cells."""
        if sampler.maps is not None:
            w = self._cut("deform", "maps", runs, sampler.out_size, cubic=True).reshape(*y.shape)
        else:
            first = 256 * np.array(sections, np.int32).reshape(-1, 1, 1)
            w = self.tables[y + backends.get().asarray(first)]
            if sampler.config.w0 > 0:
                w += self._borders(sampler.config, runs)
        w *= y != IGNORE
        return w

    def _borders(self, config: Config, runs: list[Run]) -> Any:
        rim = rim_of(config.sigma)
        wide = (self.out_size[0] + 2 * rim, self.out_size[1] + 2 * rim)
        cells = self._cut("deform_nearest", "cells", runs, wide, outside=0)
        options = {"w0": config.w0, "sigma": config.sigma, "reach": rim, "rim": rim, "everywhere": False}
        return backends.call("border_weights", cells, **options)


def _valid(labels: np.ndarray, classes: int) -> np.ndarray:
    """The labels. Raises UserError where one is not a class."""
    beyond = labels[(labels >= classes) & (labels != IGNORE)]
    if beyond.size:
        raise UserError(
            f"labels: {beyond[0]} is none of the {classes} classes 0 .. {classes - 1}, and not {IGNORE}, which does not"
            " count; correct the masks, or say with --labels what their values mean"
        )
    return labels


def _upload(sections: Iterable[np.ndarray], shape: tuple[int, ...], dtype: type) -> Any:
    """The sections as an array of this shape on the device."""
    stack = backends.get().empty(shape, dtype)
    for k, section in enumerate(sections):
        backends.write(stack[k], section.reshape(shape[1:]))
    return stack
