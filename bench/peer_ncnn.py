"""U-Net in ncnn: its two files, layers (text) and weights (bytes), written by hand."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ncnn
import numpy as np

MAGIC = 7767517  # first line of the text file
FLOAT32 = b"\0\0\0\0"  # in front of each layer's weights: stored as they are
WHOLE = -233  # a crop that takes all channels


class Graph:
    """Lines and weights as they come; every method appends a layer and returns the name of its output."""

    def __init__(self, model):
        self.parameters = {name: p.numpy() for name, p in model.named_parameters()}
        self.lines = ["Input x 0 1 x"]
        self.blobs = 1
        self.weights: list[bytes] = []

    def layer(self, kind: str, inputs: list[str], *options: str, outputs: int = 1) -> list[str]:
        name = f"{kind}{len(self.lines)}"
        made = [f"{name}_{k}" for k in range(outputs)]
        counts = f"{len(inputs)} {len(made)}"
        self.lines.append(" ".join([kind, name, counts, *inputs, *made, *options]))
        self.blobs += outputs
        return made

    def convolution(self, x: str, name: str, relu: bool = False, transposed: bool = False) -> str:
        """Weights go as (O, C, KH, KW), of a transposed convolution too, whose ours are (C, KH, KW, O)."""
        w, b = self.parameters[f"{name}.w"], self.parameters[f"{name}.b"]
        w = w.transpose(3, 0, 1, 2) if transposed else w.transpose(0, 3, 1, 2)
        self.weights += [FLOAT32, np.ascontiguousarray(w).tobytes(), b.tobytes()]
        k = w.shape[2]
        options = [f"0={len(b)}", f"1={k}", f"3={k if transposed else 1}", "5=1", f"6={w.size}", f"9={int(relu)}"]
        return self.layer("Deconvolution" if transposed else "Convolution", [x], *options)[0]

    def block(self, x: str, name: str) -> str:
        return self.convolution(self.convolution(x, f"{name}.conv1", relu=True), f"{name}.conv2", relu=True)

    def text(self) -> str:
        return "\n".join([str(MAGIC), f"{len(self.lines)} {self.blobs}", *self.lines, ""])


def write(model, size: int) -> tuple[str, bytes, str]:
    """(layers, weights, name of the output) of a `minunet` U-Net (padding "valid") for square inputs "x"."""
    g, x, skips = Graph(model), "x", []
    for level in range(model.depth + 1):
        x, size = g.block(x, f"down.{level}"), size - 4
        if level < model.depth:
            skip, x = g.layer("Split", [x], outputs=2)
            skips.append((skip, size))
            x, size = g.layer("Pooling", [x], "0=0", "1=2", "2=2", "5=1")[0], size // 2
    for level in range(model.depth):
        x, size = g.convolution(x, f"up.{level}", transposed=True), size * 2
        skip, whole = skips.pop()
        margin = (whole - size) // 2
        place = [f"0={margin}", f"1={margin}", "2=0", f"3={size}", f"4={size}", f"5={WHOLE}"]
        x = g.layer("Concat", [x, g.layer("Crop", [skip], *place)[0]], "0=0")[0]
        x, size = g.block(x, f"merge.{level}"), size - 4
    x = g.convolution(x, "head")
    return g.text(), b"".join(g.weights), x


def runners(model, shape: tuple[int, ...], threads: int) -> dict[str, object]:
    """One configuration; see `bench.peers`. Batches of one, as ncnn has no others."""
    layers, weights, output = write(model, shape[2])
    net = ncnn.Net()
    net.opt.num_threads = threads
    for name in ("use_winograd_convolution", "use_sgemm_convolution", "use_packing_layout"):
        setattr(net.opt, name, True)
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, name, False)
    with tempfile.TemporaryDirectory() as folder:
        for file, content in (("layers", layers.encode()), ("weights", weights)):
            (Path(folder) / file).write_bytes(content)
        failed = net.load_param(f"{folder}/layers") or net.load_model(f"{folder}/weights")
    if failed:
        raise RuntimeError("ncnn cannot read the network that was written for it")

    def run(x: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input("x", ncnn.Mat(x[0]))
        return np.array(extractor.extract(output)[1])[None]

    return {"": run}
