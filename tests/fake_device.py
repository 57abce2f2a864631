"""A stand-in for a GPU: arrays that are not NumPy's and never become NumPy's by accident, kernels of the reference.

It takes the place of the backend `cuda` (`with installed() as device: ...`), so that the public names and `--device
cuda` lead here. What works here mixes no arrays of host and device, which only CuPy would otherwise tell: its arrays do
what CuPy's do and no more; NumPy's functions, and NumPy arrays as operands, indices or values, are refused. Copies
between host and device are counted, and memory can be made short.
"""

from __future__ import annotations

import gc
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from minunet import backends
from minunet.backends import reference
from minunet.errors import DeviceMemoryError


class MixedError(TypeError):
    """An array of the host met one of the device."""


class Device:
    """What happened: bytes copied each way, bytes alive, and how many there may be."""

    def __init__(self) -> None:
        self.to_device: list[int] = []
        self.to_host: list[int] = []
        self.live = self.most = 0
        self.limit = 1 << 40

    def take(self, nbytes: int) -> None:
        """Raises DeviceMemoryError where so much is not there, as CuPy does: after what only cycles hold is gone."""
        if self.live + nbytes > self.limit:
            gc.collect()
        if self.live + nbytes > self.limit:
            raise DeviceMemoryError(f"the GPU's memory is full ({nbytes} bytes were asked for)")
        self.live += nbytes
        self.most = max(self.most, self.live)

    def forget_copies(self) -> None:
        self.to_device.clear()
        self.to_host.clear()


_current = [Device()]


def _bare(value: Any) -> Any:
    """The NumPy array inside of an operand; a plain number stays. Refuses NumPy arrays."""
    if isinstance(value, DeviceArray):
        return value._host
    if isinstance(value, np.ndarray):
        raise MixedError("a NumPy array meets an array of the device")
    return value


def _index(key: Any) -> Any:
    return tuple(_bare(k) for k in key) if isinstance(key, tuple) else _bare(key)


def _binary(function: Any) -> Any:
    def method(self: DeviceArray, other: Any) -> DeviceArray:
        return DeviceArray(function(self._host, _bare(other)))

    return method


def _reflected(function: Any) -> Any:
    def method(self: DeviceArray, other: Any) -> DeviceArray:
        return DeviceArray(function(_bare(other), self._host))

    return method


def _in_place(function: Any) -> Any:
    def method(self: DeviceArray, other: Any) -> DeviceArray:
        function(self._host, _bare(other))
        return self

    return method


class DeviceArray:
    """An array in the memory of the device."""

    __array_priority__ = 1000
    __array_ufunc__ = None  # NumPy's operators then ask ours, and ours refuse

    def __init__(self, host: Any, view: bool = False):
        self._host, self._device, self._counted = np.asarray(host), _current[0], 0
        if not view:
            self._device.take(self._host.nbytes)
            self._counted = self._host.nbytes

    def __del__(self) -> None:
        self._device.live -= self._counted

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        raise MixedError("an array of the device was about to become a NumPy array by itself; use backends.to_numpy()")

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        raise MixedError(f"numpy.{function.__name__} was called with an array of the device")

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    size = property(lambda self: self._host.size)
    ndim = property(lambda self: self._host.ndim)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    flags = property(lambda self: self._host.flags)

    def __repr__(self) -> str:
        return f"DeviceArray({self.shape}, {self.dtype})"

    def __len__(self) -> int:
        return len(self._host)

    def __bool__(self) -> bool:
        return bool(self._number())

    def __float__(self) -> float:
        return float(self._number())

    def __int__(self) -> int:
        return int(self._number())

    def _number(self) -> Any:
        """The only element: a copy to the host, as in CuPy."""
        self._device.to_host.append(self.nbytes)
        return self._host.reshape(-1)[0] if self.size == 1 else bool(self._host)

    def __getitem__(self, key: Any) -> DeviceArray:
        self._mask(key)
        part = self._host[_index(key)]
        view = isinstance(part, np.ndarray) and np.may_share_memory(part, self._host)
        return DeviceArray(part, view=view)

    def _mask(self, key: Any) -> None:
        """CuPy counts what a mask selects, and reads that number."""
        if any(isinstance(k, DeviceArray) and k.dtype == bool for k in (key if isinstance(key, tuple) else (key,))):
            self._device.to_host.append(4)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._mask(key)
        self._host[_index(key)] = _bare(value)

    def fill(self, value: Any) -> None:
        self._host.fill(value)

    def copy(self) -> DeviceArray:
        return DeviceArray(self._host.copy())

    def astype(self, dtype: Any) -> DeviceArray:
        return DeviceArray(self._host.astype(dtype))

    def reshape(self, *shape: Any) -> DeviceArray:
        return DeviceArray(self._host.reshape(*shape), view=True)

    def take(self, indices: DeviceArray, axis: int) -> DeviceArray:
        if not isinstance(indices, DeviceArray):
            raise MixedError("take: the indices are not on the device")
        return DeviceArray(self._host.take(indices._host, axis))

    def partition(self, kth: int) -> None:
        self._host.partition(kth)

    def __invert__(self) -> DeviceArray:
        return DeviceArray(~self._host)

    def item(self) -> Any:
        return self._number().item()

    def all(self) -> DeviceArray:
        return DeviceArray(self._host.all())

    def any(self) -> DeviceArray:
        return DeviceArray(self._host.any())

    def sum(self, *args: Any, **options: Any) -> DeviceArray:
        return DeviceArray(self._host.sum(*args, **options))

    __add__, __radd__ = _binary(operator.add), _reflected(operator.add)
    __sub__, __rsub__ = _binary(operator.sub), _reflected(operator.sub)
    __mul__, __rmul__ = _binary(operator.mul), _reflected(operator.mul)
    __truediv__, __rtruediv__ = _binary(operator.truediv), _reflected(operator.truediv)
    __pow__ = _binary(operator.pow)
    __and__, __or__ = _binary(operator.and_), _binary(operator.or_)
    __lt__, __le__ = _binary(operator.lt), _binary(operator.le)
    __gt__, __ge__ = _binary(operator.gt), _binary(operator.ge)
    __eq__, __ne__ = _binary(operator.eq), _binary(operator.ne)
    __iadd__, __isub__ = _in_place(operator.iadd), _in_place(operator.isub)
    __iand__, __ior__ = _in_place(operator.iand), _in_place(operator.ior)
    __imul__, __itruediv__ = _in_place(operator.imul), _in_place(operator.itruediv)
    __hash__ = None


def _empty(shape: tuple[int, ...], dtype: Any) -> DeviceArray:
    """Full of NaN (integers: the lowest value), as the device's memory holds whatever was there."""
    array = np.empty(shape, dtype)
    array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).min)
    return DeviceArray(array)


def _asarray(a: Any) -> DeviceArray:
    if isinstance(a, DeviceArray):
        return a if a.flags.c_contiguous else a.copy()
    if not isinstance(a, np.ndarray):
        raise MixedError(f"{type(a).__name__} is no array")
    _current[0].to_device.append(a.nbytes)
    return DeviceArray(np.array(a, order="C"))


def _numpy(a: DeviceArray) -> np.ndarray:
    if not isinstance(a, DeviceArray):
        raise MixedError(f"{type(a).__name__} is no array of the device")
    a._device.to_host.append(a.nbytes)
    return a._host.copy()


def _kernel(run: Any) -> Any:
    def launch(*arrays: DeviceArray | None, **options: Any) -> None:
        for a in arrays:
            if a is not None and not isinstance(a, DeviceArray):
                raise MixedError(f"a kernel was given a {type(a).__name__}")
        for value in options.values():
            if isinstance(value, np.ndarray | DeviceArray):
                raise MixedError("an option of a kernel is an array")
        run(*(None if a is None else a._host for a in arrays), **options)

    return launch


def _module() -> ModuleType:
    module = ModuleType("cuda")
    module.name, module.Array = "cuda", DeviceArray
    module.kernels = {name: _kernel(run) for name, run in reference.kernels.items()}
    module.empty, module.asarray, module.numpy = _empty, _asarray, _numpy
    module.available, module.reason = (lambda: True), (lambda: "")
    module.overlap = lambda a, b: np.may_share_memory(a._host, b._host)
    module.capacity, module.occupied = (lambda: _current[0].limit), (lambda: _current[0].live)
    module.device = SimpleNamespace(architecture=lambda: 90)
    return module


@contextmanager
def installed() -> Iterator[Device]:
    """Let the stand-in be the backend `cuda` inside of the block."""
    before = backends._loaded.get("cuda")
    backends._loaded["cuda"] = _module()
    _current[0] = Device()
    try:
        yield _current[0]
    finally:
        if before is None:
            del backends._loaded["cuda"]
        else:
            backends._loaded["cuda"] = before
