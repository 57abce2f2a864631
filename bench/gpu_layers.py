"""Per operation: U-Net's 23 layers forward and backward, against cuDNN by PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from bench import gpu_limits, layers
from bench.gpu_device import Clock, Device
from minunet import backends
from minunet.backends.cuda import choose
from minunet.backends.cuda.conv_problem import Problem

PRECISIONS = {"fp32": "default", "tf32": "tf32", "bf16": "bf16"}
WORST = {"fp32": 2e-5, "tf32": 2e-3, "bf16": 2e-2}  # norm of error over norm; worse results are not timed
AHEAD = 4  # layers whose float64 results are made while the GPU is at work
Data = tuple[np.ndarray, ...]
# {precision: {pass: {name: call}}}; what the calls give is no array of ours
Peers = dict[str, dict[str, dict[str, Callable[[], Any]]]]


def torch_gpu(device: Device) -> tuple[Any, str]:
    """PyTorch with this GPU, or (None, why not)."""
    if device.dry:
        return None, "a dry run"
    try:
        import torch
    except (ImportError, OSError) as error:
        return None, f"PyTorch cannot be imported ({error})"
    return (torch, "") if torch.cuda.is_available() else (None, "PyTorch sees no GPU")


def table(device: Device) -> list[layers.Layer]:
    return layers.unet(8, 20, depth=1)[1:5] if device.dry else layers.unet(64, 572)


def measure(device: Device, clock: Clock) -> dict[str, Any]:
    """{"batch 1": {layer: {pass: {precision: entry}}}, "batch 8": ...}, as far as time allows."""
    torch, why = torch_gpu(device)
    peer = "cuDNN by PyTorch, best of two layouts" if torch else f"none: {why}"
    found = device.keep({"peer": peer, **about(device)})
    limits = gpu_limits.of_device(device.describe(), found["copy_gbytes"])
    for layer, data, exact in prepared(table(device)):
        for batch in batches(device):
            entries = found.setdefault(f"batch {batch}", {})
            if clock.over():
                entries[layer.name] = "not measured: out of time"
                continue
            peers = partial(_peers, torch, layer) if torch else lambda *_: {}
            job = partial(one_layer, device, peers, _ours, layer, batch, data, exact, limits)
            entry, why = device.attempt(f"{layer.name}, batch {batch}", job)
            entries[layer.name] = f"failed: {why}" if why else entry
            device.free()
    return found


def about(device: Device) -> dict[str, Any]:
    """The limits that shares refer to."""
    copy = copy_rate(device)
    peaks = gpu_limits.of_device(device.describe(), copy)
    return {"copy_gbytes": copy, "peak_tflops": peaks.tflops, "limits": peaks.source}


def batches(device: Device) -> tuple[int, int]:
    return (1, 2) if device.dry else (1, 8)


def copy_rate(device: Device, elements: int = 1 << 27) -> float | None:
    """GB/s read and written by the device's own copy; None where nothing is timed."""
    if device.dry:
        return None
    a, b = (device.module.empty((elements,), np.float32) for _ in range(2))
    a.fill(1)
    times = device.milliseconds({"copy": lambda: b.__setitem__(slice(None), a)})
    return round(2 * a.nbytes / times["copy"]["median_ms"] / 1e6, 1)


def prepared(listed: list[layers.Layer]) -> Iterator[tuple[layers.Layer, Data, dict[str, Any]]]:
    """Each layer with `exactly` of it, the next ones' being made meanwhile where there are cores for it."""
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(min(AHEAD, max(1, cores // 4))) as pool:
        waiting = [pool.submit(exactly, layer) for layer in listed[:AHEAD]]
        try:
            for number, layer in enumerate(listed):
                result = waiting.pop(0).result()
                waiting += [pool.submit(exactly, later) for later in listed[number + AHEAD : number + AHEAD + 1]]
                yield layer, *result
        finally:
            pool.shutdown(cancel_futures=True)


def exactly(layer: layers.Layer) -> tuple[Data, dict[str, Any]]:
    """x, w, b, dy of one image, and for each pass (places, float64 results there): seconds of work, done once."""
    data = layers.arrays(layer)
    return data, {what: layers.exact_part(layer, what, *data) for what in layers.PASSES}


def one_layer(
    device: Device,
    peers: Callable[..., Peers],
    ours_of: Callable[[Any], np.ndarray],
    layer: layers.Layer,
    batch: int,
    data: Data,
    exact: dict[str, Any],
    limits: gpu_limits.Limits,
) -> dict[str, Any]:
    """{"shape", "gflop", pass: {precision: {"step", "error", "peer_error", "times", ...}}}

    peers   : (x, w, b, dy) -> what to compare with     ours_of : a peer's result as a NumPy array in our layout
    """
    x, w, b, dy = data
    x, dy = (np.repeat(a, batch, axis=0) for a in (x, dy))  # so that truth needs one image: grad_w is `batch` of them
    ours = layers.our_calls(layer, *map(device.to, (x, w, b, dy)))
    theirs, why = device.attempt(f"{layer.name}, batch {batch}, the peer", partial(peers, x, w, b, dy))
    work = gpu_limits.work(layer, batch)
    row: dict[str, Any] = {"shape": f"{batch} x {layer.size} x {layer.size} x {layer.c} -> {layer.o}"}
    row |= {"gflop": round(work.flops / 1e9, 3)} | ({"peer": f"not measured: {why}"} if why else {})
    for what in layers.PASSES:
        places, truth = exact[what]
        truth, part = (truth * batch, slice(None)) if what == "grad_w" else (truth, slice(-1, None))  # the last image
        row[what] = {}
        for name, asked in PRECISIONS.items():
            with backends.use_backend(device.backend), backends.precision(asked):
                error = layers.error(device.numpy(ours[what]()[part])[places], truth)
                entry: dict[str, Any] = {"step": step_of(device, layer, what, asked, x, w, dy), "error": short(error)}
                row[what][name] = entry
                if not error <= WORST[name]:
                    entry["wrong"] = f"off by {error:.1e}: not timed"
                    continue
                calls = (theirs or {}).get(name, {}).get(what, {})
                if calls:
                    results = [ours_of(call())[part][places] for call in calls.values()]
                    entry["peer_error"] = short(max(layers.error(y, truth) for y in results))
                times = device.milliseconds({"minunet": ours[what], **calls})
            entry |= rate(times, work.flops, work.nbytes, limits, name)
    return row


def step_of(device: Device, layer: layers.Layer, what: str, precision: str, x: Any, w: Any, dy: Any) -> str:
    """The ladder's step that the rule chooses here."""
    rows = {"forward": "conv2d", "grad_x": "conv2d_grad_x", "grad_w": "conv2d_grad_w"}
    swapped = {"forward": "conv2d_grad_x", "grad_x": "conv2d", "grad_w": "conv2d_grad_w"}
    big, small = (dy, x) if layer.transposed else (x, dy)
    s, p, d = layer.stride, layer.padding, layer.dilation
    problem = Problem.of(big, w, small, (s, s), (p,) * 4, (d, d))
    row = (swapped if layer.transposed else rows)[what]
    return choose.rule(row, problem, precision, device.architecture)


def rate(
    times: dict[str, dict[str, float]] | None, flops: int, nbytes: int, limits: gpu_limits.Limits, precision: str
) -> dict[str, Any]:
    """Times, TFLOP/s, GB/s, which limit binds and its share, the ratio to the fastest peer; nothing where nothing was
    measured."""
    if times is None:
        return {"times": "not measured"}
    ms = times["minunet"]["median_ms"]
    peers = [t["median_ms"] for name, t in times.items() if name != "minunet"]
    entry = {"times": times, "tflops": round(flops / ms / 1e9, 2), "gbytes": round(nbytes / ms / 1e6, 1)}
    entry |= limits.share(precision, flops, nbytes, ms)
    return entry | ({"ratio": round(min(peers) / ms, 3)} if peers else {})


def short(value: float) -> float:
    return float(f"{value:.3g}")


def _ours(y: Any) -> np.ndarray:
    """A tensor of PyTorch, (N, C, H, W), as ours."""
    return y.float().permute(0, 2, 3, 1).cpu().numpy()


def _peers(torch: Any, layer: layers.Layer, x, w, b, dy) -> Peers:
    """cuDNN by PyTorch, in both layouts; it tries all its algorithms when it meets a shape first."""
    from bench.peer_torch import FORMATS

    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 0
    kinds = {"fp32": (torch.float32, False), "tf32": (torch.float32, True), "bf16": (torch.bfloat16, False)}
    found: Peers = {}
    for precision, (dtype, tf32) in kinds.items():
        for name, layout in FORMATS.items():
            images = (torch.from_numpy(a).cuda().permute(0, 3, 1, 2) for a in (x, w, dy))
            tx, tw, tdy = (a.to(dtype).contiguous(memory_format=layout) for a in images)
            calls = _passes(torch, layer, tx, tw, torch.from_numpy(b).cuda().to(dtype), tdy)
            for what, call in calls.items():
                passes = found.setdefault(precision, {}).setdefault(what, {})
                passes[f"cuDNN {name}"] = partial(_with_tf32, torch, tf32, call)
    return found


def _with_tf32(torch: Any, allowed: bool, call: Callable) -> Any:
    torch.backends.cudnn.allow_tf32 = allowed
    with torch.inference_mode():
        return call()


def _passes(torch: Any, layer: layers.Layer, x, w, b, dy) -> dict[str, Callable]:
    s, p, d = ([v, v] for v in (layer.stride, layer.padding, layer.dilation))
    F = torch.nn.functional

    def forward() -> Any:
        return F.conv_transpose2d(x, w, b, s, p) if layer.transposed else F.conv2d(x, w, b, s, p, d)

    def gradient(which: int) -> Any:
        mask = [k == which for k in range(3)]
        backward = torch.ops.aten.convolution_backward
        return backward(dy, x, w, None, s, p, d, layer.transposed, [0, 0], 1, mask)[which]

    return {"forward": forward, "grad_x": partial(gradient, 0), "grad_w": partial(gradient, 1)}
