"""A launch on CuPy's stream with CuPy's arrays, without a copy, without waiting, and with what can be kept kept.

Numba takes a CuPy array as it is, but then asks CuPy for a DLPack capsule twice at each launch, for the type and for
the address, where CuPy orders streams and warns of the default one; given `__cuda_array_interface__` alone it waits for
the array's stream (unless NUMBA_CUDA_ARRAY_INTERFACE_SYNC=0). So kernels get Numba's own view of the memory: address,
shape and dtype, nothing that would wait or keep the memory alive. The stream's order and CuPy's pool do that.

Views and configured kernels are kept: a network's step asks CuPy's pool for the same addresses as the step before.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from minunet.backends.numba_cuda.launch import Grid
from minunet.backends.numba_cuda.library import require

VIEWS, LAUNCHES = 16384, 4096  # kept, the oldest go first: 0.8 and 4 KB each of the host's memory


@lru_cache(maxsize=VIEWS)
def view(pointer: int, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Numba's array over contiguous memory. It owns nothing: the array behind it must outlive the launch."""
    interface = {"version": 3, "data": (pointer, False), "shape": shape, "strides": None, "typestr": dtype.str}
    return require().from_cuda_array_interface(interface, sync=False)


@lru_cache(maxsize=LAUNCHES)
def _configured(kernel: Any, grid: Grid, block: Grid, stream: int, device: int) -> Any:
    """The kernel with its grid on a stream, ready to be called. device : since each has a default stream, 0."""
    cuda = require()
    return kernel[grid, block, cuda.external_stream(stream) if stream else cuda.default_stream()]


def launch(cupy: Any, kernel: Any, grid: Grid, block: Grid, arguments: tuple[Any, ...]) -> None:
    """Run the kernel on CuPy's current device and stream. arguments : CuPy's arrays, contiguous, and numbers."""
    stream, device = cupy.cuda.get_current_stream().ptr, cupy.cuda.runtime.getDevice()
    array = cupy.ndarray
    given = [view(a.data.ptr, a.shape, a.dtype) if isinstance(a, array) else a for a in arguments]
    _configured(kernel, grid, block, stream, device)(*given)
