"""Weights in a file of another program: PyTorch's (.pth, .pt) or safetensors."""

from __future__ import annotations

import json
import os

import numpy as np
import safetensors

from minunet.errors import UserError
from minunet.torchfile import bfloat16, load_state_dict, opened

NUMBERS = {  # safetensors' names of them
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # its bits
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], bool]:
    """({name: array}, whether in the network's order) of a PyTorch or safetensors file in PyTorch's names and layouts;
    its beginning tells which it is. PyTorch's keeps the order of the layers, safetensors sorts by name.

    Raises UserError (one line: file, what is wrong, remedy) as `load_state_dict` does, and for a checkpoint
    of minunet's own, which needs no taking in.
    """
    with opened(path) as file:
        head = file.read(9)
        if head[8:] != b"{":
            return load_state_dict(path), True
        data = head + file.read()
    try:
        ours = "minunet" in json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        tensors = {} if ours else {name: _array(tensor) for name, tensor in safetensors.deserialize(data)}
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: is a damaged safetensors file; copy it again, or take another") from error
    if ours:
        raise UserError(f"{path}: is a checkpoint of minunet already; use it as it is")
    if not tensors:
        raise UserError(f"{path}: holds no tensors")
    return tensors, False


def _array(tensor: dict) -> np.ndarray:
    """The tensor as an array. Raises KeyError for numbers of another kind."""
    values = np.frombuffer(tensor["data"], NUMBERS[tensor["dtype"]]).reshape(tensor["shape"])
    return bfloat16(values) if tensor["dtype"] == "BF16" else values
