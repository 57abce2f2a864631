"""Weights from PyTorch arrays. No PyTorch is imported: whatever NumPy can read as an array will do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minunet.nn import Module


def from_torch(model: Module, state_dict: Mapping[str, Any], names: Mapping[str, str] | None = None) -> Module:
    """Fill `model` with a PyTorch state dict, by a name map or by order

    state_dict : {PyTorch name: array or tensor}; four-axis weights are (O, C, KH, KW), or (C_in, C_out, KH, KW) of a
        transposed convolution: either way the second axis goes last here
    names : {this model's name: PyTorch name}; without it the tensors are taken in order, parameters then buffers

    Returns the model. Raises ValueError naming the tensor and both shapes where one does not fit, and what is unused.
    """
    source = {k: _array(v) for k, v in state_dict.items() if not k.endswith("num_batches_tracked")}
    own = {name: p.data for name, p in model.named_parameters()}
    statistics = {name: b for name, b in model.named_buffers() if b.dtype.kind == "f"}
    if names is None:
        running = ("running_mean", "running_var")
        trained = [k for k in source if not k.endswith(running)]
        tracked = [k for k in source if k.endswith(running)]
        if len(trained) != len(own) or len(tracked) != len(statistics):
            raise ValueError(
                f"from_torch: {len(trained)} weights and {len(tracked)} statistics given,"
                f" {len(own)} and {len(statistics)} needed; pass names= to say which is which"
            )
        names = dict(zip([*own, *statistics], trained + tracked))
    own.update(statistics)
    missing = [n for n in own if n not in names or names[n] not in source]
    if missing:
        raise ValueError(f"from_torch: nothing given for {', '.join(missing[:5])}")
    left = set(source) - {names[n] for n in own}
    if left:
        raise ValueError(f"from_torch: not used: {', '.join(sorted(left)[:5])}")
    fitting = {}
    for name, array in own.items():
        value = source[names[name]]
        value = value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
        if value.shape != array.shape:
            raise ValueError(f"from_torch: {names[name]} gives {value.shape} for {name}, which needs {array.shape}")
        fitting[name] = value
    for name, array in own.items():
        array[...] = fitting[name]
    return model


def _array(value: Any) -> np.ndarray:
    """A NumPy view or copy of an array or of a tensor that may require a gradient."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
