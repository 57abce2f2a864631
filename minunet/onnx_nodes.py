"""Each row of the contract that evaluation uses, as ONNX nodes.

ONNX's maps are (N, C, H, W) where ours are (N, H, W, C). Nothing is transposed for that: a row's nodes are those of
its NCHW twin, its weights are stored in ONNX's layout, and shapes and axes are named as they lie there. Arrays of
other ranks (matrices, for attention) lie as ours do; the reshapes that lead there and back hold the only transposes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from onnx import TensorProto, helper

from minunet.onnx_graph import TO_NCHW, Graph

Nodes = Callable[..., Any]  # (graph, shape of the first output, inputs, **options) -> name, or names
NODES: dict[str, Nodes] = {}


def add_nodes(g: Graph, kind: str, outputs: list[tuple[int, ...]], inputs: list[Any], options: dict) -> list[str]:
    """The nodes of one kernel's call, appended; the names of its outputs, whose shapes are `outputs`. inputs: Values,
    Constants, or None. Raises NotImplementedError for a row that has no nodes.
    """
    if kind not in NODES:
        raise NotImplementedError(f"export: no ONNX nodes are known for {kind}")
    made = NODES[kind](g, outputs[0], inputs, **options)
    return [made] if isinstance(made, str) else list(made)


def row(function: Nodes) -> Nodes:
    """Enter the nodes of a row under its name."""
    NODES[function.__name__] = function
    return function


def activated(g: Graph, y: str, activation: str | None) -> str:
    return g.node("Relu", y) if activation == "relu" else y


def pads(padding: Sequence[int]) -> list[int]:
    """(top, bottom, left, right) as ONNX has it."""
    top, bottom, left, right = padding
    return [top, left, bottom, right]


def _conv(g: Graph, inputs: list, groups: int, stride, padding, dilation, activation) -> str:
    x, w, b = inputs
    wanted = [g.value(x), g.weights(w, TO_NCHW)] + ([] if b is None else [g.weights(b)])
    options = {"kernel_shape": w.array.shape[1:3], "strides": stride, "dilations": dilation, "group": groups}
    return activated(g, g.node("Conv", *wanted, pads=pads(padding), **options), activation)


@row
def conv2d(g, shape, inputs, stride, padding, dilation, activation):
    return _conv(g, inputs, 1, stride, padding, dilation, activation)


@row
def depthwise_conv2d(g, shape, inputs, stride, padding, dilation, activation):
    return _conv(g, inputs, inputs[0].shape[3], stride, padding, dilation, activation)


@row
def conv2d_grad_x(g, shape, inputs, stride, padding, dilation, activation):
    dy, w, b = inputs
    wanted = [g.value(dy), g.weights(w, TO_NCHW)] + ([] if b is None else [g.weights(b)])
    kernel, options = w.array.shape[1:3], {"strides": stride, "dilations": dilation, "pads": pads(padding)}
    smallest = [
        (dy.shape[1 + a] - 1) * stride[a] + dilation[a] * (kernel[a] - 1) + 1 - sum(padding[2 * a : 2 * a + 2])
        for a in (0, 1)
    ]
    extra = [shape[1] - smallest[0], shape[2] - smallest[1]]
    y = g.node("ConvTranspose", *wanted, kernel_shape=kernel, output_padding=extra, **options)
    return activated(g, y, activation)


def _windows(shape, x, kernel, stride, padding) -> dict[str, Any]:
    """Attributes of a pooling; below and right as much padding as the last window needs, in whatever mode it was."""
    ends = [(shape[1 + a] - 1) * stride[a] + kernel[a] - x.shape[1 + a] - padding[a] for a in (0, 1)]
    return {"kernel_shape": kernel, "strides": stride, "pads": [*padding, *(max(e, 0) for e in ends)]}


@row
def max_pool2d(g, shape, inputs, kernel, stride, padding):
    y = g.node("MaxPool", g.value(inputs[0]), **_windows(shape, inputs[0], kernel, stride, padding))
    indices = f"{y}_indices"  # ((n C + c) H + h) W + w
    g.nodes[-1].output.append(indices)
    g.overlapping[indices] = any(k > s for k, s in zip(kernel, stride))
    return y, indices


@row
def scatter_by_index(g, shape, inputs):
    """A plane is filled at h W + w: the pooling's index without n and c."""
    values, indices = (g.value(v) for v in inputs)
    _, h, w, c = shape
    rows = g.integers(0, 0, -1)
    flat = g.node("Reshape", values, rows)  # (N, C, OH OW)
    at = g.node("Reshape", g.node("Mod", indices, g.integers(h * w)), rows)
    count = g.node("Shape", values, start=0, end=1)
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    plane = g.node("ConstantOfShape", g.node("Concat", count, g.integers(c, h * w), axis=0), value=zero)
    reduction = {"reduction": "add"} if g.overlapping[indices] else {}
    full = g.node("ScatterElements", plane, at, flat, axis=2, **reduction)
    return g.node("Reshape", full, g.integers(0, c, h, w))


@row
def avg_pool2d(g, shape, inputs, kernel, stride, padding):
    x = inputs[0]
    return g.node("AveragePool", g.value(x), count_include_pad=1, **_windows(shape, x, kernel, stride, padding))


@row
def global_avg_pool(g, shape, inputs):
    return g.node("GlobalAveragePool", g.value(inputs[0]))


@row
def batch_norm(g, shape, inputs, eps, activation):
    x, mean, var, gamma, beta = inputs
    y = g.node("BatchNormalization", g.value(x), *(g.weights(c) for c in (gamma, beta, mean, var)), epsilon=eps)
    return activated(g, y, activation)


@row
def lrn(g, shape, inputs, size, alpha, beta):
    if size % 2 == 0:
        raise NotImplementedError(f"export: ONNX normalises over odd numbers of channels; lrn has size {size}")
    return g.node("LRN", g.value(inputs[0]), size=size, alpha=alpha, beta=beta, bias=1.0)


@row
def l2_normalize(g, shape, inputs, eps):
    x = g.value(inputs[0])
    length = g.node("ReduceL2", x, g.integers(1 if len(shape) == 4 else len(shape) - 1), keepdims=1)
    return g.node("Div", x, g.node("Max", length, g.number(eps)))


@row
def crop_concat(g, shape, inputs):
    x, skip = inputs
    (h, w), (hs, ws) = x.shape[1:3], skip.shape[1:3]
    offset = ((hs - h) // 2, (ws - w) // 2, 0)
    return g.node("Concat", g.value(x), _window(g, skip, offset, (h, w, skip.shape[3])), axis=1)


@row
def crop(g, shape, inputs, offset):
    return _window(g, inputs[0], offset, shape[1:])


def _window(g: Graph, x: Any, offset: Sequence[int], size: Sequence[int]) -> str:
    """x from (top, left, first) on, as much as (h, w, c)."""
    cut = [(2, 3, 1)[k] for k in range(3) if size[k] != x.shape[1 + k]]
    if not cut:
        return g.value(x)
    firsts = {2: offset[0], 3: offset[1], 1: offset[2]}
    sizes = {2: size[0], 3: size[1], 1: size[2]}
    starts, ends = [firsts[a] for a in cut], [firsts[a] + sizes[a] for a in cut]
    return g.node("Slice", g.value(x), g.integers(*starts), g.integers(*ends), g.integers(*cut))


@row
def embed(g, shape, inputs, offset):
    x = inputs[0]
    top, left, first = offset
    bottom, right, last = (shape[1 + k] - offset[k] - x.shape[1 + k] for k in range(3))
    return g.node("Pad", g.value(x), g.integers(0, first, top, left, 0, last, bottom, right), mode="constant")


@row
def pad(g, shape, inputs, padding, mode, value):
    top, bottom, left, right = padding
    around = g.integers(0, 0, top, left, 0, 0, bottom, right)
    filling = [g.number(value)] if mode == "constant" else []
    return g.node("Pad", g.value(inputs[0]), around, *filling, mode=mode)


@row
def upsample_nearest(g, shape, inputs):
    """y[i] = x[i H // OH]: by index, since Resize rounds i H / OH in float32 and may miss whole numbers."""
    x, y = inputs[0], g.value(inputs[0])
    if all(out % size == 0 for out, size in zip(shape[1:3], x.shape[1:3])):
        options = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return g.node("Resize", y, "", "", g.integers(*shape[1:3]), axes=[2, 3], mode="nearest", **options)
    for axis, size, out in zip((2, 3), x.shape[1:3], shape[1:3]):
        y = g.node("Gather", y, g.integers(*(i * size // out for i in range(out))), axis=axis)
    return y


@row
def upsample_bilinear(g, shape, inputs, align_corners):
    how = "align_corners" if align_corners else "half_pixel"
    options = {"axes": [2, 3], "mode": "linear", "coordinate_transformation_mode": how}
    return g.node("Resize", g.value(inputs[0]), "", "", g.integers(*shape[1:3]), **options)


@row
def matmul(g, shape, inputs, transpose_a, transpose_b):
    names = [
        g.node("Transpose", g.value(v), perm=[0, 2, 1]) if turned else g.value(v)
        for v, turned in zip(inputs, (transpose_a, transpose_b))
    ]
    return g.node("MatMul", *names)


@row
def add(g, shape, inputs, alpha, beta):
    a, b = (
        g.value(v) if abs(factor) == 1 else g.node("Mul", g.value(v), g.number(abs(factor)))
        for v, factor in zip(inputs, (alpha, beta))
    )
    if alpha >= 0:
        return g.node("Add" if beta >= 0 else "Sub", a, b)
    return g.node("Sub", b, a) if beta >= 0 else g.node("Neg", g.node("Add", a, b))


@row
def scale(g, shape, inputs, factor):
    return g.node("Mul", g.value(inputs[0]), g.number(factor))


@row
def gate(g, shape, inputs):
    return g.node("Mul", *(g.value(v) for v in inputs))


@row
def prelu(g, shape, inputs):
    x, slope = inputs
    return g.node("PRelu", g.value(x), g.weights(slope, shape=(-1, *(1,) * (len(shape) - 2))))


@row
def softmax(g, shape, inputs):
    return g.node("Softmax", g.value(inputs[0]), axis=1 if len(shape) == 4 else -1)


def _pointwise(kind: str) -> Nodes:
    return lambda g, shape, inputs, **options: g.node(kind, g.value(inputs[0]), **options)


NODES |= {name: _pointwise(kind) for name, kind in (("relu", "Relu"), ("sigmoid", "Sigmoid"), ("tanh", "Tanh"))}
NODES["elu"] = _pointwise("Elu")


@row
def leaky_relu(g, shape, inputs, slope):
    return g.node("LeakyRelu", g.value(inputs[0]), alpha=slope)
