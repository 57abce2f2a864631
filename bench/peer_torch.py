"""PyTorch: U-Net as its users write it, with our weights; a training step; a single layer and its two gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, c: int, o: int, padding: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(c, o, 3, padding=padding), nn.Conv2d(o, o, 3, padding=padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))))


class UNet(nn.Module):
    """Parameters in the order of minunet's."""

    def __init__(self, in_channels: int, n_classes: int, width: int, depth: int = 4, padding: str = "valid"):
        super().__init__()
        widths = [width << k for k in range(depth + 1)]
        pad = int(padding == "same")
        self.down = nn.ModuleList(Block(c, o, pad) for c, o in zip([in_channels, *widths[:-1]], widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * o, o, 2, stride=2) for o in reversed(widths[:-1]))
        self.merge = nn.ModuleList(Block(2 * o, o, pad) for o in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, n_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(x)
            if level < len(self.up):
                skips.append(x)
                x = F.max_pool2d(x, 2)
        for up, block in zip(self.up, self.merge):
            x, skip = up(x), skips.pop()
            top, left = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
            x = block(torch.cat([x, skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]], 1))
        return self.head(x)


def load(model: UNet, ours) -> UNet:
    """Copy minunet's weights, by order; four-axis weights (O, KH, KW, C) -> (O, C, KH, KW)."""
    with torch.no_grad():
        for theirs, (_, p) in zip(model.parameters(), ours.named_parameters(), strict=True):
            a = p.numpy()
            theirs.copy_(torch.from_numpy(np.ascontiguousarray(a.transpose(0, 3, 1, 2) if a.ndim == 4 else a)))
    return model


class Step:
    """A training step: forward, cross-entropy, backward, Adam. `channels_last` and `fused` are PyTorch's options."""

    def __init__(self, ours, config: dict, x: np.ndarray, y: np.ndarray, channels_last: bool, fused: bool):
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = load(UNet(**config), ours).to(memory_format=self.format)
        self.x = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).contiguous(memory_format=self.format)
        self.y = torch.from_numpy(y.astype(np.int64))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4, fused=fused)

    def gradients(self) -> tuple[float, list[np.ndarray]]:
        """Loss and gradients, in minunet's layout."""
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.x), self.y)
        loss.backward()
        grads = [p.grad.detach().numpy() for p in self.model.parameters()]
        return float(loss.detach()), [g.transpose(0, 2, 3, 1) if g.ndim == 4 else g for g in grads]

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(self.x), self.y).backward()
        self.optimizer.step()


FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def runners(model, shape: tuple[int, ...], threads: int) -> dict[str, Callable]:
    """Both layouts; see `bench.peers`. The number of threads is the process's (`bench.peers.threads`)."""
    del shape, threads
    return {name: _runner(model, layout) for name, layout in FORMATS.items()}


def _runner(ours, layout: torch.memory_format) -> Callable[[np.ndarray], np.ndarray]:
    names = ("in_channels", "n_classes", "width", "depth", "padding")
    net = load(UNet(**{k: ours.config[k] for k in names if k in ours.config}), ours).to(memory_format=layout)

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return net(torch.from_numpy(x).contiguous(memory_format=layout)).numpy()

    return run


def layer_calls(layer, x, w, b, dy) -> dict[str, dict[str, Callable[[], torch.Tensor]]]:
    """{layout: {"forward", "grad_x", "grad_w": call}} of one `bench.layers.Layer`, from arrays in our layout.

    Results are (N, C, H, W) and (O, C, KH, KW) tensors; `ours` brings them into minunet's layout.
    """
    found = {}
    for name, layout in FORMATS.items():
        tx, tw, tdy = (torch.from_numpy(a).permute(0, 3, 1, 2).contiguous(memory_format=layout) for a in (x, w, dy))
        found[name] = _layer(layer, tx, tw, torch.from_numpy(b), tdy)
    return found


def _layer(layer, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, dy: torch.Tensor) -> dict[str, Callable]:
    s, p, d = ([v, v] for v in (layer.stride, layer.padding, layer.dilation))

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return F.conv_transpose2d(x, w, b, s, p) if layer.transposed else F.conv2d(x, w, b, s, p, d)

    def gradient(which: int) -> torch.Tensor:
        mask = [k == which for k in range(3)]
        backward = torch.ops.aten.convolution_backward
        with torch.inference_mode():
            return backward(dy, x, w, None, s, p, d, layer.transposed, [0, 0], 1, mask)[which]

    return {"forward": forward, "grad_x": lambda: gradient(0), "grad_w": lambda: gradient(1)}


def ours(result: torch.Tensor) -> np.ndarray:
    """(N, C, H, W) -> (N, H, W, C), (O, C, KH, KW) -> (O, KH, KW, C), without a copy."""
    return result.permute(0, 2, 3, 1).numpy()
