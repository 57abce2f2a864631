"""Step 2 of the convolution ladder: kernels/numba_cuda/conv_2_shared_tile.py."""

from __future__ import annotations

from typing import Any

from minunet.backends.numba_cuda.conv_problem import Problem
from minunet.backends.numba_cuda.launch import MOST_YZ, Device, ceil_div, finish, launch
from minunet.backends.numba_cuda.library import sizes

FILE = "conv_2_shared_tile"
BLOCKS = 1024  # of grad_w in all: fills any device, and keeps the second stage short


def _halo(row: str, p: Problem) -> int:
    """Pixels of the tile that a block keeps in shared memory."""
    s = sizes()
    if row == "conv2d_grad_x":  # of dy: one more than the pixels' distance over the stride, wherever the tile begins
        rows = (s.TILE_H - 1 + (p.KH - 1) * p.dilation[0]) // p.stride[0] + 1
        return rows * ((s.TILE_W - 1 + (p.KW - 1) * p.dilation[1]) // p.stride[1] + 1)
    height, width = (s.PIXELS_H, s.PIXELS_W) if row == "conv2d_grad_w" else (s.TILE_H, s.TILE_W)
    rows = (height - 1) * p.stride[0] + (p.KH - 1) * p.dilation[0] + 1
    return rows * ((width - 1) * p.stride[1] + (p.KW - 1) * p.dilation[1] + 1)


def _chunk(row: str, p: Problem) -> int:
    """Channels of the tile: as many as there are and fit, odd, so that neighbouring pixels lie in different banks."""
    s = sizes()
    room = min(s.HALO_NUMBERS // _halo(row, p), s.WEIGHT_NUMBERS // (s.TILE_CHANNELS * p.KH * p.KW))
    channels = p.O if row == "conv2d_grad_x" else p.C
    most = min(room, channels)
    return most - 1 if most > 1 and most % 2 == 0 else most


def fits(row: str, p: Problem) -> bool:
    """Whether the step can do these sizes."""
    s = sizes()
    if row == "conv2d_grad_w":
        return _halo(row, p) * s.SIDE <= s.HALO_NUMBERS
    rows = p.x.shape[1] if row == "conv2d_grad_x" else p.OH
    return _chunk(row, p) >= 1 and p.N * ceil_div(rows, s.TILE_H) <= MOST_YZ


def _pixels(device: Device, kernel: str, p: Problem, out: Any, other: Any) -> None:
    """A launch with a thread for each pixel of a tile of `out` (N, H, W, C)."""
    s = sizes()
    n, h, w, c = out.shape
    grid = (ceil_div(w, s.TILE_W), n * ceil_div(h, s.TILE_H), ceil_div(c, s.TILE_CHANNELS))
    arguments = (out, other, p.w, *p.epilogue, *p.geometry, p.relu, _chunk(kernel, p))
    launch(device, FILE, kernel, grid, (s.TILE_W, s.TILE_H), *arguments)


def forward(device: Device, p: Problem) -> None:
    _pixels(device, "conv2d", p, p.y, p.x)


def grad_x(device: Device, p: Problem) -> None:
    _pixels(device, "conv2d_grad_x", p, p.x, p.y)


def grad_w(device: Device, p: Problem) -> None:
    s = sizes()
    taps = p.KH * p.KW
    pairs, groups = ceil_div(p.C, s.SIDE) * ceil_div(p.O, s.SIDE), ceil_div(taps, s.TAPS)
    tiles = p.N * ceil_div(p.OH, s.PIXELS_H) * ceil_div(p.OW, s.PIXELS_W)
    splits = max(1, min(tiles, s.MOST_PARTS, BLOCKS // (pairs * groups)))
    partial = device.empty((splits, p.O, taps, p.C), p.x.dtype)
    arguments = (partial, p.x, p.y, p.KW, *p.geometry)
    launch(device, FILE, "conv2d_grad_w_partial", (pairs, groups, splits), (s.SIDE, s.SIDE), *arguments)
    finish(device, p.w, partial.reshape(1, splits, -1))
