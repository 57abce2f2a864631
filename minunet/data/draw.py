"""What chance decides of a training tile: where it is cut from, how it is deformed and turned, and its light.

The draws are apart from the work, which is done on the host (augment.py) or in a GPU's memory
(minunet/training/resident.py): the same generator gives both the same numbers, in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minunet import backends

if TYPE_CHECKING:
    from minunet.data.augment import Augment


class Window(NamedTuple):
    """A window of a section, which becomes a tile's labels when it is flipped and turned."""

    top: int  # of the labels' window, in the section; it may reach beyond
    left: int
    turns: int  # by 90 degrees, 0 .. 3, after the flip
    flip: bool  # left-right
    nodes: np.ndarray | None  # float64 (2, 3, 3): displacements in pixels, down and across; None: not deformed

    def place(self, section: int, size: tuple[int, int], out_size: tuple[int, int]) -> tuple[int, int, int, int, int]:
        """A row of `places` (minunet/contract/augment.py): the tile of `size` in whose middle the labels lie."""
        (h, w), (oh, ow) = (s if self.turns % 2 == 0 else s[::-1] for s in (size, out_size))
        return section, self.top - (h - oh) // 2, self.left - (w - ow) // 2, self.turns, int(self.flip)


def draw_window(
    rng: np.random.Generator, augment: Augment, section: tuple[int, int], out_size: tuple[int, int]
) -> Window:
    """A window for labels of `out_size` anywhere in a section (H, W), or around one that is smaller."""
    turns = int(rng.integers(4)) if augment.rotations else 0
    flip = bool(augment.flips and rng.random() < 0.5)
    oh, ow = out_size if turns % 2 == 0 else out_size[::-1]
    H, W = section
    top = int(rng.integers(min(0, H - oh), max(0, H - oh) + 1))
    left = int(rng.integers(min(0, W - ow), max(0, W - ow) + 1))
    nodes = rng.normal(0.0, augment.elastic, (2, 3, 3)) if augment.elastic > 0 else None
    if augment.zoom > 0:
        factor = math.exp(math.log1p(augment.zoom) * rng.uniform(-1, 1))
        nodes = zoomed(nodes, factor, (top + (oh - 1) / 2, left + (ow - 1) / 2), section)
    return Window(top, left, turns, flip, nodes)


def zoomed(nodes: np.ndarray | None, factor: float, centre: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Displacements (2, 3, 3) that, added to those of `nodes`, enlarge what lies around `centre` by `factor`.

    The pixel at y shows what was at c + (y - c) / factor: a displacement linear in y, which the spline through the
    nodes at 0, (n - 1) / 2 and n - 1 follows exactly.
    """
    nodes = np.zeros((2, 3, 3)) if nodes is None else nodes.copy()
    places = [np.array([0, (n - 1) / 2, n - 1]) for n in size]
    nodes[0] += ((1 / factor - 1) * (places[0] - centre[0]))[:, None]
    nodes[1] += ((1 / factor - 1) * (places[1] - centre[1]))[None, :]
    return nodes


class Light(NamedTuple):
    """How a tile's grey values change, in the order of the fields; each does nothing by default."""

    power: float = 1.0  # of the gamma curve over the tile's own range
    factor: float = 1.0
    shift: float = -0.0  # x + -0.0 is x in every bit, which x + 0.0 is not where x is -0.0
    sd: np.float32 = np.float32(0)  # of the noise
    noise: np.ndarray | None = None  # of sd 1, float32, of the tile's shape
    factors: np.ndarray | None = None  # (C,), of each channel
    shifts: np.ndarray | None = None


def draw_light(rng: np.random.Generator, augment: Augment, shape: tuple[int, ...], noise: bool = True) -> Light:
    """The light of a tile (h, w) or (h, w, C). Without `noise` that is not drawn, and what is drawn later differs."""
    drawn = {}
    if augment.gamma > 0:
        drawn["power"] = math.exp(rng.uniform(-augment.gamma, augment.gamma))
    if augment.contrast > 0:
        drawn["factor"] = rng.uniform(1 - augment.contrast, 1 + augment.contrast)
    if augment.brightness > 0:
        drawn["shift"] = rng.uniform(-augment.brightness, augment.brightness)
    if augment.noise > 0:
        drawn["sd"] = np.float32(rng.uniform(0, augment.noise))
        if noise:
            drawn["noise"] = rng.standard_normal(shape, np.float32)
    if augment.colour > 0 and len(shape) == 3:
        drawn["factors"] = rng.uniform(1 - augment.colour, 1 + augment.colour, shape[2])
        drawn["shifts"] = rng.uniform(-augment.colour, augment.colour, shape[2])
    return Light(**drawn)


def relit(x: Any, lights: Sequence[Light], augment: Augment, add_noise: Callable[[Any], Any]) -> Any:
    """Tiles x (N, h, w, C) of the backend in use in their lights; add_noise(x) adds the noise."""

    def array(values: list) -> Any:
        return backends.get().asarray(np.array(values, np.float32))

    channels = x.shape[3]
    if augment.gamma > 0:
        x = backends.call("gamma_curve", x, array([light.power for light in lights]))
    if augment.contrast > 0 or augment.brightness > 0:
        factor, shift = ([[getattr(light, name)] * channels for light in lights] for name in ("factor", "shift"))
        x = backends.call("stretch", x, array(factor), array(shift))
    if augment.noise > 0:
        x = add_noise(x)
    if lights[0].factors is not None:
        factors, shifts = ([getattr(light, name) for light in lights] for name in ("factors", "shifts"))
        x = backends.call("stretch", x, array(factors), array(shifts))
    return x
