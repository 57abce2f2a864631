"""Tensor and tape: read this first.

A Tensor is an array and, where a gradient is wanted, the node of the tape that made it. An operation computes its
result, then calls `record` with the tensors it used and a function that turns the gradient of the result into the
gradients of those tensors. `backward` walks the nodes from the newest to the oldest: the order in which they were
made is already a topological order, so no search is needed.

    x = Tensor(np.array([1.0, -2.0]), requires_grad=True)
    y = ops.relu(x)               # tape:  x (leaf) <- relu
    y.backward(np.ones(2))        # x.grad = [1, 0]

What the tape keeps is what backward functions captured, nothing more: a node knows its parents' nodes, not their
arrays, so an activation that no backward needs is freed as soon as the forward pass has used it. Backward itself
frees each node's captured arrays once it has used them; the peak of memory falls while gradients appear.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from heapq import heappop, heappush
from typing import Any
from weakref import ref

import numpy as np

from minunet import backends

# backward(dy, need) -> one gradient (or None) for each input; need[i] says whether input i wants one
Backward = Callable[[Any, tuple[bool, ...]], Sequence[Any]]

_recording: ContextVar[bool] = ContextVar("minunet_recording", default=True)
_clock = itertools.count()


class Node:
    """One operation on the tape, or a leaf: `backward` is None, and `leaf` refers to the tensor that collects."""

    __slots__ = ("backward", "leaf", "name", "order", "parents")

    def __init__(self, name: str, parents: tuple[Node | None, ...], backward: Backward | None, leaf: ref | None):
        self.name, self.parents, self.backward, self.leaf = name, parents, backward, leaf
        self.order = next(_clock)  # parents are always older


class Tensor:
    """An array with a gradient.

    array         : float32 or float64 array of the backend in use (NumPy: anything `np.asarray` takes;
                    integers become float32)
    requires_grad : collect d(root)/d(self) in `.grad` when `root.backward()` is called

    Activations are NHWC, `x[N,H,W,C]`. `.grad` is an array like `.data`, or None before the first backward; a second
    backward adds to it. Replace it, never write into it: tensors that were added share one gradient array.
    """

    __slots__ = ("__weakref__", "_node", "data", "grad", "requires_grad")

    def __init__(self, array: Any, requires_grad: bool = False):
        if isinstance(array, Tensor):
            raise TypeError("a Tensor is made from an array; this is a Tensor already (its array is .data)")
        if not hasattr(array, "dtype") or isinstance(array, np.generic):
            array = np.asarray(array)
        if array.dtype.kind in "iub":
            array = array.astype(np.float32)
        if array.dtype.kind != "f":
            raise TypeError(f"a Tensor holds floating-point numbers, not {array.dtype}; convert the array first")
        self.data = array if array.flags.c_contiguous else array.copy()  # kernels read rows as they lie
        self.grad: Any = None
        self.requires_grad = requires_grad
        self._node: Node | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array (shared with the tensor where it already is one)."""
        return backends.owner(self.data).numpy(self.data)

    def item(self) -> float:
        """The value of a tensor with one element."""
        if self.data.size != 1:
            raise ValueError(f"item() needs one element; this tensor has shape {self.shape}")
        return float(self.numpy().reshape(()))

    def __repr__(self) -> str:
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({self.numpy()!r}{grad})"

    def node(self) -> Node | None:
        """This tensor's place on the tape, None if it wants no gradient; a leaf gets one when it is first used."""
        if not self.requires_grad:  # also a parameter frozen after it was used
            return None
        if self._node is None:
            self._node = Node("leaf", (), None, ref(self))  # weak: no cycle, the array is freed at once
        return self._node

    def backward(self, dy: Any = None) -> None:
        """Add d(sum(dy * self))/d(leaf) to `.grad` of every leaf below that requires it.

        dy : array (or Tensor) of this tensor's shape and dtype; may be left out where there is one element (dy = 1)

        Frees the tape on its way: a second backward needs a new forward.
        Raises ValueError for a wrong dy, RuntimeError where nothing was recorded or the tape is already spent.
        """
        root = self.node()
        if root is None:
            raise RuntimeError(
                "backward: nothing below this tensor requires a gradient, or it was computed under no_grad();"
                " build the inputs with requires_grad=True"
            )
        grads: dict[Node, Any] = {root: self._seed(dy)}
        queue = [(-root.order, root)]  # newest first
        while queue:
            _, node = heappop(queue)
            if node.leaf is not None:
                grad = grads.pop(node)
                if (leaf := node.leaf()) is not None:
                    leaf.grad = _sum(leaf.grad, grad)
                del grad
                continue
            if node.backward is None:
                raise RuntimeError(
                    f"backward: the tape below this {node.name} was already used and freed; run forward again"
                )
            parents, backward = node.parents, node.backward
            node.parents, node.backward = (), None
            need = tuple(parent is not None for parent in parents)
            inputs = backward(grads.pop(node), need)  # not kept here: backward frees dy when it has used it
            del backward  # with it go the arrays it captured
            for parent, gradient in zip(parents, inputs, strict=True):
                if parent is None or gradient is None:
                    continue
                if parent not in grads:
                    heappush(queue, (-parent.order, parent))
                grads[parent] = _sum(grads.get(parent), gradient)
            del inputs, gradient

    def _seed(self, dy: Any) -> Any:
        """The gradient to start from, checked."""
        backend = backends.owner(self.data)
        if dy is None:
            if self.data.size != 1:
                raise ValueError(f"backward: a tensor of shape {self.shape} is no scalar; pass dy of that shape")
            dy = backend.empty(self.shape, self.dtype)
            dy.fill(1)  # where the tensor lies: nothing is copied to a device
        elif isinstance(dy, Tensor):
            dy = dy.data
        if not isinstance(dy, backend.Array):
            dy = np.asarray(dy, self.dtype)
            dy = backend.asarray(dy).reshape(dy.shape)  # NumPy's contiguous arrays have an axis at least
        if dy.shape != self.shape or dy.dtype != self.dtype:
            raise ValueError(f"backward: dy is {dy.dtype} {dy.shape}; it must be {self.dtype} {self.shape}")
        return dy if dy.flags.c_contiguous else dy.copy()


def _sum(a: Any, b: Any) -> Any:
    """a + b, where a may be missing. A new array: gradients are shared between nodes and never written twice."""
    return b if a is None else backends.call("add", a, b, alpha=1.0, beta=1.0)


def record(name: str, data: Any, inputs: tuple[Tensor | None, ...], backward: Backward) -> Tensor:
    """The Tensor of `data`, with a node on the tape if an input requires a gradient and recording is on.

    `inputs` are the tensors the operation depends on, None for a missing optional one; `backward` must capture
    the arrays it needs (not the Tensors).
    """
    y = Tensor(data)
    if _recording.get() and any(t is not None and t.requires_grad for t in inputs):
        y.requires_grad = True
        y._node = Node(name, tuple(None if t is None else t.node() for t in inputs), backward, None)
    return y


def recording() -> bool:
    """Whether operations are being recorded: False inside `no_grad`."""
    return _recording.get()


@contextmanager
def no_grad() -> Iterator[None]:
    """Inside this block nothing is recorded, so nothing is kept for backward."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)
