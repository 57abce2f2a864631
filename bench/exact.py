"""A convolution and its gradients in float64 at some places of the result, by plain NumPy: the judge of the benches.

It goes by the formula, tap by tap, and shares nothing with what it judges. `conv` and `grad_x` give whole rows of the
result, all channels; `grad_w` gives some output channels. x (1, H, W, C), w (O, K, K, C), dy (1, OH, OW, O).
"""

from __future__ import annotations

import numpy as np

PLACES = {"conv": 12, "grad_x": 12, "grad_w": 4}  # rows, rows, channels


def spread(size: int, places: int) -> np.ndarray:
    """At most so many indices from first to last."""
    return np.unique(np.linspace(0, size - 1, places).round().astype(int))


def conv(x, w, b, rows, stride: int, padding: int, dilation: int) -> np.ndarray:
    """y[0, rows] = b + sum over u, v of x[0, i stride + u dilation - padding, ...] @ w[:, u, v].T"""
    H, W = x.shape[1:3]
    K = w.shape[1]
    OW = (W + 2 * padding - dilation * (K - 1) - 1) // stride + 1
    w = w.astype(np.float64)
    y = np.zeros((len(rows), OW, w.shape[0])) + (0 if b is None else b)
    for k, i in enumerate(rows):
        for u in range(K):
            h = i * stride + u * dilation - padding
            if 0 <= h < H:
                line = np.pad(x[0, h].astype(np.float64), ((padding, padding), (0, 0)))  # (W + 2 padding, C)
                for v in range(K):
                    y[k] += line[v * dilation :][: (OW - 1) * stride + 1 : stride] @ w[:, u, v].T
    return y


def grad_x(dy, w, b, rows, width: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    """dx[0, rows] = b + every dy[0, i, j] @ w[:, u, v] at row i stride + u dilation - padding, and so its column."""
    OH, OW = dy.shape[1:3]
    K = w.shape[1]
    w = w.astype(np.float64)
    reach = max(width + 2 * padding, (OW - 1) * stride + dilation * (K - 1) + 1)
    dx = np.zeros((len(rows), reach, w.shape[3]))
    for k, h in enumerate(rows):
        for u in range(K):
            i, rest = divmod(h + padding - u * dilation, stride)
            if rest == 0 and 0 <= i < OH:
                for v in range(K):
                    dx[k, v * dilation :][: (OW - 1) * stride + 1 : stride] += dy[0, i].astype(np.float64) @ w[:, u, v]
    return dx[:, padding : padding + width] + (0 if b is None else b)


def grad_w(x, dy, channels, kernel: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    """dw[channels, u, v] = sum over i of dy[0, i, :, channels].T @ x[0, i stride + u dilation - padding, ...]"""
    H, C = x.shape[1], x.shape[3]
    OH, OW = dy.shape[1:3]
    dw = np.zeros((len(channels), kernel, kernel, C))
    for i in range(OH):
        seen = dy[0, i][:, channels].T.astype(np.float64)  # (channels, OW)
        for u in range(kernel):
            h = i * stride + u * dilation - padding
            if 0 <= h < H:
                line = np.pad(x[0, h].astype(np.float64), ((padding, padding), (0, 0)))
                for v in range(kernel):
                    dw[:, u, v] += seen @ line[v * dilation :][: (OW - 1) * stride + 1 : stride]
    return dw
