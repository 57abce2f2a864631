"""PyTorch's `.pth` / `.pt` files as NumPy arrays, without PyTorch and without running what a stranger pickled.

    zip archive (torch 1.6 and newer)             one file of parts (before)
    NAME/data.pkl     a pickle that names         pickle  magic number
                      storages by key             pickle  protocol, 1001
    NAME/data/KEY     one storage's numbers       pickle  {"little_endian": ...}
    NAME/byteorder    "little" or "big"           pickle  the object, naming storages by key
                                                  pickle  the keys, in the order of the storages
                                                  for each: int64 how many numbers, then the numbers

A tensor is a strided view of a storage. Sizes, offsets and strides come from the file, so each is checked against
the bytes that are really there before anything is made of it: memory used stays within a few times the file's size.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, BinaryIO

import numpy as np

from minunet.errors import UserError
from minunet.torchpickle import STORAGES, Name, RefusedError, View, printable, read

KINDS = {  # storage -> its numbers
    "Double": "f8",
    "Float": "f4",
    "Half": "f2",
    "BFloat16": "u2",  # its bits
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "u1",
}
HOLDERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "params", "weights")
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
MOST = 100_000  # entries looked through for tensors, and
LONGEST = 500  # characters of a name: beyond these a file is an attack, not a network
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_RESAVE = "load it with PyTorch on a machine where it is trusted, and save model.state_dict() alone"
_DAMAGE = (  # what the readers of pickles and zip archives raise where the bytes make no sense
    *(ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, EOFError, OSError),
    *(struct.error, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
)


@dataclass(eq=False)
class _Storage:
    """`count` numbers; `fetch` reads their bytes, when a tensor that is wanted lies in them."""

    kind: str
    count: int
    fetch: Callable[[], Any]
    order: str = "<"
    _values: np.ndarray | None = field(default=None, repr=False)

    def values(self) -> np.ndarray:
        """All numbers, flat, in this machine's byte order: a view of the bytes where that is possible."""
        if self._values is None:
            stored = np.dtype(self.order + KINDS[self.kind])
            data = self.fetch()
            if len(data) != self.count * stored.itemsize:
                raise ValueError(f"a storage of {self.count} {self.kind} numbers has {len(data)} bytes")
            values = np.frombuffer(data, stored).astype(stored.newbyteorder("="), copy=False)
            if self.kind == "BFloat16":
                values = bfloat16(values)
            self._values = values != 0 if self.kind == "Bool" else values
        return self._values


def load_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """{PyTorch name: array} of the weights in a `.pth` or `.pt` file, in the file's order.

    A checkpoint's weights are found under "state_dict", "model", ... (`HOLDERS`); dicts in dicts give dotted names;
    "module." before every name is dropped. bfloat16 becomes float32, exactly. The arrays may be read-only.

    Raises UserError (one line: file, what is wrong, remedy) for a file that is missing, damaged, of another kind,
    holds no tensors, claims sizes that its bytes do not have, or names anything but tensors. No code in it runs.
    """
    with opened(path) as file:
        try:
            weights = {name: _array(name, view) for name, view in _weights(_contents(file)).items()}
        except RefusedError as error:
            raise UserError(
                f"{path}: asks for {error}, which no state dict needs; nothing was run; {_RESAVE}"
            ) from error
        except _DAMAGE as error:
            why = printable(" ".join(str(error).split()))
            raise UserError(f"{path}: is damaged or no PyTorch file ({why}); copy it again, or take another") from error
    if not weights:
        raise UserError(f"{path}: holds no tensors with names; save model.state_dict() with torch.save")
    return weights


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """The file, open for reading. Raises UserError where it cannot be opened."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the name and the folder") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder; name the weights file in it") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror or error})") from error
    with file:
        yield file


def bfloat16(bits: np.ndarray) -> np.ndarray:
    """float32 numbers of bfloat16's bits, which are the upper half of theirs. bits : uint16"""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _contents(file: BinaryIO) -> Any:
    """The object that was saved, its tensors as Views of storages."""
    head = file.read(4)
    file.seek(0)
    if head == b"PK\x03\x04":
        return _archive(file)
    if head[:1] == b"\x80":
        return _parts(file.read())
    raise ValueError("it begins neither as a zip archive nor as a pickle")


def _archive(file: BinaryIO) -> Any:
    """Read the zip format. Records lie there as they are, together no longer than the file: there is no zip bomb."""
    archive = zipfile.ZipFile(file)
    records = {record.filename.partition("/")[2]: record for record in archive.infolist()}
    if any(record.compress_type != zipfile.ZIP_STORED for record in records.values()):
        raise RefusedError("a compressed record")
    if sum(record.file_size for record in archive.infolist()) > file.seek(0, io.SEEK_END):
        raise ValueError("its records claim more bytes than the file has")

    def fetch(name: str) -> bytes:
        if name not in records:
            raise ValueError(f"the record {name} is missing")
        return archive.read(records[name])  # compares the CRC-32 too

    order = {b"little": "<", b"big": ">"}[fetch("byteorder")] if "byteorder" in records else "<"
    storages: dict[str, _Storage] = {}

    def storage(reference: Any) -> _Storage:
        kind, key, count = _reference(reference)
        made = _Storage(kind, count, partial(fetch, f"data/{key}"), order)
        return _same(storages.setdefault(key, made), made)

    return read(io.BytesIO(fetch("data.pkl")), storage)


def _parts(data: bytes) -> Any:
    """Read the format before torch 1.6. Its numbers are little-endian whatever machine wrote them."""
    file = io.BytesIO(data)
    storages: dict[str, _Storage] = {}

    def storage(reference: Any) -> _Storage:
        kind, key, count = _reference(reference)
        made = _Storage(kind, count, bytes)
        return _same(storages.setdefault(key, made), made)

    if read(file, storage) != _MAGIC or read(file, storage) != _PROTOCOL:
        raise ValueError("a pickle, but without torch.save's magic number")
    read(file, storage)  # facts about the machine that wrote it
    contents = read(file, storage)
    for key in read(file, storage):
        made = storages.get(key) if isinstance(key, str) else None
        if made is None:
            raise ValueError("a storage that is in no tensor")
        count, at = int.from_bytes(file.read(8), "little"), file.tell()
        end = at + made.count * np.dtype(KINDS[made.kind]).itemsize
        if count != made.count or end > len(data):
            raise ValueError(f"a storage is cut short, or not of its {made.count} numbers")
        made.fetch = partial(memoryview(data).__getitem__, slice(at, end))
        file.seek(end)
    return contents


def _reference(reference: Any) -> tuple[str, str, int]:
    """(kind, key, count) of ("storage", Name("torch.FloatStorage"), key, location, count[, None])."""
    what, name, key, _, count, *view = reference
    if what != "storage" or not isinstance(name, Name) or any(v is not None for v in view):
        raise RefusedError(f"a saved {printable(str(what)) if isinstance(what, str) else type(what).__name__}")
    kind = STORAGES.get(name.text)
    if kind is None or not isinstance(key, str) or len(key) > LONGEST or type(count) is not int or count < 0:
        raise ValueError("a storage without kind, key or size")
    return kind, key, count


def _same(first: _Storage, again: _Storage) -> _Storage:
    if (first.kind, first.count) != (again.kind, again.count):
        raise ValueError("one storage is given two sizes")
    return first


def _weights(contents: Any) -> dict[str, View]:
    """The tensors by name, of the dict that a checkpoint keeps its weights in."""
    for _ in range(len(HOLDERS)):
        holders = [contents[key] for key in HOLDERS if isinstance(contents, dict) and key in contents]
        inner = next((held for held in holders if isinstance(held, dict) and _named(held)), None)
        if inner is None:
            break
        contents = inner
    named = _named(contents)
    while named and (wrapper := next((w for w in WRAPPERS if all(n.startswith(w) for n in named)), None)):
        named = {name.removeprefix(wrapper): view for name, view in named.items()}
    return named


def _named(contents: Any) -> dict[str, View]:
    """Every tensor in dicts of dicts, by the keys that lead to it joined with dots; a dict may lie in itself."""
    found: dict[str, View] = {}
    waiting, entries = [("", contents)], 0
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, View):
            found[name] = value
        elif isinstance(value, dict):
            entries += len(value)
            keys = [str(key) for key in value]
            if entries > MOST or len(name) + max(map(len, keys), default=0) > LONGEST:
                raise ValueError(f"more than {MOST} entries, or names of more than {LONGEST} characters")
            dotted = [f"{name}.{key}" if name else key for key in keys]
            waiting.extend(reversed(list(zip(dotted, value.values()))))
    return found


def _array(name: str, view: View) -> np.ndarray:
    """The tensor's numbers as a NumPy view of its storage. Raises ValueError for a view that leaves the storage,
    or meets a number twice (then a few bytes could claim to be a terabyte)."""
    storage, offset, shape, strides = view.storage, view.offset, view.shape, view.strides
    whole = isinstance(storage, _Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)
    if not whole or len(shape) != len(strides) or len(shape) > 16:
        raise ValueError(f"tensor {name} has no storage, shape or strides")
    if any(type(n) is not int or n < 0 for n in (offset, *shape, *strides)):
        raise ValueError(f"tensor {name} has a negative offset, size or stride")
    reach = 0  # of the axes so far, from the closest numbers to the widest apart
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape) if size > 1):
        if stride <= reach:
            raise ValueError(f"tensor {name} overlaps itself (shape {shape}, strides {strides})")
        reach += stride * (size - 1)
    if prod(shape) and offset + reach >= storage.count:
        raise ValueError(f"tensor {name} of shape {shape} leaves its storage of {storage.count} numbers")
    values = storage.values()
    if not prod(shape):
        return np.zeros(shape, values.dtype)
    size = values.itemsize
    return np.ndarray(shape, values.dtype, values, offset * size, [stride * size for stride in strides])
