"""Arguments on their way to a kernel, which nobody checks after us."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from minunet.backends import cuda
from minunet.backends.cuda import columns, launch, maps, sources
from minunet.backends.stems import bind
from minunet.contract import ROWS
from minunet.errors import UserError

F32 = np.dtype(np.float32)
PARAMETERS = sources.kernels("pointwise.cu", "float")["dropout"]


class Recorder:
    """A device that launches nothing and remembers what it was asked for."""

    name = "recorder"

    def __init__(self) -> None:
        self.launches: list[tuple] = []

    def empty(self, shape, dtype):
        return np.empty(shape, dtype)

    def address(self, array) -> int:
        return array.__array_interface__["data"][0]

    def run(self, program, kernel, grid, block, shared, parameters, arguments) -> None:
        self.launches.append((program, kernel, grid, block, shared, arguments))


def test_numbers_become_the_kernels_own_types():
    y, x = np.empty(4, F32), np.ones(4, F32)
    packed = launch.pack("dropout", PARAMETERS, (y, x, 4, 1, 2**64 - 1, 7, 0.5))
    assert packed[0] is y
    assert packed[1] is x
    assert [type(v) for v in packed[2:]] == [np.int32, np.int32, np.uint64, np.int32, np.float32]


BAD = {
    "too few": ((1, 2), "dropout takes 7 arguments .*; got 2"),
    "an int that is none": ((None, None, 4.0, 1, 0, 7, 0.5), "n = 4.0 is no int32"),
    "an int too large": ((None, None, 2**31, 1, 0, 7, 0.5), "n = 2147483648 is no int32"),
    "a negative seed": ((None, None, 4, 1, -1, 7, 0.5), "seed = -1 is no uint64"),
    "no number": ((None, None, 4, 1, 0, 7, "half"), "keep = 'half' is no number"),
    "another dtype": ((np.empty(4), None, 4, 1, 0, 7, 0.5), "y must be an array of float32; it is float64"),
    "no array": ((3, None, 4, 1, 0, 7, 0.5), "y must be an array of float32; it is 3"),
}


@pytest.mark.parametrize("label", BAD)
def test_arguments_that_do_not_fit_are_named(label):
    arguments, message = BAD[label]
    with pytest.raises(TypeError, match=message):
        launch.pack("dropout", PARAMETERS, arguments)


def test_a_view_is_refused():
    with pytest.raises(ValueError, match="y is not C-contiguous"):
        launch.pack("dropout", PARAMETERS, (np.empty((4, 4), F32).T, None, 4, 1, 0, 7, 0.5))


def test_more_elements_than_an_int_counts():
    huge = SimpleNamespace(dtype=F32, flags=SimpleNamespace(c_contiguous=True), size=2**31)
    with pytest.raises(UserError, match="use a smaller batch or tile"):
        launch.pack("dropout", PARAMETERS, (huge, None, 4, 1, 0, 7, 0.5))


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [
        (1, 33, 0, "whole warps"),
        (1, 2048, 0, "at most 1024"),
        (1, (1, 1, 96), 0, "whole warps"),
        ((1, 70000), 32, 0, "beyond any device"),
        (1, 32, 300_000, "beyond any device"),
    ],
)
def test_geometry_is_checked(grid, block, shared, message):
    x = np.ones(4, F32)
    with pytest.raises(ValueError, match=message):
        launch.launch(Recorder(), "pointwise.cu", "relu", F32, grid, block, x, x, 4, 1, shared=shared)


@pytest.mark.parametrize("row", [row for row in ROWS if row.startswith("upsample")])
def test_sides_whose_product_an_int_does_not_hold(row):
    device = Recorder()
    kernels, long = bind("minunet.backends.cuda", device), np.zeros((1, 1 << 16, 1, 1), F32)
    options = {"align_corners": False} if "bilinear" in row else {}
    for most, refused in ((1 << 14, True), ((1 << 14) - 1, False)):
        short = np.zeros((1, most, 1, 1), F32)
        y, x = (short, long) if row.endswith("grad") else (long, short)
        if refused:
            with pytest.raises(UserError, match=f"{row}: sides of .* too long; use smaller tiles"):
                kernels[row](y, x, **options)
        else:
            kernels[row](y, x, **options)
    assert len(device.launches) == 1


def test_an_unknown_kernel_is_named():
    with pytest.raises(ValueError, match=r"optim\.cu has no kernel 'lamb'; it has sgd, adam"):
        launch.launch(Recorder(), "optim.cu", "lamb", F32, 1, 32)


def test_an_empty_grid_launches_nothing():
    device, x = Recorder(), np.ones(0, F32)
    launch.launch(device, "pointwise.cu", "relu", F32, 0, 32, x, x, 0, 0)
    assert device.launches == []


def test_macros_are_part_of_the_program():
    device, x = Recorder(), np.ones(4, F32)
    launch.launch(device, "pointwise.cu", "relu", F32, (1, 2), (32, 2), x, x, 4, 1, TILE=8, ROWS=2)
    program, kernel, grid, block, _, _ = device.launches[0]
    assert program.macros == ("-DREAL=float", "-DROWS=2", "-DTILE=8")
    assert (kernel, grid, block) == ("relu", (1, 2, 1), (32, 2, 1))


def test_unaligned_arrays_go_element_by_element():
    memory = np.zeros(64, F32)
    start = -memory.ctypes.data % 16 // 4
    device, on, off = Recorder(), memory[start : start + 17], memory[start + 1 : start + 18]
    assert launch.vectors(device, 17, on) == 4
    assert launch.vectors(device, 17, on, off) == 0
    narrow, wide = memory[start + 1 : start + 17].reshape(1, 2, 2, 4), memory[start : start + 16].reshape(1, 2, 2, 4)
    assert columns.columns(device, wide).wide
    assert not columns.columns(device, narrow).wide
    assert maps.maps(device, wide).wide
    assert not maps.maps(device, wide, narrow).wide
    assert not maps.maps(device, wide, parts=(6,)).wide


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 7, 5, 3), (1, 570, 570, 64), (8, 30, 30, 1024), (1, 1, 1, 5000)])
def test_geometry_covers_the_array(shape):
    array = np.broadcast_to(np.float32(0), shape)  # no memory
    g = columns.columns(Recorder(), array)
    x, y = g.block
    each = 4 if g.wide else 1
    assert x * y == launch.THREADS
    assert y & (y - 1) == 0
    assert g.grid[0] * x * each >= g.channels > (g.grid[0] - 1) * x * each
    assert 1 <= g.grid[1] <= columns.BLOCKS
    m = maps.maps(Recorder(), array)
    assert m.grid[0] * m.block[1] >= shape[2] > (m.grid[0] - 1) * m.block[1]


def test_every_row_has_a_launcher():
    assert sorted(cuda.kernels) == sorted(ROWS)
