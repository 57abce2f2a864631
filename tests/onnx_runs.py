"""A network in ONNX Runtime and here, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet import backends
from minunet.export import onnx_model
from minunet.models.base import Network
from minunet.tensor import Tensor, no_grad

TOLERANCE = 1e-5  # float32 there against float64 here


def alive(model: Network, seed: int = 0) -> Network:
    """The model with weights and statistics of which none is what it was at first; its biases keep its ReLUs alive."""
    rng = np.random.default_rng(seed)
    for _, p in model.named_parameters():
        shape = p.data.shape
        p.data[...] += 0.1 * rng.standard_normal(shape) if len(shape) == 4 else rng.uniform(0, 0.3, shape)
    for name, b in model.named_buffers():
        if name.endswith("running_mean"):
            b[...] = 0.1 * rng.standard_normal(b.shape)
        elif name.endswith("running_var"):
            b[...] = rng.uniform(0.5, 1.5, b.shape)
    return model.eval()


def run_there(runtime: Any, graph: bytes | str, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime makes of x (N, H, W, C), in our layout."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["image"] and [o.name for o in session.get_outputs()] == ["logits"]
    return session.run(None, {"image": x.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)


def run_here(model: Network, x: np.ndarray) -> np.ndarray:
    with backends.use_backend("reference"), no_grad():
        return model.astype(np.float64)(Tensor(x.astype(np.float64))).numpy()


def compare(runtime: Any, model: Network, size: tuple[int, int], channels: int | None = None, n: int = 2) -> None:
    graph = onnx_model(model, size, channels).SerializeToString()
    shape = (n, *size, channels or model.channels[-1])
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    found, known = run_there(runtime, graph, x), run_here(model, x)
    assert found.dtype == np.float32 and found.shape == known.shape
    assert known.std(axis=(0, 1, 2)).max() > 1e-4  # the image reaches the logits
    error = np.linalg.norm(found - known) / np.linalg.norm(known)
    assert np.isfinite(error) and error <= TOLERANCE, error
