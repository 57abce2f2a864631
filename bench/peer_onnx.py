"""U-Net in ONNX Runtime, every graph optimisation on."""

from __future__ import annotations

import numpy as np
import onnxruntime

from minunet.export import INPUT, onnx_model


def runners(model, shape: tuple[int, ...], threads: int) -> dict[str, object]:
    """One configuration; see `bench.peers`."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Its threads spin between the layers of a run, which is fast, but not into the next contestant's turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    graph = onnx_model(model, shape[2:], shape[1], batch=shape[0]).SerializeToString()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(x: np.ndarray) -> np.ndarray:
        return session.run(None, {INPUT: x})[0]

    return {"": run}
