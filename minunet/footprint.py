"""How much memory a prediction takes, known before it begins: the network runs once on shapes, and its arrays are cut
from the same buffer pool that the CPU's kernels use, whose pages nobody touches.

    peak = program and weights (measured) + arrays of a window (replayed) + what kernels need besides

Replaying finds what a sum over layers does not: which arrays live at the same time, the gaps between them that nothing
fits, and the work space of convolutions. Only Linux says what a program occupies; elsewhere BASE stands for it.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from minunet import backends, ops
from minunet.backends import shapes
from minunet.listing import watched_kernels
from minunet.models.base import Network
from minunet.tensor import Tensor, no_grad, record

BASE = 160 << 20  # bytes of Python, NumPy, Numba and compiled kernels
KERNELS = 80 << 20  # bytes that loading compiled kernels adds when a network first runs
CONVOLUTIONS = {"conv2d", "conv2d_grad_x"}
TILES, V_BYTES, U_BYTES = 56, 8 << 20, 640 << 10  # of the CPU's Winograd convolution: see its file
L3_BYTES, SPARED = 16 << 20, 100_000  # also
_lock = threading.Lock()  # the backend of shapes is one for the whole process
_known: WeakKeyDictionary[Network, dict[str, int]] = WeakKeyDictionary()


class _Array(shapes.ShapeArray):
    """A shape that holds a place in the pool."""

    __slots__ = ("_place",)


class _Count:
    """Instead of the pool, for backends that have none: bytes alive now."""

    def __init__(self) -> None:
        self.live = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> _Place:
        return _Place(self, prod(shape) * np.dtype(dtype).itemsize)

    def stats(self) -> dict[str, int]:
        return {"held": self.live}


class _Place:
    """Bytes that are counted until it dies."""

    def __init__(self, count: _Count, nbytes: int):
        self.count, self.nbytes = count, nbytes
        count.live += nbytes

    def __del__(self) -> None:
        self.count.live -= self.nbytes


def activations(model: Network, size: tuple[int, int]) -> int:
    """Bytes that the arrays of one prediction of an (h, w) window take at most: its activations in evaluation, with
    the probabilities and the kernels' work space, as the backend in use would allocate them.

    >>> activations(mu.models.build("unet", width=16), (572, 572)) >> 20
    73
    """
    pooled = backends.get().name == "cpu"
    key = json.dumps([*map(int, size), pooled, str(model.parameters()[0].dtype)])
    known = _known.setdefault(model, {})
    if key not in known:
        with _lock:
            known[key] = _replayed(model, size, pooled)
    return known[key]


def occupied() -> int:
    """Bytes of memory that this process has now; BASE where the system does not tell."""
    return _status("VmRSS") or BASE


def highest() -> int | None:
    """Bytes of memory that this process has had at most; None where the system does not tell."""
    return _status("VmHWM")


def _status(field: str) -> int | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next((line for line in status.read_text().splitlines() if line.startswith(f"{field}:")), None)
    return None if line is None else int(line.split()[1]) << 10


def training_step(model: Network, size: tuple[int, int], batch: int, slots: int) -> int:
    """Bytes that one training step takes at most on a device: weights, gradients, the optimiser's `slots` arrays for
    each weight, and what backward needs of (h, w) windows. Without the kernels' work space and the loss's few maps.
    """
    weights = sum(p.data.nbytes for p in model.parameters())
    with _lock:
        shape, (empty, most) = _on_shapes(model), _maker(_Count())
        with backends.use_backend(backends.SHAPES), _making(empty):
            y = shape.train()(Tensor(empty((batch, *size, model.channels[-1]), _dtype(model))))
            outputs = y if isinstance(y, tuple) else (y,)
            like = [(y.shape, y.dtype) for y in outputs]

            def backward(dy: Any, need: tuple[bool, ...]) -> list[Any]:
                return [empty(*of) for of in like]

            loss = record("loss", shapes.ShapeArray(()), outputs, backward)
            del y, outputs
            loss.backward(shapes.ShapeArray(()))
    return (1 + slots) * weights + most()


def _maker(place: Any) -> tuple[Callable[..., _Array], Callable[[], int]]:
    """`empty` that cuts arrays from `place`, and the bytes that `place` held at most."""
    most = 0

    def empty(shape: tuple[int, ...], dtype: Any) -> _Array:
        nonlocal most
        array = _Array(shape, dtype)
        array._place = place.empty(array.shape, array.dtype)
        most = max(most, place.stats()["held"])
        return array

    return empty, lambda: most


def _replayed(model: Network, size: tuple[int, int], pooled: bool) -> int:
    from minunet.tiled import evaluating, full_size

    shape, place, threads = _on_shapes(model), _Count(), 1
    if pooled:
        from numba import get_num_threads

        from minunet.backends.cpu.memory import Pool

        place, threads = Pool(), get_num_threads()
    empty, most = _maker(place)

    def kernel(name: str, *arrays: Any, **options: Any) -> None:
        if pooled and name in CONVOLUTIONS:
            empty((_scratch(threads, *arrays[:3], **options),), np.uint8)

    channels = model.channels[-1] if hasattr(model, "config") else 1
    with backends.use_backend(backends.SHAPES), evaluating(shape), no_grad(), watched_kernels(kernel), _making(empty):
        for _ in range(2):  # the second finds the gaps that the first left
            x = Tensor(empty((1, *size, channels), _dtype(model)))
            logits = full_size(shape(x), model.output_size(*size))
            (ops.softmax if logits.shape[-1] > 1 else ops.sigmoid)(logits)
            del x, logits
    return most()


def _dtype(model: Network) -> np.dtype:
    return model.parameters()[0].dtype


def _on_shapes(model: Network) -> Network:
    """The network with shapes in place of its weights and statistics."""
    memo: dict[int, Any] = {}
    for p in model.parameters():
        memo[id(p.data)] = shapes.ShapeArray(p.data.shape, p.data.dtype)
        if p.grad is not None:
            memo[id(p.grad)] = None
    for _, buffer in model.named_buffers():
        if buffer.dtype.kind == "f":
            memo[id(buffer)] = shapes.ShapeArray(buffer.shape, buffer.dtype)
    twin = copy.deepcopy(model, memo)
    for p in twin.parameters():
        p._node = None  # the copy's gradients are its own
    return twin


@contextmanager
def _making(empty: Any) -> Iterator[None]:
    """Let `empty` make the arrays of the backend of shapes."""
    kept, shapes.empty = shapes.empty, empty
    try:
        yield
    finally:
        shapes.empty = kept


def _scratch(threads: int, y: Any, x: Any, w: Any, stride=(1, 1), dilation=(1, 1), **options: Any) -> int:
    """About the bytes of work space of a convolution on the CPU: packed weights, or Winograd's transforms by thread."""
    C, O = x.shape[3], y.shape[3]
    winograd = w.shape[1:3] == (3, 3) and stride == dilation == (1, 1) and x.dtype == np.float32 and min(C, O) >= 8
    if not winograd:
        return w.nbytes
    tile = 64 * 4  # bytes of one number in all frequencies
    tiles = min(TILES, max(14, V_BYTES // (tile * C)))
    kept = tile * C * max(O, 32)  # transformed weights, where many blocks of tiles, of 36 pixels, share them
    shared = kept <= L3_BYTES and y.shape[0] * y.shape[1] * y.shape[2] * C * O >= SPARED * threads * tiles * 36
    return threads * (tile * tiles * (C + min(O, 32)) + U_BYTES) + kept * shared
