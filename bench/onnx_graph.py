"""Our U-Net as an ONNX graph, node by node, with its weights: what ONNX Runtime and OpenVINO read."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

OPSET, IR = 17, 9  # old enough for every runtime of the last years


class Graph:
    """Nodes and weights as they come; every method appends a node and returns the name of its output."""

    def __init__(self, model):
        self.weights = {name: p.numpy() for name, p in model.named_parameters()}
        self.nodes: list = []
        self.constants: list = []

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes) -> str:
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def layer(self, kind: str, x: str, name: str, **attributes) -> str:
        """A convolution; (O, KH, KW, C) -> (O, C, KH, KW), and of a transposed one, (C_in, KH, KW, C_out) alike."""
        w = self.constant(f"{name}.w", self.weights[f"{name}.w"].transpose(0, 3, 1, 2))
        b = self.constant(f"{name}.b", self.weights[f"{name}.b"])
        return self.node(kind, x, w, b, kernel_shape=list(self.weights[f"{name}.w"].shape[1:3]), **attributes)

    def block(self, x: str, name: str) -> str:
        for conv in ("conv1", "conv2"):
            x = self.node("Relu", self.layer("Conv", x, f"{name}.{conv}"))
        return x

    def crop(self, x: str, size: int, margin: int) -> str:
        """Rows and columns margin .. margin + size - 1."""
        ends = {"starts": [margin] * 2, "ends": [margin + size] * 2, "axes": [2, 3]}
        names = [self.constant(f"{x}.{k}", np.array(v, np.int64)) for k, v in ends.items()]
        return self.node("Slice", x, *names)


def write(model, shape: tuple[int, ...]) -> bytes:
    """The serialised graph of a `minunet` U-Net (padding "valid") for inputs "x" of `shape` (N, C, H, W), H = W."""
    g, x, size, skips = Graph(model), "x", shape[2], []
    for level in range(model.depth + 1):
        x, size = g.block(x, f"down.{level}"), size - 4
        if level < model.depth:
            skips.append((x, size))
            x, size = g.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), size // 2
    for level in range(model.depth):
        x, size = g.layer("ConvTranspose", x, f"up.{level}", strides=[2, 2]), size * 2
        skip, whole = skips.pop()
        x = g.node("Concat", x, g.crop(skip, size, (whole - size) // 2), axis=1)
        x, size = g.block(x, f"merge.{level}"), size - 4
    x = g.layer("Conv", x, "head")
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, shape)]
    outputs = [value(x, TensorProto.FLOAT, (shape[0], model.config["n_classes"], size, size))]
    graph = helper.make_graph(g.nodes, "unet", inputs, outputs, g.constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    checker.check_model(made)
    return made.SerializeToString()
