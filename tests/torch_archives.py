"""PyTorch's two file formats, written without PyTorch: what tests read back, and what they damage."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

W = np.arange(24, dtype="<f4").reshape(2, 3, 2, 2) / 7


class Global:
    """Pickled as a bare name: `Global("torch", "FloatStorage")`."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Call:
    """Pickled as a call: what a hostile __reduce__ writes, or what PyTorch writes for a tensor."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


class Stored:
    """Pickled as PyTorch's persistent id of a storage."""

    def __init__(self, key, count, kind="Float", what="storage"):
        self.reference = (what, Global("torch", f"{kind}Storage"), key, "cpu", count)


class Writer(pickle._Pickler):
    """Python's pickler, that writes names without importing them."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj):
        return obj.reference if isinstance(obj, Stored) else None

    def save_reduce(self, func, args, *rest, obj=None, **more):
        if isinstance(func, Global | Call):
            self.save(func)
            self.save(tuple(args))
            self.write(pickle.REDUCE)
        else:
            super().save_reduce(func, args, *rest, obj=obj, **more)


def pickled(value, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    Writer(file, protocol).dump(value)
    return file.getvalue()


def tensor(shape, strides, key="0", count=24, offset=0, kind="Float"):
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, Stored(key, count, kind), offset, shape, strides, False, OrderedDict())


WEIGHT = tensor((2, 3, 2, 2), (12, 4, 2, 1))


def archive(path: Path, data: bytes, storages=None, compression=zipfile.ZIP_STORED, **records) -> Path:
    """A file in PyTorch's zip format around a pickle."""
    storages = {"0": W.tobytes()} if storages is None else storages
    with zipfile.ZipFile(path, "w", compression) as z:
        z.writestr("net/data.pkl", data)
        for key, numbers in storages.items():
            z.writestr(f"net/data/{key}", numbers)
        for name, text in records.items():
            z.writestr(f"net/{name}", text)
    return path


def parts(path: Path, data: bytes, keys=("0",), counts=(24,)) -> Path:
    """A file in the format before torch 1.6. It has a storage if the pickle speaks of one."""
    keys = keys if b"storage" in data else ()
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    tail = b"".join(struct.pack("<q", n) + W.tobytes() for n in counts)
    path.write_bytes(head + data + pickle.dumps(list(keys), 2) + tail)
    return path


FORMATS = {"zip": archive, "parts": parts}


def files(folder: Path, state: dict[str, np.ndarray]) -> dict[str, bytes]:
    """{file name: bytes} of a network's weights in each format that `minunet models import` reads."""
    import safetensors.numpy

    arrays = [np.ascontiguousarray(a, "<f4") for a in state.values()]
    pickles = {}
    for k, (name, a) in enumerate(zip(state, arrays)):
        strides = tuple(s // 4 for s in a.strides)
        pickles[name] = tensor(a.shape, strides, str(k), a.size)
    data, keys = pickled(pickles), [str(k) for k in range(len(arrays))]
    scratch = folder / "scratch.pth"
    made = {"zip.pth": archive(scratch, data, {k: a.tobytes() for k, a in zip(keys, arrays)}).read_bytes()}
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    tail = b"".join(struct.pack("<q", a.size) + a.tobytes() for a in arrays)
    made["parts.pth"] = head + data + pickle.dumps(keys, 2) + tail
    made["net.safetensors"] = safetensors.numpy.save(dict(zip(state, arrays)), metadata={"format": "pt"})
    scratch.unlink()
    return made
