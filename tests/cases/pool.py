"""Pooling: windows that overlap, leave gaps, or hang over the edge; ties."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minunet.contract import ROWS
from minunet.contract.row import Spec

from .sample import MAPS, Case, distinct, integers, make, normal, rows, tied

_POOL = {  # label: (N, H, W, C), kernel, stride, padding, ceil mode
    "2x2": ((2, 6, 8, 3), (2, 2), (2, 2), (0, 0), False),
    "2x2, odd size cut": ((2, 7, 5, 4), (2, 2), (2, 2), (0, 0), False),
    "2x2, odd size kept": ((2, 7, 5, 4), (2, 2), (2, 2), (0, 0), True),
    "one pixel": ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), False),
    "one pixel, padded": ((1, 1, 1, 5), (3, 3), (2, 2), (1, 1), False),
    "3x3 stride 2 padding 1": ((1, 11, 8, 17), (3, 3), (2, 2), (1, 1), False),
    "3x3 stride 2 padding 1, ceil": ((1, 10, 8, 6), (3, 3), (2, 2), (1, 1), True),
    "3x3 stride 1 padding 1": ((2, 5, 7, 3), (3, 3), (1, 1), (1, 1), False),
    "rectangular": ((1, 9, 12, 2), (3, 2), (2, 3), (1, 0), False),
    "stride beyond the kernel": ((1, 11, 10, 3), (2, 2), (3, 4), (0, 0), False),
    "stride beyond the kernel, ceil": ((1, 9, 8, 3), (2, 2), (3, 3), (1, 1), True),
    "64 channels": ((1, 8, 10, 64), (2, 2), (2, 2), (0, 0), False),
}


@rows("max_pool2d")
def _max_pool2d(_: str) -> Iterable[Case]:
    for label, (x, kernel, stride, padding, ceil) in _POOL.items():
        options = {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil}
        yield Case(label, make(distinct(*x)), options)
        yield Case(f"{label}, all negative", make(distinct(*x, mean=-100.0)), options)
        yield Case(f"{label}, ties", make(tied(*x)), options)


_PLANES = {  # label: shape of values and indices, (H, W) of the plane
    "2x2 unpool": ((2, 3, 4, 3), (6, 8)),
    "odd plane": ((1, 3, 2, 5), (7, 5)),
    "one pixel": ((1, 1, 1, 1), (1, 1)),
    "many onto few": ((2, 9, 7, 17), (2, 3)),
    "one onto many": ((3, 1, 1, 2), (5, 4)),
}


@rows("scatter_by_index")
def _scatter_by_index(_: str) -> Iterable[Case]:
    for label, (shape, size) in _PLANES.items():
        indices = integers(0, size[0] * size[1], *shape)
        yield Case(label, make(normal(*shape, mean=0.5), indices), {"size": size})


@rows("gather_by_index")
def _gather_by_index(_: str) -> Iterable[Case]:
    for label, (shape, size) in _PLANES.items():
        indices = integers(0, size[0] * size[1], *shape)
        yield Case(label, make(normal(shape[0], *size, shape[3]), indices))


@rows("global_avg_pool")
def _global_avg_pool(_: str) -> Iterable[Case]:
    for label, shape in MAPS.items():
        yield Case(label, make(normal(*shape, mean=0.5)))


@rows("global_avg_pool_grad")
def _global_avg_pool_grad(_: str) -> Iterable[Case]:
    for label, (n, h, w, c) in MAPS.items():
        yield Case(label, make(normal(n, 1, 1, c)), {"size": (h, w)})


def _averages() -> Iterable[tuple[str, tuple[int, ...], tuple[int, ...], dict]]:
    """label, shapes of x and y, and the options, of each case above that is not in ceil mode."""
    f64 = np.dtype(np.float64)
    for label, (x, kernel, stride, padding, ceil) in _POOL.items():
        if not ceil:
            options = {"kernel": kernel, "stride": stride, "padding": padding}
            yield label, x, ROWS["avg_pool2d"].rule(Spec(x, f64), **options).outputs[0].shape, options


@rows("avg_pool2d")
def _avg_pool2d(_: str) -> Iterable[Case]:
    for label, x, _y, options in _averages():
        yield Case(label, make(normal(*x, mean=0.5)), options)
    whole = {"kernel": (13, 16), "stride": (1, 1), "padding": (6, 8)}
    yield Case("the whole map", make(normal(2, 9, 11, 5, mean=0.5)), whole)


@rows("avg_pool2d_grad")
def _avg_pool2d_grad(_: str) -> Iterable[Case]:
    for label, x, y, options in _averages():
        yield Case(label, make(normal(*y, mean=0.5)), options | {"size": x[1:3]})
