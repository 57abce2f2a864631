"""A network run once on shapes, and every kernel of that run handed on to an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet import backends, models
from minunet.backends.shapes import ShapeArray
from minunet.contract import ROWS
from minunet.listing import watched_kernels
from minunet.models.base import Network
from minunet.onnx_graph import Constant, Graph, Value
from minunet.onnx_nodes import add_nodes
from minunet.tensor import Tensor, no_grad


class Trace:
    """One evaluation of a network on shapes, every kernel of it handed on to a Graph."""

    def __init__(self, model: Network, graph: Graph):
        self.model, self.graph = model, graph
        self.values: dict[int, tuple[ShapeArray, Value | Constant]] = {}  # by id of the array, which is kept alive
        self.folded: dict[Any, list[Constant]] = {}  # what kernels made of weights alone, by call

    def run(self, shape: tuple[int, ...]) -> Value:
        """Run the network's twin on images of this shape; the logits."""
        config = dict(self.model.config)
        with models.shapes_only(), no_grad(), watched_kernels(self.kernel):
            twin = models.build(config.pop("model"), **config).eval()
            arrays = {name: p.data for name, p in twin.named_parameters()} | dict(twin.named_buffers())
            weights = {name: p.numpy() for name, p in self.model.named_parameters()}
            weights |= {name: backends.owner(b).numpy(b) for name, b in self.model.named_buffers()}
            for name, array in arrays.items():
                self.keep(array, Constant(name, weights[name]))
            x = ShapeArray(shape)
            self.keep(x, Value(self.graph.x, shape))
            return self.find(twin(Tensor(x)).data)

    def keep(self, array: ShapeArray, value: Value | Constant) -> None:
        """Note what an array stands for."""
        self.values[id(array)] = (array, value)

    def find(self, array: ShapeArray) -> Value | Constant:
        """What an array stands for; numbers of the network's own, and another shape of a known array, are known too."""
        if id(array) not in self.values:
            if array.base is None:
                raise NotImplementedError(f"export: {type(self.model).__name__} has an array that no kernel made")
            self.keep(array, self._based(array.base, array.shape))
        return self.values[id(array)][1]

    def _based(self, base: ShapeArray | np.ndarray, shape: tuple[int, ...]) -> Value | Constant:
        """Numbers that the network brought along, or a known array in another shape."""
        if isinstance(base, np.ndarray):
            return Constant("number", base)
        value = self.find(base)
        if isinstance(value, Constant):
            return Constant(value.name, value.array.reshape(shape))
        return Value(self.graph.reshape(value.name, value.shape, shape), shape)

    def kernel(self, kind: str, *arrays: ShapeArray | None, **options: Any) -> None:
        """Stands in for the kernel: the outputs come first, then the inputs, as every kernel has them."""
        count = len(arrays) - len(ROWS[kind].inputs)
        outputs = arrays[:count]
        inputs = [None if a is None else self.find(a) for a in arrays[count:]]
        if not any(isinstance(value, Value) for value in inputs):
            made: list[Any] = self._fold(kind, outputs, inputs, options)
        else:
            names = add_nodes(self.graph, kind, [a.shape for a in outputs], inputs, options)
            made = [Value(name, a.shape) for name, a in zip(names, outputs, strict=True)]
        for array, value in zip(outputs, made, strict=True):
            self.keep(array, value)

    def _fold(self, kind: str, outputs: tuple, inputs: list[Constant | None], options: dict) -> list[Constant]:
        """The kernel's results for weights; the same call again (a layer that is used twice) has the same results."""
        key = kind, tuple(id(c) for c in inputs), tuple(sorted(options.items()))
        if key not in self.folded:
            given = [None if c is None else c.array for c in inputs]
            made = [np.empty(a.shape, given[0].dtype) for a in outputs]
            backends.get("reference").kernels[kind](*made, *given, **options)
            layer, own = inputs[0].name.rpartition(".")[0], inputs[0].name
            names = [f"{layer}.w", f"{layer}.b"] if kind == "fold_batch_norm" else [own] * len(made)
            self.folded[key] = [Constant(name, array) for name, array in zip(names, made, strict=True)]
        return self.folded[key]
