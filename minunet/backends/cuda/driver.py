"""What the NVIDIA driver says of itself and its devices, by ctypes: without CuPy, so that it can tell what is wrong."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache

MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
NAMES = ("libcuda.so.1", "libcuda.so", "nvcuda.dll")


@dataclass(frozen=True)
class Device:
    """One GPU."""

    name: str
    capability: int  # 10 major + minor
    memory: int  # bytes


@dataclass(frozen=True)
class Driver:
    """The newest CUDA that the driver supports, (major, minor), and its devices."""

    version: tuple[int, int]
    devices: tuple[Device, ...]


def _load() -> ctypes.CDLL | None:
    for name in NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


@lru_cache(maxsize=1)
def find() -> tuple[Driver | None, str]:
    """The driver, or (None, why not and the remedy)."""
    library = _load()
    if library is None:
        return None, "no NVIDIA driver (libcuda) was found; install the driver of your GPU"
    return query(library)


def query(library: ctypes.CDLL) -> tuple[Driver | None, str]:
    """What a loaded libcuda says."""
    version, count = ctypes.c_int(), ctypes.c_int()
    code = library.cuInit(0)
    if code:
        return (
            None,
            f"the NVIDIA driver cannot start (cuInit: error {code}); is a GPU visible to this process?",
        )
    library.cuDriverGetVersion(ctypes.byref(version))
    library.cuDeviceGetCount(ctypes.byref(count))
    if not count.value:
        return None, "the NVIDIA driver sees no GPU; look at CUDA_VISIBLE_DEVICES"
    devices = tuple(_device(library, index) for index in range(count.value))
    return Driver((version.value // 1000, version.value % 1000 // 10), devices), ""


def _device(library: ctypes.CDLL, index: int) -> Device:
    handle, major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(handle), index)
    library.cuDeviceGetName(name, len(name), handle)
    library.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, handle)
    library.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, handle)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    return Device(name.value.decode(errors="replace"), 10 * major.value + minor.value, memory.value)
