"""PyTorch: networks as its users write them, with our weights; a training step; a layer and its two gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bench import torch_nets

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def twin(ours) -> nn.Module:
    """Its mirror (`bench.torch_nets`) with the weights and statistics of a `minunet` network that `build` made."""
    arguments = dict(ours.config)
    name = arguments.pop("model")
    net = import_module(f"{torch_nets.__name__}.{name}").make(torch, **arguments)
    return torch_nets.fill(name, ours, net)


class Step:
    """A training step: forward, cross-entropy, backward, Adam (fused). x, y: NumPy, in our layout."""

    def __init__(self, ours, x: np.ndarray, y: np.ndarray, layout: torch.memory_format):
        self.model = twin(ours).train().to(memory_format=layout)
        self.x = _images(x, layout)
        self.y = torch.from_numpy(y.astype(np.int64))
        self.names = torch_nets.names(ours.config["model"], ours, self.model)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4, fused=True)

    def gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        """Loss, and {our parameter's name: its gradient in our layout}."""
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.x), self.y)
        loss.backward()
        parameters = dict(self.model.named_parameters())
        found = {n: parameters[t].grad for n, t in self.names.items() if t in parameters}
        return float(loss.detach()), {n: torch_nets.channels_last(g) for n, g in found.items()}

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(self.x), self.y).backward()
        self.optimizer.step()


def _images(x: np.ndarray, layout: torch.memory_format) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).contiguous(memory_format=layout)


def runners(model, shape: tuple[int, ...], threads: int) -> dict[str, Callable]:
    """Both layouts; see `bench.peers`. The number of threads is the process's (`bench.peers.threads`).

    Where there are batch-norms, TorchScript folds them into the convolutions; "optimized" lets it choose more.
    """
    del threads
    found = {}
    for name, layout in FORMATS.items():
        net = twin(model).eval().to(memory_format=layout)
        if any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
            folded, optimized = _folded(net, torch.zeros(shape).contiguous(memory_format=layout))
            found[f"{name} folded"] = _runner(folded, layout)
            if name == "contiguous":
                found["optimized"] = _runner(optimized, layout)
        else:
            found[name] = _runner(net, layout)
    return found


def _folded(net: nn.Module, example: torch.Tensor) -> tuple[Callable, Callable]:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # TorchScript is on its way out, but it folds transposed convolutions too
        traced = torch.jit.trace(net, example)
        return torch.jit.freeze(traced), torch.jit.optimize_for_inference(traced)


def _runner(net: Callable, layout: torch.memory_format) -> Callable[[np.ndarray], np.ndarray]:
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
