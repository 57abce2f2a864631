"""cuDNN's best plan for U-Net's layers, through its frontend where that is installed: all plans, in both layouts.

`pip install nvidia-cudnn-frontend` (the module `cudnn`). Per layer, pass and precision each plan that cuDNN builds is
timed on device memory of CuPy; the fastest then meets our kernel in turn. For fp32 the plans with tensor cores are
left out, for tf32 they are not; bf16 has arrays of 16 bits. The forward pass is timed without the bias that ours adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from bench import gpu_limits, layers
from bench.gpu_device import Clock, Device
from bench.gpu_layers import Peers, about, batches, one_layer, prepared, table

MOST_WORKSPACE = 2 << 30  # bytes that a plan may ask for
LAYOUTS = ("NHWC", "NCHW")
KINDS = ("fp32", "tf32", "bf16")


class Plan(NamedTuple):
    """The fastest of a graph's plans."""

    call: Callable[[], Any]
    name: str
    ms: float


def frontend(device: Device) -> tuple[Any, str]:
    """cuDNN's frontend, or (None, why not)."""
    if device.dry:
        return None, "a dry run"
    try:
        return import_module("cudnn"), ""
    except (ImportError, OSError) as error:
        return None, f"cuDNN's frontend cannot be imported ({error}); pip install nvidia-cudnn-frontend"


def measure(device: Device, clock: Clock) -> dict[str, Any]:
    """{"batch 8": {layer: {pass: {precision: entry}}}, "batch 1": ...} as `gpu_layers.measure`, as far as time allows.

    Seconds a layer, and there is not time for all: those with the most work come first.
    """
    cudnn, why = frontend(device)
    if cudnn is None:
        return {"skipped": why}
    found = device.keep({"peer": f"cuDNN {cudnn.backend_version()}, best of its plans", **about(device)})
    limits = gpu_limits.of_device(device.describe(), found["copy_gbytes"])
    handle = cudnn.create_handle()
    largest = sorted(table(device), key=lambda layer: -gpu_limits.work(layer).flops)
    for layer, data, exact in prepared(largest):
        for batch in reversed(batches(device)):
            entries = found.setdefault(f"batch {batch}", {})
            if clock.over():
                entries[layer.name] = "not measured: out of time"
                continue
            peers = partial(plans, cudnn, handle, device, layer)
            job = partial(one_layer, device, peers, partial(_ours, device), layer, batch, data, exact, limits)
            entry, why = device.attempt(f"{layer.name}, batch {batch}", job)
            entries[layer.name] = f"failed: {why}" if why else entry
            device.free()
    return found


def plans(cudnn: Any, handle: Any, device: Device, layer: layers.Layer, x, w, b, dy) -> Peers:
    """{precision: {pass: {"cuDNN NHWC plan": call}}}: the fastest of each pass, in whichever layout."""
    big, small = (dy, x) if layer.transposed else (x, dy)
    passes = {"forward": "fprop", "grad_x": "dgrad", "grad_w": "wgrad"}
    if layer.transposed:
        passes |= {"forward": "dgrad", "grad_x": "fprop"}
    found: Peers = {}
    for precision in KINDS:
        for what, kind in passes.items():
            bias = b if what == "forward" else None
            graphs = (Graph(cudnn, handle, device, layer, kind, precision, layout, bias) for layout in LAYOUTS)
            best = [plan for graph in graphs if (plan := graph.fastest(big, w, small)) is not None]
            if best:
                plan = min(best, key=lambda plan: plan.ms)
                found.setdefault(precision, {})[what] = {f"cuDNN {plan.name}": plan.call}
    return found


class Result(NamedTuple):
    """What a plan wrote: an array of the device, of 32-bit floats or of the bits of 16-bit ones, its layout, and the
    bias that is still missing."""

    array: Any
    layout: str
    bias: np.ndarray | None


def _ours(device: Device, y: Result) -> np.ndarray:
    """As a NumPy array in our layout."""
    a = device.numpy(y.array)
    a = (a.astype(np.uint32) << 16).view(np.float32) if a.dtype == np.uint16 else a
    a = a if y.layout == "NHWC" else a.transpose(0, 2, 3, 1)
    return a if y.bias is None else a + y.bias


def bf16_bits(a: np.ndarray) -> np.ndarray:
    """uint16: the upper halves of float32 numbers rounded to bf16, ties to even."""
    bits = np.ascontiguousarray(a).view(np.uint32)
    return ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)


class Graph:
    """One convolution (fprop), or its gradient in the image (dgrad) or the weights (wgrad), in one layout."""

    def __init__(
        self, cudnn, handle, device: Device, layer: layers.Layer, kind: str, precision: str, layout: str, bias=None
    ):
        self.cudnn, self.handle, self.device, self.bias = cudnn, handle, device, bias
        self.layer, self.kind, self.precision, self.layout = layer, kind, precision, layout

    def fastest(self, image: np.ndarray, weights: np.ndarray, result: np.ndarray) -> Plan | None:
        """The best plan for arrays of the convolution image * weights -> result; None where cuDNN has none."""
        arrays = dict(zip(("image", "weight", "loss"), map(self._put, (image, weights, result)), strict=True))
        try:
            graph, pack, output = self._built(arrays)
        except self._refused() as error:
            self.device.found.setdefault("no plan", []).append(f"{self._name()}: {str(error)[:100]}")
            return None
        timed = list(self._timed(graph, pack, output))
        return min(timed, key=lambda plan: plan.ms) if timed else None

    def _refused(self) -> tuple[type[BaseException], ...]:
        """What cuDNN raises where it has no plan."""
        return RuntimeError, ValueError, self.cudnn.cudnnGraphNotSupportedError

    def _name(self) -> str:
        return f"{self.layer.name}, {self.kind}, {self.precision}, {self.layout}"

    def _put(self, a: np.ndarray) -> Any:
        """On the device, in the graph's layout and type."""
        a = a if self.layout == "NHWC" else np.ascontiguousarray(a.transpose(0, 3, 1, 2))
        return self.device.to(bf16_bits(a) if self.precision == "bf16" else a)

    def _tensor(self, graph: Any, name: str, array: Any) -> Any:
        dims, strides = self._geometry(array)
        return graph.tensor(name=name, dim=dims, stride=strides, data_type=self._type())

    def _type(self) -> Any:
        types = self.cudnn.data_type
        return types.BFLOAT16 if self.precision == "bf16" else types.FLOAT

    def _geometry(self, array: Any) -> tuple[list[int], list[int]]:
        """(sizes, strides) in the order N C H W, whatever lies next to what."""
        if self.layout == "NCHW":
            n, c, h, w = array.shape
            return [n, c, h, w], [c * h * w, h * w, w, 1]
        n, h, w, c = array.shape
        return [n, c, h, w], [h * w * c, 1, w * c, c]

    def _built(self, arrays: dict[str, Any]) -> tuple[Any, dict[Any, int], Any]:
        """(graph with its plans, {tensor: address}, the array that the plans write)."""
        cudnn, kind = self.cudnn, self.kind
        graph = cudnn.pygraph(
            io_data_type=self._type(),
            intermediate_data_type=cudnn.data_type.FLOAT,
            compute_data_type=cudnn.data_type.FLOAT,
            handle=self.handle,
        )
        written = {"fprop": "loss", "dgrad": "image", "wgrad": "weight"}[kind]
        given = {name: self._tensor(graph, name, a) for name, a in arrays.items() if name != written}
        s, p, d = ([v, v] for v in (self.layer.stride, self.layer.padding, self.layer.dilation))
        geometry = {"stride": s, "padding": p, "dilation": d}
        if kind == "fprop":
            y = graph.conv_fprop(image=given["image"], weight=given["weight"], **geometry)
        elif kind == "dgrad":
            y = graph.conv_dgrad(loss=given["loss"], filter=given["weight"], **geometry)
        else:
            y = graph.conv_wgrad(image=given["image"], loss=given["loss"], **geometry)
        output = self.device.module.empty(arrays[written].shape, arrays[written].dtype)
        dims, strides = self._geometry(output)
        y.set_output(True).set_data_type(self._type()).set_dim(dims).set_stride(strides)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.B, cudnn.heur_mode.FALLBACK])
        if self.precision == "fp32":
            graph.deselect_numeric_notes([cudnn.numerical_note.TENSOR_CORE])
        graph.deselect_workspace_greater_than(MOST_WORKSPACE)
        graph.check_support()
        graph.build_plans(cudnn.build_plan_policy.ALL)
        address = self.device.module.device.address
        pack = {given[name]: address(arrays[name]) for name in given} | {y: address(output)}
        self._alive = (arrays, output)  # addresses keep nothing alive
        return graph, pack, output

    def _timed(self, graph: Any, pack: dict[Any, int], output: Any) -> Iterator[Plan]:
        """Each plan that runs, with its time."""
        for number in range(graph.get_execution_plan_count()):
            try:
                size = max(1, graph.get_workspace_size_plan_at_index(number))
                workspace = self.device.module.empty((size,), np.uint8)
                call = partial(self._run, graph, pack, workspace, number, output)
                name = f"{self.layout} {graph.get_plan_name_at_index(number)}"
                times = self.device.milliseconds({"plan": call}, repeats=3)
            except self._refused():  # it was not built, or asks for more than there is
                continue
            if times is not None:
                yield Plan(call, name, times["plan"]["median_ms"])

    def _run(self, graph: Any, pack: dict[Any, int], workspace: Any, number: int, output: Any) -> Result:
        address = self.device.module.device.address(workspace)
        graph.execute_plan_at_index(pack, address, index=number, handle=self.handle)
        return Result(output, self.layout, self.bias)
