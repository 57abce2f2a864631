"""Networks as ONNX files, which ONNX Runtime, OpenVINO, TensorRT, browsers and phones run.

A network is not translated layer by layer: it is run once on shapes (minunet/backends/shapes.py), in evaluation, and
every kernel that passes the gate (minunet/onnx_trace.py) becomes the nodes that minunet/onnx_nodes.py has for its row
of the contract. So a new network needs nothing here, and a new kernel one function there. What depends on weights
alone is computed at once: a batch-norm that is folded into its convolution stands in the file as that convolution.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from minunet import __version__
from minunet.errors import UserError
from minunet.files import atomic_write
from minunet.models.base import Network

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT, OUTPUT = "image", "logits"
USUAL = 256  # height and width of the output where no size is given
LARGEST = 2**31 - 2**20  # bytes of a protocol buffer, less some room for the nodes


def export_onnx(
    model: Network,
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> tuple[int, int]:
    """Write `model` in evaluation as an ONNX file: "image" (N, C, H, W) -> "logits" (N, K, OH, OW), float32.

    size     : (H, W) of the images, fixed in the file; None: the smallest whose output is 256 x 256 or more.
               N is free. The image is to be normalised as in training: see `minunet.data.normalise`, and
               `minunet.data.align.displaced` where the metadata have "displaced"
    channels : of the images, where the network takes several (RedNet: with depth or without); None: the fewest
    metadata : what JSON can say, stored in the file under "minunet" beside the version and the network's arguments

    The file is checked by ONNX's checker and written whole or not at all. Returns the size. Raises ValueError for a
    size or channels that the network does not take, UserError without the package `onnx`, for weights beyond a file's
    2 GiB, or where the disk refuses.
    """
    h, w = size or model.input_size(USUAL, USUAL)
    data = onnx_model(model, (h, w), channels, metadata=metadata).SerializeToString()
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return h, w


def onnx_model(
    model: Network,
    size: tuple[int, int],
    channels: int | None = None,
    batch: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> ModelProto:
    """The checked graph of `export_onnx`; with `batch`, N is that number and no other."""
    try:
        import onnx
    except ImportError as error:
        raise UserError("writing ONNX files needs the package onnx; install it: pip install onnx") from error
    from minunet.onnx_graph import Graph
    from minunet.onnx_trace import Trace

    config = getattr(model, "config", None)
    if config is None:
        raise ValueError("export: this model has no config to build it from again; make it with models.build")
    if 4 * sum(p.data.size for p in model.parameters()) > LARGEST:
        raise UserError("export: these weights do not fit into an ONNX file, which holds 2 GiB; take a smaller width")
    channels = model.channels[-1] if channels is None else channels
    if channels not in model.channels:
        known = " or ".join(map(str, model.channels))
        raise ValueError(f"{config['model']} takes images of {known} channels, not {channels}")
    output = model.output_size(*size)
    graph = Graph(INPUT)
    last = Trace(model, graph).run((1, *size, channels))
    shapes = (batch or "N", channels, *size), (batch or "N", last.shape[3], *output)
    made = graph.finish(last.name, OUTPUT, config["model"], shapes)
    about = {"version": __version__, "network": config, **(metadata or {})}
    onnx.helper.set_model_props(made, {"minunet": json.dumps(about)})
    made.producer_name, made.producer_version = "minunet", __version__
    onnx.checker.check_model(made, full_check=True)
    return made
