"""Crops, concatenation and padding on the CPU: all of them put a box of one array into a box of another.

One compiled kernel does that, an image row a task. What remains is mirrored borders, a few pixels wide: NumPy slices.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minunet.backends.cpu.loops import SERIAL, SPLIT, THREADED
from minunet.jit import njit


@njit(**SERIAL)
def _fill(y, value):
    for k in range(y.size):
        y[k] = value


@njit(**SERIAL)
def _place_row(y, y_shape, y_at, x, x_shape, x_at, box, value, border, t):
    """One row of the box, or with `border` one row of y, of which what is not in the box becomes `value`.

    y, x: flat; shapes (H, W, C); y_at, x_at: (row, column, channel) of the box's first corner; box: its (H, W, C).
    """
    if border:
        n, i = t // y_shape[0], t % y_shape[0] - y_at[0]
    else:
        n, i = t // box[0], t % box[0]
    c, run = y_shape[2], box[2]
    begin = (n * y_shape[0] + y_at[0] + i) * y_shape[1] * c
    row = y[begin : begin + y_shape[1] * c]  # y[n, y_at[0] + i, :, :]
    if i < 0 or i >= box[0]:
        _fill(row, value)
        return
    left, right = y_at[1] * c, (y_at[1] + box[1]) * c
    if border:
        _fill(row[:left], value)
        _fill(row[right:], value)
    source = ((n * x_shape[0] + x_at[0] + i) * x_shape[1] + x_at[1]) * x_shape[2] + x_at[2]
    step = x_shape[2]
    if run == c and run == step:  # whole pixels on both sides: the row is one piece
        run = c = run * box[1]
    for a in range(left + y_at[2], right, c):
        # Unsigned sums of indices, for a slice per pixel would cost as much as 60 channels.
        to, from_ = np.uintp(begin + a), np.uintp(source)
        for k in range(np.uintp(run)):
            y[to + k] = x[from_ + k]
        source += step


@njit(**THREADED)
def _place(y, y_shape, y_at, x, x_shape, x_at, box, value, border, tasks):
    if y.size < SPLIT:
        for t in range(tasks):
            _place_row(y, y_shape, y_at, x, x_shape, x_at, box, value, border, t)
    else:
        for t in prange(tasks):
            _place_row(y, y_shape, y_at, x, x_shape, x_at, box, value, border, t)


def _put(y, y_at, x, x_at, box, border=None):
    """y[n, box at y_at] = x[n, box at x_at]; unless `border` is None, the rest of y becomes it (all channels boxed)."""
    tasks = y.shape[0] * (box[0] if border is None else y.shape[1])
    value = y.dtype.type(0 if border is None else border)
    _place(y.reshape(-1), y.shape[1:], y_at, x.reshape(-1), x.shape[1:], x_at, box, value, border is not None, tasks)


def _crop(skip: np.ndarray, x: np.ndarray) -> tuple[int, int, int]:
    """First corner of the centre of skip."""
    return (skip.shape[1] - x.shape[1]) // 2, (skip.shape[2] - x.shape[2]) // 2, 0


def crop(y, x, *, offset):
    _put(y, (0, 0, 0), x, tuple(offset), y.shape[1:])


def embed(dx, dy, *, offset):
    box = dy.shape[1:]
    if box[2] < dx.shape[3]:  # some channels are outside the box
        dx.fill(0)
        _put(dx, tuple(offset), dy, (0, 0, 0), box)
    else:
        _put(dx, tuple(offset), dy, (0, 0, 0), box, border=0)


def crop_concat(y, x, skip):
    _, h, w, c = x.shape
    _put(y, (0, 0, 0), x, (0, 0, 0), (h, w, c))
    _put(y, (0, 0, c), skip, _crop(skip, x), (h, w, skip.shape[3]))


def crop_concat_grad(dx, dskip, dy):
    _, h, w, c = dx.shape
    _put(dx, (0, 0, 0), dy, (0, 0, 0), (h, w, c))
    _put(dskip, _crop(dskip, dx), dy, (0, 0, c), (h, w, dskip.shape[3]), border=0)


def pad(y, x, *, padding, mode, value):
    top, bottom, left, right = padding
    _, h, w, c = x.shape
    _put(y, (top, left, 0), x, (0, 0, 0), (h, w, c), border=value if mode == "constant" else None)
    if mode == "reflect":  # columns of the inner rows, then whole rows: corners are mirrored twice
        inner = y[:, top : top + h]
        inner[:, :, :left] = inner[:, :, 2 * left : left : -1]
        inner[:, :, left + w :] = inner[:, :, left + w - 1 - right : left + w - 1][:, :, ::-1]
        y[:, :top] = y[:, 2 * top : top : -1]
        y[:, top + h :] = y[:, top + h - 1 - bottom : top + h - 1][:, ::-1]


def _fold_columns(dx, dy, left, right):
    """Add to dx what reflection copied outwards; dx and dy have the same rows."""
    w = dx.shape[2]
    dx[:, :, 1 : left + 1] += dy[:, :, :left][:, :, ::-1]
    dx[:, :, w - 1 - right : w - 1] += dy[:, :, left + w :][:, :, ::-1]


def pad_grad(dx, dy, *, padding, mode):
    top, bottom, left, right = padding
    _, h, w, c = dx.shape
    _put(dx, (0, 0, 0), dy, (top, left, 0), (h, w, c))
    if mode == "reflect":
        _fold_columns(dx, dy[:, top : top + h], left, right)
        for strip, rows in ((dy[:, :top], dx[:, 1 : top + 1]), (dy[:, top + h :], dx[:, h - 1 - bottom : h - 1])):
            folded = strip[:, :, left : left + w].copy()
            _fold_columns(folded, strip, left, right)
            rows += folded[:, ::-1]
