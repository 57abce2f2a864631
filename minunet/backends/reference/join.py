"""Putting maps together, around and apart: crop, concat, pad."""

from __future__ import annotations

import numpy as np


def crop_concat(y, x, skip):
    """y = [x, centre crop of skip] along channels; the crop starts at (HS - H) // 2, (WS - W) // 2."""
    split = x.shape[3]
    y[..., :split] = x
    y[..., split:] = skip[_centre(skip, x)]


def crop_concat_grad(dx, dskip, dy):
    """dx = the first channels of dy; dskip = the others in the centre of a plane of zeros."""
    split = dx.shape[3]
    dx[...] = dy[..., :split]
    dskip[...] = 0
    dskip[_centre(dskip, dy)] = dy[..., split:]


def pad(y, x, *, padding, mode, value):
    """y = x with `padding` (top, bottom, left, right) pixels of `value` ("constant") or mirrored without the edge."""
    top, bottom, left, right = padding
    (_, h, w, _) = x.shape
    if mode == "reflect":
        rows, columns = _mirror(h, top, bottom), _mirror(w, left, right)
        y[...] = x[:, rows[:, None], columns, :]
    else:
        y[...] = value
        y[:, top : top + h, left : left + w, :] = x


def pad_grad(dx, dy, *, padding, mode):
    """Adjoint of pad: the inner window of dy, plus what reflection copied outwards."""
    top, bottom, left, right = padding
    (_, h, w, _) = dx.shape
    if mode == "reflect":
        rows, columns = _mirror(h, top, bottom), _mirror(w, left, right)
        dx[...] = 0
        np.add.at(dx, (slice(None), rows[:, None], columns), dy)
    else:
        dx[...] = dy[:, top : top + h, left : left + w, :]


def crop(y, x, *, offset):
    """y[n,i,j,c] = x[n, top + i, left + j, first + c], offset = (top, left, first)."""
    y[...] = x[_window(offset, y)]


def embed(dx, dy, *, offset):
    """dx = zeros, with dy at offset = (top, left, first)."""
    dx[...] = 0
    dx[_window(offset, dy)] = dy


def _window(offset, small):
    """The index of the window of `small`'s height, width and channels that starts at `offset`."""
    return slice(None), *(slice(o, o + size) for o, size in zip(offset, small.shape[1:]))


def _centre(large, small):
    """The index of the window of `small`'s height and width in the middle of `large`."""
    (_, hs, ws, _), (_, h, w, _) = large.shape, small.shape
    i, j = (hs - h) // 2, (ws - w) // 2
    return slice(None), slice(i, i + h), slice(j, j + w)


def _mirror(size, before, after):
    """The source of each padded position: size 4, before 2, after 1 gives 2 1 0 1 2 3 2."""
    position = np.abs(np.arange(-before, size + after))
    return np.where(position < size, position, 2 * (size - 1) - position)
