"""Per operation: U-Net's 23 layers forward and backward against cuDNN, through PyTorch; memory-bound rows against a
copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from bench import layers
from bench.gpu_device import Clock, Device
from minunet import backends
from minunet.backends.cuda import choose
from minunet.backends.cuda.conv_problem import Problem

PRECISIONS = {"fp32": "default", "tf32": "tf32", "bf16": "bf16"}
WORST = {"fp32": 2e-5, "tf32": 2e-3, "bf16": 2e-2}  # norm of error over norm; worse results are not timed


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
    found: dict[str, Any] = {"peer": "cuDNN by PyTorch, best of two layouts" if torch else f"none: {why}"}
    for layer in table(device):
        problem = None
        for batch in (1, 2) if device.dry else (1, 8):
            entries = found.setdefault(f"batch {batch}", {})
            if clock.over():
                entries[layer.name] = "not measured: out of time"
                continue
            try:
                problem = problem or exactly(layer)
                entries[layer.name] = one_layer(device, torch, layer, batch, *problem)
            except Exception as error:
                entries[layer.name] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return found


def exactly(layer: layers.Layer) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    """x, w, b, dy of one image, and for each pass (places, float64 results there): seconds of work, done once."""
    data = layers.arrays(layer)
    return data, {what: layers.exact_part(layer, what, *data) for what in layers.PASSES}


def one_layer(
    device: Device, torch: Any, layer: layers.Layer, batch: int, data: tuple[np.ndarray, ...], exact: dict[str, Any]
) -> dict[str, Any]:
    x, w, b, dy = data
    x, dy = (np.repeat(a, batch, axis=0) for a in (x, dy))  # so that truth needs one image: grad_w is `batch` of them
    ours = layers.our_calls(layer, *map(device.to, (x, w, b, dy)))
    theirs = _peer(torch, layer, x, w, b, dy) if torch else {}
    with backends.use_backend(device.backend), backends.count() as work:
        ours["forward"]()
    row: dict[str, Any] = {"shape": f"{batch} x {layer.size} x {layer.size} x {layer.c} -> {layer.o}"}
    row |= {"gflop": round(work.flops / 1e9, 3)}
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
                calls = {"minunet": ours[what], **theirs.get(name, {}).get(what, {})}
                if theirs:
                    entry["peer_error"] = short(_peer_error(calls, part, places, truth))
                times = device.milliseconds(calls)
            entry |= rate(times, work.flops, sum(a.nbytes for a in (x, w, dy)))
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


def rate(times: dict[str, dict[str, float]] | None, flops: int, nbytes: int) -> dict[str, Any]:
    """Times, TFLOP/s, GB/s and the ratio to the fastest peer; nothing where nothing was measured."""
    if times is None:
        return {"times": "not measured"}
    ms = times["minunet"]["median_ms"]
    peers = [t["median_ms"] for name, t in times.items() if name != "minunet"]
    entry = {"times": times, "tflops": round(flops / ms / 1e9, 2), "gbytes": round(nbytes / ms / 1e6, 1)}
    return entry | ({"ratio": round(min(peers) / ms, 3)} if peers else {})


def short(value: float) -> float:
    return float(f"{value:.3g}")


def _peer_error(calls: dict[str, Callable], part: slice, places: Any, truth: np.ndarray) -> float:
    results = [call() for name, call in calls.items() if name != "minunet"]
    return max(layers.error(y[part].float().permute(0, 2, 3, 1).cpu().numpy()[places], truth) for y in results)


def _peer(torch: Any, layer: layers.Layer, x, w, b, dy) -> dict[str, dict[str, dict[str, Callable]]]:
    """{precision: {pass: {name: call}}}; cuDNN tries all its algorithms when it meets a shape first."""
    from bench.peer_torch import FORMATS

    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 0
    kinds = {"fp32": (torch.float32, False), "tf32": (torch.float32, True), "bf16": (torch.bfloat16, False)}
    found: dict[str, dict[str, dict[str, Callable]]] = {}
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


def memory_bound(device: Device, clock: Clock) -> dict[str, Any]:
    """Rows that only move memory: GB/s (each array touched once) as a share of a copy's."""
    shape = (1, 6, 6, 4) if device.dry else (8, 280, 280, 128)
    found: dict[str, Any] = {"shape": list(shape)}
    copy = copy_rate(device, int(np.prod(shape)))
    found["copy_gbytes"] = copy if copy is not None else "not measured"
    for name, call in rows(device, shape):
        if clock.over():
            found[name] = "not measured: out of time"
            continue
        try:
            with backends.use_backend(device.backend), backends.count() as work:
                call()
            with backends.use_backend(device.backend):
                times = device.milliseconds({"minunet": call})
        except Exception as error:
            found[name] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            continue
        found[name] = rate(times, work.flops, work.bytes)
        if times is not None and copy:
            found[name]["share_of_copy"] = round(found[name]["gbytes"] / copy, 3)
    return found


def copy_rate(device: Device, elements: int) -> float | None:
    """GB/s read and written by the device's own copy."""
    if device.dry:
        return None
    a, b = (device.module.empty((elements,), np.float32) for _ in range(2))
    a.fill(1)
    times = device.milliseconds({"copy": lambda: b.__setitem__(slice(None), a)})
    return round(2 * a.nbytes / times["copy"]["median_ms"] / 1e6, 1)


def rows(device: Device, shape: tuple[int, ...]) -> Iterator[tuple[str, Callable[[], Any]]]:
    rng = np.random.default_rng(0)
    x, dy = (device.to(rng.standard_normal(shape, dtype=np.float32)) for _ in range(2))
    mean, gamma, beta = (device.to(rng.standard_normal(shape[3], dtype=np.float32)) for _ in range(3))
    var = device.to(rng.uniform(0.5, 2, shape[3]).astype(np.float32))
    pool = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": False}
    yield "relu", partial(backends.call, "relu", x)
    yield "relu_grad", partial(backends.call, "relu_grad", dy, x)
    yield "sigmoid", partial(backends.call, "sigmoid", x)
    yield "dropout", partial(backends.call, "dropout", x, rate=0.5, seed=1)
    yield "add", partial(backends.call, "add", x, dy, alpha=1.0, beta=1.0)
    yield "max_pool2d", partial(backends.call, "max_pool2d", x, **pool)
    yield "crop_concat", partial(backends.call, "crop_concat", x, dy)
    yield "channel_sum", partial(backends.call, "channel_sum", dy)
    yield "channel_moments", partial(backends.call, "channel_moments", x)
    yield "batch_norm", partial(backends.call, "batch_norm", x, mean, var, gamma, beta, eps=1e-5, activation="relu")
    yield (
        "batch_norm_grad",
        partial(backends.call, "batch_norm_grad", dy, x, mean, var, gamma, eps=1e-5, training=True),
    )
