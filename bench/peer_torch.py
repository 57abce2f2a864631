"""U-Net in PyTorch, written as its users write it, with weights taken from ours. The only file that imports torch."""

from __future__ import annotations

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

    def infer(self) -> torch.Tensor:
        """Logits, nothing recorded."""
        with torch.inference_mode():
            return self.model(self.x)
