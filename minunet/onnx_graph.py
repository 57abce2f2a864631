"""An ONNX graph in the making: values, weights, nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

OPSET, IR = 18, 9  # read by every runtime since 2023; the first in which Resize and ScatterElements have what we need
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


class Value:
    """An array that depends on the image: its name in the graph, and its shape here (four axes: NHWC)."""

    def __init__(self, name: str, shape: tuple[int, ...]):
        self.name, self.shape = name, shape


class Constant:
    """Weights, in our layout, and what they are called."""

    def __init__(self, name: str, array: np.ndarray):
        self.name, self.array = name, array


class Graph:
    """Nodes and weights as they come. Methods append nodes and return the names of their outputs."""

    def __init__(self, x: str):
        self.x = x
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.vectors: dict[tuple[int, ...], str] = {}
        self.stored: dict[tuple[int, tuple], tuple[Constant, str]] = {}  # weights that stand in the file, by layout
        self.overlapping: dict[str, bool] = {}  # indices of a pooling -> whether two windows may have one maximum

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def integers(self, *values: int) -> str:
        """A constant vector of integers."""
        if values not in self.vectors:
            self.vectors[values] = self._constant(f"int_{len(self.vectors)}", np.array(values, np.int64))
        return self.vectors[values]

    def number(self, value: float) -> str:
        """A constant float."""
        return self._constant(f"float_{value!r}", np.array(value, np.float32))

    def weights(self, c: Constant, axes: Sequence[int] = (), shape: tuple[int, ...] | None = None) -> str:
        """A Constant with its axes in another order, or in another shape; stored once however often it is used."""
        key = id(c), (tuple(axes), shape)
        if key not in self.stored:
            array = c.array.transpose(axes) if axes else c.array
            name, again = c.name, 2
            while name in self.constants:
                name, again = f"{c.name}_{again}", again + 1
            array = array if shape is None else array.reshape(shape)
            self.stored[key] = c, self._constant(name, np.ascontiguousarray(array, np.float32))
        return self.stored[key][1]

    def _constant(self, name: str, array: np.ndarray) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def value(self, v: Any) -> str:
        """An input of a kernel by name: a value of the graph, or a Constant as a map."""
        return self.weights(v, TO_NCHW if v.array.ndim == 4 else ()) if isinstance(v, Constant) else v.name

    def reshape(self, x: str, before: tuple[int, ...], after: tuple[int, ...]) -> str:
        """The numbers of x in the order in which they lie here, in another shape; N stays N."""
        if before[0] != after[0]:
            raise NotImplementedError(f"export: {before} as {after} mixes the images of a batch")
        x = self.node("Transpose", x, perm=TO_NHWC) if len(before) == 4 else x
        x = self.node("Reshape", x, self.integers(0, *after[1:]))  # 0: as it is
        return self.node("Transpose", x, perm=TO_NCHW) if len(after) == 4 else x

    def finish(self, last: str, output: str, title: str, shapes: tuple[tuple, tuple]) -> ModelProto:
        """The model: value `last` called `output`, indices that nobody reads left out."""
        read = {name for node in self.nodes for name in node.input}
        for node in self.nodes:
            if node.op_type == "MaxPool" and node.output[1] not in read:
                del node.output[1]
            for names in (node.input, node.output):
                for k, name in enumerate(names):
                    names[k] = output if name == last else name
        first, final = (
            helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip((self.x, output), shapes)
        )
        graph = helper.make_graph(self.nodes, title, [first], [final], list(self.constants.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
