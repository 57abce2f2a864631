"""cuDNN's frontend as the GPU bench's peer, by a stand-in that computes with the reference at cuDNN's addresses."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import rounding
from checks import reference

from bench import gpu_cudnn, gpu_layers, layers
from bench.gpu_device import Clock, Device
from minunet.backends import cuda_host

pytestmark = pytest.mark.skipif(not cuda_host.available(), reason=f"cuda_host: {cuda_host.reason()}")


class NotSupportedError(Exception):
    """Stands for cudnn.cudnnGraphNotSupportedError."""


class Tensor:
    def __init__(self, dim=None, stride=None):
        self.dim, self.stride = dim, stride

    def set_output(self, value):
        return self

    def set_data_type(self, value):
        return self

    def set_dim(self, dim):
        self.dim = dim
        return self

    def set_stride(self, stride):
        self.stride = stride
        return self


class PyGraph:
    """Two plans; the second one is not to be had. Addresses are looked up among the arrays that were handed out."""

    def __init__(self, io_data_type, intermediate_data_type, compute_data_type, handle):
        assert handle == "handle"
        self.type, self.deselected, self.steps = io_data_type, [], []

    def tensor(self, name, dim, stride, data_type):
        return Tensor(dim, stride)

    def conv_fprop(self, image, weight, **geometry):
        return self._op("forward", image, weight, geometry)

    def conv_dgrad(self, loss, filter, **geometry):
        return self._op("grad_x", loss, filter, geometry)

    def conv_wgrad(self, image, loss, **geometry):
        return self._op("grad_w", image, loss, geometry)

    def _op(self, kind, a, b, geometry):
        self.kind, self.inputs, self.geometry, self.output = kind, (a, b), geometry, Tensor()
        return self.output

    def deselect_numeric_notes(self, notes):
        self.deselected += notes

    def __getattr__(self, name):
        assert name in (
            "validate",
            "build_operation_graph",
            "create_execution_plans",
            "deselect_workspace_greater_than",
            "check_support",
            "build_plans",
        ), name
        return lambda *_: self.steps.append(name)

    def get_execution_plan_count(self):
        assert self.steps[-1] == "build_plans"
        assert (self.deselected == ["tensor core"]) == Addresses.strict.pop(0)
        return 2

    def get_workspace_size_plan_at_index(self, index):
        if index == 1:
            raise NotSupportedError("plan 1 was not built")
        return 64

    def get_plan_name_at_index(self, index):
        return f"engine{index}"

    def execute_plan_at_index(self, pack, workspace, index, handle):
        assert set(pack) == {*self.inputs, self.output}
        assert workspace in Addresses.arrays and handle == "handle"
        a, b, y = (self._read(tensor, pack[tensor]) for tensor in (*self.inputs, self.output))
        s, p, d = (self.geometry[k] for k in ("stride", "padding", "dilation"))
        options = {"stride": tuple(s), "padding": (p[0], p[0], p[1], p[1]), "dilation": tuple(d)}
        if self.kind == "forward":
            result = reference("conv2d", a, b, **options, activation=None)
        elif self.kind == "grad_x":
            result = reference("conv2d_grad_x", a, b, **options, size=y.shape[1:3], activation=None)
        else:
            result = reference("conv2d_grad_w", a, b, **options, size=y.shape[1:3])
        self._write(self.output, pack[self.output], result)

    def _read(self, tensor, address):
        """(N, H, W, C) float32"""
        memory = Addresses.arrays[address].reshape(-1)
        strides = [memory.itemsize * k for k in tensor.stride]
        a = np.lib.stride_tricks.as_strided(memory, tensor.dim, strides).transpose(0, 2, 3, 1)
        a = np.ascontiguousarray(a)
        return (a.astype(np.uint32) << 16).view(np.float32) if a.dtype == np.uint16 else a

    def _write(self, tensor, address, values):
        memory = Addresses.arrays[address].reshape(-1)
        strides = [memory.itemsize * k for k in tensor.stride]
        target = np.lib.stride_tricks.as_strided(memory, tensor.dim, strides)
        values = gpu_cudnn.bf16_bits(values) if memory.dtype == np.uint16 else values
        target[...] = values.transpose(0, 3, 1, 2)


class Addresses:
    """Every array whose address was asked for; whether the next graphs must do without tensor cores."""

    arrays: dict[int, np.ndarray] = {}  # noqa: RUF012
    strict: list[bool] = []  # noqa: RUF012


@pytest.fixture
def frontend(monkeypatch):
    Addresses.arrays.clear()
    Addresses.strict[:] = [True] * 6 + [False] * 12  # fp32 in 3 passes and 2 layouts first
    cudnn = SimpleNamespace(
        pygraph=PyGraph,
        data_type=SimpleNamespace(FLOAT="float", BFLOAT16="bf16"),
        heur_mode=SimpleNamespace(A=0, B=1, FALLBACK=2),
        numerical_note=SimpleNamespace(TENSOR_CORE="tensor core"),
        build_plan_policy=SimpleNamespace(ALL="all"),
        cudnnGraphNotSupportedError=NotSupportedError,
        backend_version=lambda: 91300,
        create_handle=lambda: "handle",
    )
    monkeypatch.setattr(gpu_cudnn, "frontend", lambda device: (cudnn, ""))

    class Counting(Device):
        """Says that NCHW takes half of NHWC's time."""

        def milliseconds(self, calls, whole=False, repeats=0):
            found = {}
            for name, call in calls.items():
                y = call()
                ms = 1.0 if getattr(y, "layout", "") == "NCHW" else 2.0
                found[name] = {"median_ms": ms, "low_ms": ms, "high_ms": ms}
            return found

    device = Counting(dry=True)

    def address(array):
        key = array.__array_interface__["data"][0]
        Addresses.arrays[key] = array
        return key

    monkeypatch.setattr(cuda_host.device, "address", address)
    return device


def test_cudnns_plans(frontend, monkeypatch):
    """All of a transposed layer's passes through the frontend: right results, the fastest plan, tensor cores left out
    for fp32."""
    layer = next(layer for layer in gpu_layers.table(frontend) if layer.transposed)
    monkeypatch.setattr(gpu_cudnn, "table", lambda device: [layer])
    monkeypatch.setattr(gpu_cudnn, "batches", lambda device: (2,))
    found = gpu_cudnn.measure(frontend, Clock(60))
    row = found["batch 2"][layer.name]
    for what in layers.PASSES:
        for precision in gpu_cudnn.KINDS:
            entry = row[what][precision]
            assert entry["peer_error"] <= gpu_layers.WORST[precision], (what, precision, entry)
            assert set(entry["times"]) == {"minunet", "cuDNN NCHW engine0"}
            assert entry["ratio"] == 0.5
    assert found["peer"].startswith("cuDNN 91300")
    assert Addresses.strict == []


def test_a_pass_without_a_plan_is_said(frontend, monkeypatch):
    def refuse(self):
        raise NotSupportedError("no engine")

    monkeypatch.setattr(PyGraph, "check_support", refuse, raising=False)
    layer = gpu_layers.table(frontend)[0]
    cudnn, _ = gpu_cudnn.frontend(frontend)
    none = np.zeros((1, 2, 2, 1), np.float32)
    graph = gpu_cudnn.Graph(cudnn, "handle", frontend, layer, "fprop", "tf32", "NHWC")
    assert graph.fastest(none, none, none) is None
    assert frontend.found["no plan"] == [f"{layer.name}, fprop, tf32, NHWC: no engine"]


def test_without_the_frontend():
    device = Device(dry=True)
    assert gpu_cudnn.measure(device, Clock(60)) == {"skipped": "a dry run"}
    device.dry = False
    assert "pip install nvidia-cudnn-frontend" in gpu_cudnn.frontend(device)[1]


def test_bf16_bits(rng):
    x = rng.standard_normal(1000).astype(np.float32)
    back = (gpu_cudnn.bf16_bits(x).astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(back, rounding.round_to("bf16", x))
