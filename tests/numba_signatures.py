"""What the launchers launch: kernels with the types of their arguments, recorded instead of run."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import numpy as np

from minunet.backends.numba_cuda import conv
from minunet.backends.stems import bind
from minunet.contract import ROWS, Spec


class Recorder:
    """A device that notes (kernel, argument types) of each launch. Workspaces are NumPy arrays."""

    name = "recorder"

    def __init__(self) -> None:
        self.seen: dict[tuple[Any, tuple], tuple[int, int, int]] = {}  # to the largest block

    def empty(self, shape, dtype):
        return np.empty(shape, dtype)

    def run(self, kernel, grid, block, arguments):
        from numba import typeof

        assert all(1 <= size <= 65535 for size in grid[1:]) and grid[0] >= 1, f"{kernel.__name__}: grid {grid}"
        threads = block[0] * block[1] * block[2]
        assert threads <= 1024, f"{kernel.__name__}: block {block}"
        self.seen[kernel, tuple(map(typeof, arguments))] = block


def recorded(dtype: np.dtype, cases) -> Recorder:
    """Every launch of every row and every step of the convolution's ladder, for arrays of `dtype`."""
    device = Recorder()
    kernels = bind("minunet.backends.numba_cuda", device)

    def launch(row, case):
        inputs = case.inputs(np.random.default_rng(0), dtype)
        specs = (None if a is None else Spec(a.shape, a.dtype) for a in inputs)
        outputs = (np.empty(*spec) for spec in row.rule(*specs, **case.options).outputs)
        options = {k: v for k, v in case.options.items() if k not in row.shape_only}
        kernels[row.name](*outputs, *inputs, **options)

    for row in ROWS.values():
        for case in cases(row.name):
            launch(row, case)
    for name, steps in conv.LADDER.items():
        case = next(c for c in cases(name) if c.label == "3x3 same")
        for step in steps:
            with conv.use_step(step):
                launch(ROWS[name], case)
    return device


class Compiled:
    """PTX of a kernel for its argument types. Types and LLVM IR are made once, as Numba does for several devices."""

    def __init__(self, kernel: Any, types: tuple) -> None:
        from numba.cuda import compiler

        with compute_capability((7, 5)):
            self._library, _ = compiler._compile_pyfunc_with_fixup(
                kernel.py_func, types, device=False, abi="numba", cc=(7, 5)
            )

    def ptx(self, cc: tuple[int, int]) -> str:
        return self._library.get_asm_str(cc=cc)


@contextmanager
def compute_capability(cc: tuple[int, int]):
    """Numba compiles device functions for the current device; where there is none it is told this one."""
    from numba.cuda import dispatcher

    class Device:
        compute_capability = cc

    before = dispatcher.get_current_device
    dispatcher.get_current_device = Device
    try:
        yield
    finally:
        dispatcher.get_current_device = before
