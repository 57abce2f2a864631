"""Rows that only move memory: GB/s, each array touched once, as a share of what a copy reaches, and PyTorch's time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from bench import gpu_limits, gpu_numba
from bench.gpu_device import Clock, Device
from bench.gpu_layers import copy_rate, rate, torch_gpu
from minunet import backends
from minunet.contract import ROWS

SHAPE = (8, 280, 280, 128)  # the second level of U-Net at batch 8: 321 MB in float32, several times any L2


def measure(device: Device, clock: Clock) -> dict[str, Any]:
    """{"shape", "copy_gbytes", row: {"times", "gbytes", "share_of_copy", "ratio"}}"""
    shape = (1, 6, 6, 4) if device.dry else SHAPE
    torch, why = torch_gpu(device)
    copy = copy_rate(device)
    found = device.keep({"shape": list(shape), "peer": "PyTorch" if torch else f"none: {why}"})
    found["copy_gbytes"] = copy if copy is not None else "not measured"
    limits = gpu_limits.Limits({}, copy, "a copy, measured")
    for row, call, peer in calls(device, torch, shape):
        if clock.over():
            found[row] = "not measured: out of time"
            continue
        entry, why = device.attempt(row, partial(one, device, call, peer, limits))
        found[row] = f"failed: {why}" if why else entry
    return found


def one(
    device: Device, call: Callable[[], Any], peer: Callable[[], Any] | None, limits: gpu_limits.Limits
) -> dict[str, Any]:
    """One row, against PyTorch where that has it."""
    with backends.use_backend(device.backend):
        with backends.count() as work:
            y = call()
        last = y[0] if isinstance(y, tuple) else y
        if last.dtype.kind == "f" and not np.isfinite(device.numpy(last[-1:] if last.ndim else last)).all():
            return {"wrong": "a value is not finite: not timed"}
        times = device.milliseconds({"minunet": call, **({"PyTorch": peer} if peer else {})})
    entry = rate(times, work.flops, work.bytes, limits, "fp32")
    if times is not None and limits.gbytes:
        entry["share_of_copy"] = round(entry["gbytes"] / limits.gbytes, 3)
    return entry


def calls(device: Device, torch: Any, shape: tuple[int, ...]) -> Iterator[tuple[str, Callable, Callable | None]]:
    """(row, our call, PyTorch's or None) of what a network's step is made of besides convolutions."""
    for operation in gpu_numba.operations(device, torch, shape):
        if ROWS[operation.row].stem != "conv":
            yield (
                operation.row,
                partial(backends.call, operation.row, *operation.arrays, **operation.options),
                operation.peer,
            )
    rng = np.random.default_rng(1)
    x, dy = (device.to(rng.standard_normal(shape, dtype=np.float32)) for _ in range(2))
    theirs = None
    if torch:
        tx, tdy = (torch.randn(shape, device="cuda") for _ in range(2))
        theirs = partial(torch.ops.aten.threshold_backward, tdy, tx, 0)
    yield "relu_grad", partial(backends.call, "relu_grad", dy, x), theirs
