"""U-Net in OpenVINO on the CPU, compiled for latency in float32."""

from __future__ import annotations

import numpy as np
import openvino

from minunet.export import onnx_model

LATENCY = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}


def runners(model, shape: tuple[int, ...], threads: int) -> dict[str, object]:
    """One configuration; see `bench.peers`. Without the precision hint it may compute in bfloat16 or float16."""
    core = openvino.Core()
    graph = core.read_model(onnx_model(model, shape[2:], shape[1], batch=shape[0]).SerializeToString(), b"")
    request = core.compile_model(graph, "CPU", LATENCY | {"INFERENCE_NUM_THREADS": str(threads)}).create_infer_request()

    def run(x: np.ndarray) -> np.ndarray:
        return request.infer({0: x}, share_inputs=True, share_outputs=True)[0]

    return {"": run}
