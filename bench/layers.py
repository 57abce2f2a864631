"""Layer by layer: forward, gradient in x and gradient in w, ours against PyTorch; results checked before any timing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench import exact, peers
from bench.report import LAYER_TOLERANCE as TOLERANCE
from bench.roofline import Roof
from bench.timing import interleaved, table
from minunet import backends

PASSES = ("forward", "grad_x", "grad_w")
# Rounds of a pass; its warm-up was the check. The pause lets PyTorch's threads, which spin for about a millisecond
# after their work, come to rest before the next turn.
ROUNDS = {"least": 3, "most": 15, "seconds": 0.4, "turn": 0.004, "pause": 0.002}


@dataclass(frozen=True)
class Layer:
    """A square convolution of one image: (size, size, c) -> o channels. `transposed`: its adjoint, c -> o as well."""

    name: str
    size: int
    c: int
    o: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    transposed: bool = False

    def output_size(self) -> int:
        if self.transposed:
            return (self.size - 1) * self.stride + self.kernel - 2 * self.padding
        return (self.size + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1


OTHERS = (  # the kinds that Winograd does not serve
    Layer("1x1, 64 to 256", 128, 64, 256, kernel=1),
    Layer("1x1, 256 to 64", 128, 256, 64, kernel=1),
    Layer("3x3, stride 2", 128, 128, 256, stride=2, padding=1),
    Layer("3x3, dilation 2", 64, 256, 256, padding=2, dilation=2),
    Layer("5x5", 128, 64, 64, kernel=5, padding=2),
    Layer("7x7", 128, 64, 64, kernel=7, padding=3),
    Layer("7x7, stride 2", 224, 3, 64, kernel=7, stride=2, padding=3),
)


def unet(width: int, size: int, depth: int = 4) -> list[Layer]:
    """The 23 layers of U-Net in their order; size: of its input, e.g. 572."""
    layers, c = [], 1

    def block(name: str, c: int, o: int) -> int:
        layers.append(Layer(f"{name}.1", size, c, o))
        layers.append(Layer(f"{name}.2", size - 2, o, o))
        return size - 4

    for level in range(depth + 1):
        o = width << level
        size, c = block(f"down{level}", c, o), o
        if level < depth:
            size //= 2
    for level in reversed(range(depth)):
        o = width << level
        layers.append(Layer(f"up{level}", size, c, o, kernel=2, stride=2, transposed=True))
        size, c = 2 * size, o
        size = block(f"merge{level}", 2 * o, o)
    return [*layers, Layer("head", size, c, 2, kernel=1)]


def arrays(layer: Layer, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, w, b, dy: normal, with the weights' deviation as He's initialiser has it."""
    rng = np.random.default_rng(seed)
    k, c, o = layer.kernel, layer.c, layer.o
    outer, inner = (c, o) if layer.transposed else (o, c)
    sizes = [(1, layer.size, layer.size, c), (outer, k, k, inner), (o,), (1, *(layer.output_size(),) * 2, o)]
    x, w, b, dy = (rng.standard_normal(s, dtype=np.float32) for s in sizes)
    w *= np.float32(np.sqrt(2 / (k * k * c)))
    return x, w, b, dy


def our_calls(layer: Layer, x, w, b, dy) -> dict[str, Callable[[], np.ndarray]]:
    """Each pass as the network calls it, through the gate."""
    s, p, d = layer.stride, layer.padding, layer.dilation
    geometry = {"stride": (s, s), "padding": (p, p, p, p), "dilation": (d, d)}
    kernel = {"size": (layer.kernel,) * 2, **geometry}
    if layer.transposed:  # x is what the underlying convolution gives, the result is what it takes
        image = {"size": dy.shape[1:3], "activation": None, **geometry}
        return {
            "forward": partial(backends.call, "conv2d_grad_x", x, w, b, **image),
            "grad_x": partial(backends.call, "conv2d", dy, w, activation=None, **geometry),
            "grad_w": partial(backends.call, "conv2d_grad_w", dy, x, **kernel),
        }
    return {
        "forward": partial(backends.call, "conv2d", x, w, b, activation=None, **geometry),
        "grad_x": partial(backends.call, "conv2d_grad_x", dy, w, size=x.shape[1:3], activation=None, **geometry),
        "grad_w": partial(backends.call, "conv2d_grad_w", x, dy, **kernel),
    }


def exact_part(layer: Layer, what: str, x, w, b, dy) -> tuple[tuple[Any, ...], np.ndarray]:
    """(index of the places looked at, float64 result there) of a pass in our layout."""
    geometry = (layer.stride, layer.padding, layer.dilation)
    if what == "grad_w":
        big, small = (dy, x) if layer.transposed else (x, dy)
        channels = exact.spread(small.shape[3], exact.PLACES[what])
        return (channels,), exact.grad_w(big, small, channels, layer.kernel, *geometry)
    source, bias = (x, b) if what == "forward" else (dy, None)
    target = dy if what == "forward" else x  # of the result's shape
    rows = exact.spread(target.shape[1], exact.PLACES["conv"])
    if layer.transposed == (what == "forward"):
        return (0, rows), exact.grad_x(source, w, bias, rows, target.shape[2], *geometry)
    return (0, rows), exact.conv(source, w, bias, rows, *geometry)


def error(result: np.ndarray, truth: np.ndarray) -> float:
    """Norm of the difference over norm of the truth."""
    return float(np.linalg.norm((result - truth).ravel()) / np.linalg.norm(truth.ravel()))


def measure(layer: Layer, roof: Roof, rounds: dict[str, Any] | None = None) -> dict[str, Any]:
    """One row of the results: FLOPs, and for each pass errors, times, ratio, GFLOP/s, share of the roof.

    GFLOP/s count the products of the plain sum, whichever algorithm ran. A result that is off by more than TOLERANCE,
    or further from PyTorch's than both may be from the truth, is not timed: its entry has "wrong" instead of "times".
    """
    data = x, w, _, dy = arrays(layer)
    with backends.count() as work:
        calls = our_calls(layer, *data)
        results = {what: call() for what, call in calls.items()}
    torch = peers.missing("PyTorch") is None
    theirs = {}
    if torch:
        from bench import peer_torch

        theirs = peer_torch.layer_calls(layer, *data)
    gflop = work.flops / len(PASSES) / 1e9
    seconds = roof.seconds(gflop, sum(a.nbytes for a in (x, w, dy)) / 1e9)
    row: dict[str, Any] = {"gflop": round(gflop, 3), "shape": _shape(layer)}
    for what in PASSES:
        places, truth = exact_part(layer, what, *data)
        ours = results.pop(what)
        entry: dict[str, Any] = {"error": _short(error(ours[places], truth))}
        found = {f"PyTorch {name}": peer_torch.ours(call[what]()) for name, call in theirs.items()} if torch else {}
        off = max((error(ours, y) for y in found.values()), default=0.0)
        if found:
            entry["peer_error"] = _short(max(error(y[places], truth) for y in found.values()))
        row[what] = entry
        del ours, found
        if not (entry["error"] <= TOLERANCE and off <= TOLERANCE + max(TOLERANCE, entry.get("peer_error", 0.0))):
            entry["wrong"] = f"off by {entry['error']:.1e} from float64, by {off:.1e} from PyTorch"
            continue
        contestants = {"minunet": calls[what], **{f"PyTorch {name}": call[what] for name, call in theirs.items()}}
        entry |= table(interleaved(contestants, warmup=0, **(rounds or ROUNDS)))
        ms = entry["times"]["minunet"]["median_ms"]
        entry |= {"gflops": round(1e3 * gflop / ms, 1), "share_of_roof": round(1e3 * seconds / ms, 3)}
    return row


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _shape(layer: Layer) -> str:
    return f"{layer.size} x {layer.size} x {layer.c} -> {layer.output_size()} x {layer.output_size()} x {layer.o}"
