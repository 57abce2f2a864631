"""What a network is made of, found by running it on shapes: layers, sizes, parameters, work. No weight is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from minunet import backends, nn
from minunet.backends import shapes
from minunet.contract import ROWS
from minunet.models.base import Network, shapes_only
from minunet.nn import Module
from minunet.tensor import Tensor, no_grad

MULTIPLIES = {name for name, row in ROWS.items() if row.stem in ("conv", "matmul") and name != "channel_sum"}
PROBED = 2048  # legal sizes are looked for up to here
Size = tuple[int, int]


@dataclass
class Line:
    """A layer as it ran, or a kernel that ran outside of any layer."""

    name: str  # dotted path; of a kernel: that of the module it ran in
    what: str
    shape: tuple[int, ...] = ()  # of the output, N first
    parameters: int = 0
    flops: int = 0
    nbytes: int = 0  # of the output


class Totals(NamedTuple):
    """A whole network."""

    parameters: int  # trained
    frozen: int
    statistics: int  # of batch-norms
    multiplied: int  # FLOPs of convolutions and matrix products, evaluation, all images
    flops: int  # of all kernels
    output: tuple[int, ...]  # shape, N first


def totals(model: Network, size: Size, n: int = 1) -> Totals:
    """Counts of a network built under `shapes_only`, for n images of a legal size, in evaluation."""
    with shapes_only(), no_grad(), backends.count() as work:
        y = model.eval()(image(model, size, n))
    multiplied = sum(flops for name, (_, flops, _) in work.by_kernel.items() if name in MULTIPLIES)
    return Totals(*parameters(model), multiplied, work.flops, y.shape)


def parameters(model: Module) -> tuple[int, int, int]:
    """Elements that are trained, that are frozen, and of running statistics."""
    every = model.parameters()
    statistics = sum(b.size for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var")))
    return (
        sum(p.data.size for p in every if p.requires_grad),
        sum(p.data.size for p in every if not p.requires_grad),
        statistics,
    )


def image(model: Network, size: Size, n: int = 1) -> Tensor:
    """The shape of n images."""
    return Tensor(shapes.ShapeArray((n, *size, model.channels[-1])))


def lines(model: Network, size: Size) -> list[Line]:
    """The layers and other kernels in the order in which one image of a legal size goes through them in evaluation.

    Layers that nothing went through (heads that serve training only) come last, with an empty shape.
    """
    found: list[Line] = []
    inside: list[tuple[str, Line | None]] = [("", None)]  # the modules being run: their paths, and lines if layers
    reached: set[int] = set()
    with shapes_only(), no_grad(), backends.count() as work:
        before = 0

        def settle() -> None:
            nonlocal before
            if found and work.flops > before:
                found[-1].flops += work.flops - before
            before = work.flops

        def new_parameters(module: Module) -> int:
            """Those that no line has counted: a layer may run several times, or be two modules' own."""
            new = {id(p): p.data.size for p in module.parameters() if id(p) not in reached}
            reached.update(new)
            return sum(new.values())

        def kernel(name: str, *arrays: Any, **options: Any) -> None:
            settle()  # the gate counts a kernel after it ran
            path, line = inside[-1]
            if line is None:
                line = Line(path, name, arrays[0].shape, nbytes=arrays[0].nbytes)
            if not found or found[-1] is not line:
                found.append(line)

        def run(path: str, module: Module, *inputs: Any) -> Any:
            line = inside[-1][1]
            if line is None and is_layer(module):
                line = Line(path, describe(module), parameters=new_parameters(module))
            inside.append((path, line))
            y = type(module).forward(module, *inputs)
            inside.pop()
            if line is not None and isinstance(y, Tensor):
                line.shape, line.nbytes = y.shape, y.data.nbytes
            return y

        with _watched(model, run), watched_kernels(kernel):
            model.eval()(image(model, size))
        settle()
    for path, module in _paths(model):
        if is_layer(module) and (unused := new_parameters(module)):
            found.append(Line(path, describe(module), parameters=unused))
    return found


def is_layer(module: Module) -> bool:
    """Whether a module is one line: a layer, or a convolution with its batch-norm, which are one kernel."""
    return isinstance(module, nn.ConvBN | nn.UpBN) or not any(True for _ in module.children())


def describe(module: Module) -> str:
    """A layer in a few words: "ConvBN 3x3 /2 64 -> 128"."""
    layer = module.conv if isinstance(module, nn.ConvBN | nn.UpBN) else module
    name = type(module).__name__
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return name
    first, kh, kw, last = layer.w.shape
    groups = layer.options.get("groups", 1)
    c, o = (first, last) if isinstance(layer, nn.ConvTranspose2d) else (last * groups, first)
    words = [name, f"{kh}x{kw}"]
    for option, sign in ("stride", "/"), ("dilation", "d"):
        value = layer.options.get(option, 1)
        if value not in (1, (1, 1)):
            words.append(f"{sign}{value if isinstance(value, int) else 'x'.join(map(str, value))}")
    return " ".join([*words, f"{c} -> {o}"] + ([f"g{groups}"] if groups > 1 else []))


def legal_sizes(model: Network) -> str:
    """The heights and widths that a network takes: "any", "multiples of 16", "188, 204, 220, ..."."""
    taken = [size for size in range(1, PROBED) if model.trace(size) is not None]
    if len(taken) < 2:
        return ", ".join(map(str, taken)) or "none"
    first, steps = taken[0], {b - a for a, b in pairwise(taken)}
    if len(steps) > 1:
        return f"{', '.join(map(str, taken[:4]))}, ..."
    step = steps.pop()
    if step == 1:
        return "any" if first == 1 else f"{first} or more"
    if first % step:
        return f"{first}, {first + step}, {first + 2 * step}, ..."
    return f"multiples of {step}" + (f" from {first}" if first > step else "")


@contextmanager
def _watched(model: Module, run: Any) -> Iterator[None]:
    """Let `run(path, module, *inputs)` stand in for the forward of every module, for as long as the block lasts."""
    modules = [(path, module) for path, module in _paths(model)]
    for path, module in modules:
        module.forward = partial(run, path, module)
    try:
        yield
    finally:
        for _, module in modules:
            del module.forward


@contextmanager
def watched_kernels(record: Any) -> Iterator[None]:
    """Let `record(name, *arrays, **options)` stand in for the kernels of the backend of shapes."""
    kept = dict(shapes.kernels)
    shapes.kernels.update({name: partial(record, name) for name in kept})
    try:
        yield
    finally:
        shapes.kernels.update(kept)


def _paths(module: Module, prefix: str = "") -> Iterator[tuple[str, Module]]:
    """(dotted name, module) of all modules below."""
    for name, child in module.children():
        yield prefix + name, child
        yield from _paths(child, f"{prefix}{name}.")
