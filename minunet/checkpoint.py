"""Checkpoints: a network, its optimiser and everything needed to go on, in one safetensors file.

    8 bytes   length of the header
    header    JSON: where each tensor lies, and `__metadata__`, in which the key `minunet` holds our own JSON:
              {"sha256", "format", "minunet": version, "config": of models.build, "extra": the caller's}
    tensors   model/..., optimizer/..., arrays/...   (optimizer/ and arrays/ only where there are any)

Nothing in it is code (no pickle), so a checkpoint from a stranger can be loaded. The sha256 covers every byte of the
file, its own 64 digits taken as zeros: no damage, in numbers, names or text, goes unnoticed. The same state gives the
same bytes. A file is replaced whole or not at all, whatever kills the process. Since disks err too, the file that was
replaced stays beside it (NAME.previous.safetensors) and is offered where the newest one is damaged.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from minunet import __version__, models
from minunet.errors import UserError
from minunet.files import atomic_write, second_name
from minunet.models.base import Network
from minunet.nn.optim import Optimizer

FORMAT = 1  # raised when a file can no longer be read by the minunet before
KEY = "minunet"
_MARK = b'{\\"sha256\\":\\"'  # our JSON as it lies in the header, its quotes escaped; the digits follow
_ZEROS = b"0" * 64
_CHUNK = 2**20
_TRAINING_ONLY = {"seed", "dropout"}  # arguments that change how a network is trained, not what its weights compute


@dataclass
class Checkpoint:
    """What a file held."""

    model: Network  # weights loaded
    optimizer_state: dict[str, np.ndarray] | None  # for Optimizer.load_state_dict; None if none was saved
    extra: dict[str, Any]
    arrays: dict[str, np.ndarray]
    version: str  # of the minunet that wrote it


def save(
    path: str | os.PathLike[str],
    model: Network,
    *,
    optimizer: Optimizer | None = None,
    extra: Mapping[str, Any] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    keep_previous: bool = True,
) -> None:
    """Write a checkpoint; `path` is the old file or the complete new one at every moment.

    model  : a network from `models.build`, whose `.config` is saved, with all parameters and buffers
    extra  : what JSON can say, under string keys: configuration, step, `rng.bit_generator.state`, ... NumPy numbers
             become Python's; tuples come back as lists
    arrays : further arrays by name: real (float16 and wider), integer or bool, of any shape
    keep_previous : keep a whole checkpoint that `path` is now as `previous(path)`

    Raises UserError where the disk refuses, ValueError for a model without config, or what the format cannot hold.
    """
    config = getattr(model, "config", None)
    if config is None:
        raise ValueError("checkpoint: this model has no config to build it from again; make it with models.build")
    groups = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict() if optimizer else {},
        "arrays": arrays or {},
    }
    tensors = {f"{group}/{name}": _storable(name, a) for group in groups for name, a in groups[group].items()}
    data = safetensors.numpy.save(tensors, metadata={KEY: _metadata(config, extra or {})})
    at = _digits_at(data)
    if keep_previous and is_whole(path):
        second_name(path, previous(path))
    with atomic_write(path) as tmp, tmp.open("wb") as file:
        file.write(data)
        file.seek(at)
        file.write(_sha256(data, at).encode())


def _metadata(config: Mapping[str, Any], extra: Mapping[str, Any]) -> str:
    """Our JSON, with zeros where the checksum's digits will stand."""
    ours = {
        "sha256": _ZEROS.decode(),
        "format": FORMAT,
        "minunet": __version__,
        "config": config,
        "extra": dict(extra),
    }
    try:
        return json.dumps(ours, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"checkpoint: config and extra must be what JSON can say: {error}") from error


def previous(path: str | os.PathLike[str]) -> Path:
    """Where the checkpoint before `path` is kept: run/checkpoint.previous.safetensors for run/checkpoint.safetensors"""
    target = Path(os.path.realpath(path) if os.path.exists(path) else path)
    return target.with_name(f"{target.stem}.previous{target.suffix}")


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Whether a file is there and is a checkpoint with every byte as it was saved; a piece at a time in memory."""
    if not (os.path.isfile(path) and os.access(path, os.R_OK)):
        return False
    with open(path, "rb") as file:
        start = file.read(8)
        data = start + file.read(min(int.from_bytes(start, "little"), os.path.getsize(path)))
        at = _digits_at(data)
        if at < 0:
            return False
        digest = _digest(data, at)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest().encode() == data[at : at + 64]


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint in a file: the network built anew from its config, in the precision it was saved in.

    Raises UserError (one line: file, what is wrong, remedy) for a file that is missing, cut short, damaged in any
    bit, made by a newer minunet, no checkpoint at all, or of a network that is not known here. Where the checkpoint
    before it is whole, the remedy names that one.
    """
    ours, tensors = read(path)
    config = dict(ours["config"])
    try:
        name = config.pop("model")
        with models.shapes_only():
            _refuse_giant(path, models.build(name, **config), tensors)
        model = models.build(name, **config)
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{path}: its network cannot be built here ({error}); use minunet {ours['minunet']}, which wrote it"
        ) from error
    floats = {a.dtype for name, a in tensors.items() if name.startswith("model/") and a.dtype.kind == "f"}
    if floats and (dtype := np.result_type(*floats)) != np.float32:
        model.astype(dtype)
    return _fill(model, path, ours, tensors)


def load_into(model: Network, path: str | os.PathLike[str]) -> Checkpoint:
    """Load a file's weights into an existing network, converted to its precision.

    The network must be the one saved: same name and arguments, `seed` and `dropout` aside. Raises UserError that
    names the first difference, or as `load` does; the model is then unchanged.
    """
    ours, tensors = read(path)
    saved, wanted = _with_defaults(model, ours["config"]), _with_defaults(model, getattr(model, "config", {}))
    for key in [*wanted, *saved]:
        if key not in _TRAINING_ONLY and saved.get(key) != wanted.get(key):
            raise UserError(
                f"{path}: is a checkpoint of another network: its {key} is {saved.get(key)}, and this model's is "
                f"{wanted.get(key)}; build the model with {key} = {saved.get(key)}, or take another checkpoint"
            )
    return _fill(model, path, ours, tensors)


def _refuse_giant(path: Any, shapes: Network, tensors: Mapping[str, np.ndarray]) -> None:
    """Raise UserError for a network of far more numbers than the file has, before memory is taken for them."""
    needed = sum(p.data.size for p in shapes.parameters())
    given = sum(a.size for name, a in tensors.items() if name.startswith("model/"))
    if needed > 2 * given + _CHUNK:
        raise UserError(f"{path}: says it is a network of {needed:,} numbers, and has {given:,}; take another file")


def _fill(model: Network, path: Any, ours: dict[str, Any], tensors: dict[str, np.ndarray]) -> Checkpoint:
    groups: dict[str, dict[str, np.ndarray]] = {"model": {}, "optimizer": {}, "arrays": {}}
    for name, array in tensors.items():
        group, _, rest = name.partition("/")
        groups.setdefault(group, {})[rest] = array
    try:
        model.load_state_dict(groups["model"])
    except ValueError as error:
        raise UserError(f"{path}: {error}; take a checkpoint of this network, made by this version") from error
    return Checkpoint(model, groups["optimizer"] or None, ours["extra"], groups["arrays"], ours["minunet"])


def _with_defaults(model: Network, config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the arguments that were left out, so that width=64 given and width=64 by default are equal."""
    parameters = inspect.signature(type(model).__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty} | dict(config)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Our part of the metadata and the tensors, after every check that needs no model. Raises UserError as `load`."""
    try:
        return _read(path)
    except UserError as error:
        if is_whole(kept := previous(path)):
            raise UserError(f"{error}; the checkpoint before it is whole: {kept}") from error
        raise


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    data = _bytes(path)
    damaged = UserError(f"{path}: is damaged, its bytes are not those that were saved; copy it again, or take another")
    try:
        header, end = _header(data)
        if end > len(data):
            raise UserError(f"{path}: is cut short ({len(data)} of {end} bytes); copy it again, or take another")
        text = header.get("__metadata__", {}).get(KEY)
        if text is None:
            raise UserError(
                f"{path}: is a safetensors file without minunet's metadata, so no checkpoint of minunet; "
                "weights of other programs are taken in by minunet.from_torch"
            )
        ours = json.loads(text)
        if int(ours["format"]) > FORMAT:
            raise UserError(
                f"{path}: is in checkpoint format {ours['format']}, newer than minunet {__version__} reads ({FORMAT}); "
                "update minunet"
            )
        at = _digits_at(data)
        if at < 0 or _sha256(data, at).encode() != data[at : at + 64]:
            raise damaged
        if not isinstance(ours["config"], dict) or not isinstance(ours["extra"], dict):
            raise damaged
        return ours, safetensors.numpy.load(data)
    except UserError:
        raise
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise damaged from error  # JSON that is broken, or not of the structure written above


def _bytes(path: str | os.PathLike[str]) -> bytes:
    """The file's contents, if they begin like a safetensors file: 8 bytes of length, then JSON."""
    try:
        with open(path, "rb") as file:
            data = file.read(9)
            if len(data) == 9 and data[8:] == b"{":
                return data + file.read()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint; check the name and the folder") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder; name the checkpoint file in it") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UserError(f"{path}: cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    what = "is not a safetensors file" if len(data) == 9 else f"is empty or cut short ({len(data)} bytes)"
    raise UserError(f"{path}: {what}, so no checkpoint; name a file that minunet train has written")


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The JSON header, and how many bytes it says the file has; an empty header where it is itself cut short."""
    size = 8 + int.from_bytes(data[:8], "little")
    if size > len(data):
        return {}, size
    header = json.loads(data[8:size])
    return header, size + max((t["data_offsets"][1] for key, t in header.items() if key != "__metadata__"), default=0)


def _digits_at(data: bytes) -> int:
    """Where the checksum's digits begin, negative if nowhere."""
    found = data.find(_MARK, 8, 8 + int.from_bytes(data[:8], "little"))
    return found + len(_MARK) if found >= 0 else -1


def _sha256(data: bytes, at: int) -> str:
    """sha256 of all bytes, with zeros for the 64 digits that begin at `at`."""
    return _digest(data, at).hexdigest()


def _digest(data: bytes, at: int) -> Any:
    view = memoryview(data)
    digest = hashlib.sha256(view[:at])
    digest.update(_ZEROS)
    digest.update(view[at + 64 :])
    return digest


def _storable(name: str, array: Any) -> np.ndarray:
    array = np.asarray(array, order="C")
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise ValueError(f"checkpoint: array {name!r} is {array.dtype}; it must be real (to float64), integer or bool")
    return array


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__module__}.{type(value).__name__} is not (arrays go into `arrays`)")
