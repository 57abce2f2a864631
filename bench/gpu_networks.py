"""Whole U-Net: inference and a training step, against PyTorch eager, channels_last and compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import minunet as mu
from bench.gpu_device import Clock, Device
from bench.gpu_layers import PRECISIONS, short, torch_gpu
from minunet import backends, models
from minunet.nn.optim import Adam

LOGITS = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 1e-1}  # largest difference from PyTorch's fp32, of the largest logit


def measure(device: Device, clock: Clock) -> dict[str, Any]:
    """{"inference, batch n, precision": entry, "training step, ...": entry}."""
    found = device.keep({})
    for batch in (1,) if device.dry else (8, 1):
        for precision in PRECISIONS:
            for what in ("inference", "training step"):
                name = f"{what}, batch {batch}, {precision}"
                if clock.over():
                    found[name] = "not measured: out of time"
                    continue
                entry, why = device.attempt(name, partial(one, device, what, batch, precision, clock))
                found[name] = f"failed: {why}" if why else entry
                device.free()
    return found


def one(device: Device, what: str, batch: int, precision: str, clock: Clock) -> dict[str, Any]:
    width, depth, size = (2, 1, 20) if device.dry else (64, 4, 572)
    model = models.build("unet", in_channels=1, n_classes=2, width=width, depth=depth, seed=0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, size, size, 1), dtype=np.float32)
    labels = rng.integers(0, 2, (batch, *model.output_size(size, size))).astype(np.int32)
    torch, why = torch_gpu(device)
    peers = _peers(torch, model, x, labels, precision, what, clock) if torch else {}
    model.to(device.backend)
    run = _infer if what == "inference" else _step
    with backends.use_backend(device.backend), backends.precision(PRECISIONS[precision]):
        ours = run(model, device.to(x), device.to(labels))
        entry: dict[str, Any] = {"peer": "PyTorch" if torch else f"none: {why}"}
        if what == "inference":
            logits = device.numpy(ours())
            entry["finite"] = bool(np.isfinite(logits).all())
            if "fp32" in peers:
                truth = peers.pop("fp32")().float().permute(0, 2, 3, 1).cpu().numpy()
                entry["error"] = short(float(abs(logits - truth).max() / abs(truth).max()))
                if not entry["error"] <= LOGITS[precision]:
                    return entry | {"wrong": "off by more than allowed: not timed"}
            if not entry["finite"]:
                return entry | {"wrong": "a logit is not finite: not timed"}
        usable = {}
        if what == "inference" and not device.dry:
            graph, why = device.attempt(f"{what}, batch {batch}, {precision}, graph", partial(as_graph, device, ours))
            entry |= {"graph": f"not measured: {why}"} if why else {}
            usable = {} if why else {"minunet, graph": graph}
        for name, call in peers.items():
            _, why = device.attempt(f"{what}, batch {batch}, {precision}, {name}", call)  # a first call compiles
            entry |= {name: f"not measured: {why}"} if why else {}
            usable |= {} if why else {name: call}
        times = device.milliseconds({"minunet": ours, **usable}, whole=True)
    if times is None:
        return entry | {"times": "not measured"}
    ms = times["minunet"]["median_ms"]
    entry |= {"times": times, "images_per_second": round(1e3 * batch / ms, 1)}
    best = [t["median_ms"] for name, t in times.items() if not name.startswith("minunet")]
    return entry | ({"ratio": round(min(best) / ms, 3)} if best else {})


def as_graph(device: Device, run: Callable[[], Any]) -> Callable[[], Any]:
    """Inference as a CUDA graph, which gives what `run` gives."""
    truth = device.numpy(run())
    replay, result = device.captured(run)
    result.fill(np.nan)
    replay()
    if not np.array_equal(device.numpy(result), truth):
        raise ValueError("replayed, it gives another result")
    return replay


def _infer(model: Any, x: Any, labels: Any) -> Callable[[], Any]:
    del labels
    model.eval()

    def run() -> Any:
        with mu.no_grad():
            return model(mu.Tensor(x)).data

    return run


def _step(model: Any, x: Any, labels: Any) -> Callable[[], Any]:
    model.train()
    optimizer, data = Adam(model.parameters(), lr=1e-4), mu.Tensor(x)

    def step() -> None:
        optimizer.zero_grad()
        mu.ops.softmax_cross_entropy(model(data), labels).backward()
        optimizer.step()

    return step


def _peers(torch: Any, model: Any, x, labels, precision: str, what: str, clock: Clock) -> dict:
    """{name: call}: eager, channels_last and compiled, in the precision; for inference also "fp32", to compare with."""
    from bench import peer_torch

    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 0
    y = torch.from_numpy(labels.astype(np.int64)).cuda()
    found: dict[str, Callable] = {}

    def prepared(layout: Any) -> tuple[Any, Any]:
        net = peer_torch.twin(model).train(what != "inference").cuda().to(memory_format=layout)
        return net, torch.from_numpy(x).cuda().permute(0, 3, 1, 2).contiguous(memory_format=layout)

    def call(net: Any, image: Any, optimizer: Any, exact: bool) -> Any:
        allowed = precision == "tf32" and not exact
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
        half = precision == "bf16" and not exact
        if optimizer is None:
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=half):
                return net(image)
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            loss = torch.nn.functional.cross_entropy(net(image), y)
        loss.backward()
        optimizer.step()
        return None

    layouts = {"eager": torch.contiguous_format, "channels_last": torch.channels_last}
    for name, layout in layouts.items():
        net, image = prepared(layout)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, fused=True) if what != "inference" else None
        found[name] = partial(call, net, image, optimizer, False)
    if clock.spent() < clock.seconds / 2:  # compiling takes up to a minute
        net, image = prepared(torch.channels_last)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, fused=True) if what != "inference" else None
        found["compiled"] = partial(call, torch.compile(net), image, optimizer, False)
    if what == "inference":
        found["fp32"] = partial(call, *prepared(torch.contiguous_format), None, True)
    return found
