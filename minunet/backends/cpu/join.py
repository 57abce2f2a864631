"""Crop, concatenation and padding on the CPU: copies of pieces of image rows, a row a task."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from minunet.backends.cpu.pointwise import SERIAL, SPLIT, THREADED


@njit(**SERIAL)
def _concat_row(y, x, skip, t):
    """Row t of y, counted over the whole batch: y[j, :] = x[j, :], skip[left + j, :]."""
    _, h, w, c = x.shape
    m, i = t // h, t % h
    top, left = (skip.shape[1] - h) // 2, (skip.shape[2] - w) // 2
    for j in range(w):
        to, a, b = y[m, i, j], x[m, i, j], skip[m, top + i, left + j]
        head, tail = to[:c], to[c:]
        for k in range(head.size):
            head[k] = a[k]
        for k in range(tail.size):
            tail[k] = b[k]


@njit(**THREADED)
def _concat(y, x, skip):
    rows = y.shape[0] * y.shape[1]
    if y.size < SPLIT:
        for t in range(rows):
            _concat_row(y, x, skip, t)
    else:
        for t in prange(rows):
            _concat_row(y, x, skip, t)


def crop_concat(y, x, skip):
    _concat(y, x, skip)


@njit(**SERIAL)
def _split_row(dx, dskip, dy, t):
    """Row t of dskip, counted over the whole batch, and the row of dx that lies beside it in dy, if any."""
    _, h, w, c = dx.shape
    _, hs, ws, _ = dskip.shape
    top, left = (hs - h) // 2, (ws - w) // 2
    m, i = t // hs, t % hs - top
    row = dskip[m, i + top]  # (WS, CS)
    if i < 0 or i >= h:
        row[:] = 0.0
        return
    row[:left] = 0.0
    row[left + w :] = 0.0
    for j in range(w):
        source, a, b = dy[m, i, j], dx[m, i, j], row[left + j]
        head, tail = source[:c], source[c:]
        for k in range(head.size):
            a[k] = head[k]
        for k in range(tail.size):
            b[k] = tail[k]


@njit(**THREADED)
def _split(dx, dskip, dy):
    rows = dskip.shape[0] * dskip.shape[1]
    if dy.size + dskip.size < SPLIT:
        for t in range(rows):
            _split_row(dx, dskip, dy, t)
    else:
        for t in prange(rows):
            _split_row(dx, dskip, dy, t)


def crop_concat_grad(dx, dskip, dy):
    _split(dx, dskip, dy)


def _mirror(size: int, before: int, after: int) -> np.ndarray:
    """Source of each padded position: size 4, before 2, after 1 gives 2 1 0 1 2 3 2."""
    place = np.abs(np.arange(-before, size + after))
    return np.minimum(place, 2 * (size - 1) - place) if size > 1 else place


def _inner(size: int, before: int, after: int) -> np.ndarray:
    """Source of each padded position, -1 where there is none."""
    place = np.arange(-before, size + after)
    return np.where(place < size, np.maximum(place, -1), -1)


@njit(**SERIAL)
def _pad_row(y, x, rows, columns, left, value, t):
    """Row t of y, counted over the whole batch: y[j] = x[rows[i], columns[j]], `value` where there is none."""
    m, i = t // rows.size, t % rows.size
    out = y[m, i]  # (OW, C)
    if rows[i] < 0:
        out[:] = value
        return
    row = x[m, rows[i]]  # (W, C), the middle of the padded row
    right = left + row.shape[0]
    out[left:right] = row
    for part in ((0, left), (right, columns.size)):
        for j in range(part[0], part[1]):
            if columns[j] < 0:
                out[j] = value
            else:
                out[j] = row[columns[j]]


@njit(**THREADED)
def _pad(y, x, rows, columns, left, value):
    tasks = y.shape[0] * y.shape[1]
    if y.size < SPLIT:
        for t in range(tasks):
            _pad_row(y, x, rows, columns, left, value, t)
    else:
        for t in prange(tasks):
            _pad_row(y, x, rows, columns, left, value, t)


def pad(y, x, *, padding, mode, value):
    top, bottom, left, right = padding
    source = _mirror if mode == "reflect" else _inner
    rows, columns = source(x.shape[1], top, bottom), source(x.shape[2], left, right)
    _pad(y, x, rows, columns, left, x.dtype.type(value))


@njit(**SERIAL)
def _pad_grad_row(dx, dy, rows, columns, left, t):
    """Row t of dx, counted over the whole batch: sum of dy over all padded places that show its pixels."""
    h, w = dx.shape[1:3]
    m, i = t // h, t % h
    out = dx[m, i]  # (W, C)
    first = True
    for a in range(rows.size):
        if rows[a] != i:
            continue
        row = dy[m, a]  # (OW, C)
        inner, flat = row[left : left + w].reshape(-1), out.reshape(-1)
        if first:
            flat[:] = inner
        else:
            for k in range(flat.size):
                flat[k] += inner[k]
        first = False
        for part in ((0, left), (left + w, columns.size)):
            for j in range(part[0], part[1]):
                if columns[j] >= 0:
                    to, source = out[columns[j]], row[j]
                    for k in range(to.size):
                        to[k] += source[k]


@njit(**THREADED)
def _pad_grad(dx, dy, rows, columns, left):
    tasks = dx.shape[0] * dx.shape[1]
    if dy.size < SPLIT:
        for t in range(tasks):
            _pad_grad_row(dx, dy, rows, columns, left, t)
    else:
        for t in prange(tasks):
            _pad_grad_row(dx, dy, rows, columns, left, t)


def pad_grad(dx, dy, *, padding, mode):
    top, bottom, left, right = padding
    source = _mirror if mode == "reflect" else _inner
    _pad_grad(dx, dy, source(dx.shape[1], top, bottom), source(dx.shape[2], left, right), left)
