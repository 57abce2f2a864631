"""Per operation: the Numba kernel, the CUDA C++ kernel and PyTorch (cuDNN), launching apart from the kernel's own time.

Launching is what the host spends on a call: checks, allocation and the launch itself, while the device may still be at
work. What Numba's kernels compute is checked before they are timed, by the conformance suite on the device and against
the CUDA C++ kernels on the arrays of the bench.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench.gpu_checks import F32, _suite, tally
from bench.gpu_device import Clock, Device
from bench.gpu_layers import short, torch_gpu
from minunet import backends
from minunet.contract import ROWS

NUMBA = "numba_cuda"
WORST = 2e-5  # of norm(Numba - CUDA C++) / norm(CUDA C++)
CHECKS = 0.6  # share of the time for the conformance suite: every kernel is compiled there
CASES = 3  # of each row


class Operation(NamedTuple):
    """A row with its arrays and options, and the call of PyTorch that does the same, if it has one."""

    row: str
    arrays: tuple[Any, ...]
    options: dict[str, Any]
    peer: Callable[[], Any] | None = None


def measure(device: Device, clock: Clock) -> dict[str, Any]:
    """{"conformance": tally, row: {"error", "times": {"cuda", "numba", "PyTorch": {"launch_us", "kernel_ms"}}}, ...}"""
    module = backends.get(NUMBA)
    why = getattr(module, "reason", str)()
    if not why and module.Array is not device.module.Array:
        why = "it works on other arrays than this device"
    torch, missing = torch_gpu(device)
    shape = (1, 6, 6, 4) if device.dry else (8, 140, 140, 64)
    found: dict[str, Any] = {"shape": list(shape), "numba": f"not measured: {why}" if why else NUMBA}
    found["peer"] = "PyTorch, whose convolutions, batch-norm and softmax are cuDNN's" if torch else f"none: {missing}"
    if not why:
        found["conformance"] = tally(_conformance(device), Clock(CHECKS * clock.seconds))
    for operation in operations(device, torch, shape):
        if clock.over():
            found[operation.row] = "not measured: out of time"
            continue
        try:
            found[operation.row] = one(device, operation, with_numba=not why)
        except Exception as error:
            found[operation.row] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return found


def _conformance(device: Device) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Some cases of all rows, the first of each row first: should time be short, each kernel has then run once."""
    cases, checks, _ = _suite()
    listed = {row: cases.cases(row)[: 1 if device.dry else CASES] for row in ROWS}
    for k in range(CASES):
        for row, of_row in listed.items():
            for case in of_row[k : k + 1]:
                yield f"{row}, {case.label}", partial(checks.check_case, NUMBA, ROWS[row], case, F32)


def one(device: Device, operation: Operation, with_numba: bool) -> dict[str, Any]:
    """One operation, on the same arrays by both kinds of kernels."""
    call = partial(backends.call, operation.row, *operation.arrays, **operation.options)
    kinds = {"cuda": device.backend, **({"numba": NUMBA} if with_numba else {})}
    entry: dict[str, Any] = {}
    results, times = {}, {}
    for kind, backend in kinds.items():
        with backends.use_backend(backend):
            y = call()
            y = y[0] if isinstance(y, tuple) else y
            results[kind] = device.numpy(y if y.ndim <= 1 else y[-1:])  # one image is enough
    if with_numba:
        truth = results["cuda"].astype(np.float64)
        entry["error"] = short(float(np.linalg.norm(results["numba"] - truth) / np.linalg.norm(truth)))
        if not entry["error"] <= WORST:
            return entry | {"wrong": f"Numba and CUDA C++ differ by {entry['error']:.1e}: not timed"}
    for kind, backend in kinds.items():
        with backends.use_backend(backend):
            times[kind] = device.apart(call)
    if operation.peer is not None:
        times["PyTorch"] = device.apart(operation.peer)
    if None in times.values():
        return entry | {"times": "not measured"}
    return entry | {"times": times}


def operations(device: Device, torch: Any, shape: tuple[int, ...]) -> Iterator[Operation]:
    """A convolution and its gradients, and what else a network's step is made of, on maps of this shape."""
    rng = np.random.default_rng(0)
    n, h, w, c = shape

    def normal(*size: int) -> Any:
        return device.to(rng.standard_normal(size, dtype=np.float32))

    x, dy = normal(*shape), normal(*shape)
    weights, bias = device.to(rng.normal(0, (2 / 9 / c) ** 0.5, (c, 3, 3, c)).astype(np.float32)), normal(c)
    same = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1)}
    peers = _peers(torch, shape) if torch else {}

    def made(row: str, *arrays: Any, **options: Any) -> Operation:
        return Operation(row, arrays, options, peers.get(row))

    yield made("conv2d", x, weights, bias, **same, activation=None)
    yield made("conv2d_grad_x", dy, weights, **same, size=(h, w), activation=None)
    yield made("conv2d_grad_w", x, dy, **same, size=(3, 3))
    yield made("channel_sum", dy)
    yield made("max_pool2d", x, kernel=(2, 2), stride=(2, 2), padding=(0, 0), ceil_mode=False)
    small = (n, h // 2, w // 2, c)
    i, j = np.meshgrid(np.arange(small[1]) * 2, np.arange(small[2]) * 2, indexing="ij")
    corners = device.to(np.broadcast_to((i * w + j)[None, :, :, None], small).astype(np.int32))
    yield made("scatter_by_index", normal(*small), corners, size=(h, w))
    yield made("crop_concat", x, dy)
    yield made("upsample_bilinear", normal(*small), size=(h, w), align_corners=False)
    mean, gamma, beta = normal(c), normal(c), normal(c)
    var = device.to(rng.uniform(0.5, 2, c).astype(np.float32))
    yield made("channel_moments", x)
    yield made("batch_norm", x, mean, var, gamma, beta, eps=1e-5, activation="relu")
    yield made("batch_norm_grad", dy, x, mean, var, gamma, eps=1e-5, training=True)
    yield made("relu", x)
    yield made("sigmoid", x)
    yield made("dropout", x, rate=0.5, seed=1)
    yield made("add", x, dy, alpha=1.0, beta=1.0)
    yield made("softmax", x)
    labels = device.to(rng.integers(0, c, (n, h, w)).astype(np.int32))
    yield made("softmax_cross_entropy", x, labels, ignore_index=255, reduction="mean")
    one, factor = (device.to(np.full(1, value, np.float32)) for value in (1, 1 / (n * h * w)))
    yield made("softmax_cross_entropy_grad", x, labels, one, factor, ignore_index=255)
    state = tuple(device.to(rng.uniform(0, 1e-3, shape).astype(np.float32)) for _ in range(2))
    rates = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "step": 3}
    yield made("adam", x, *state, dy, **rates)


def _peers(torch: Any, shape: tuple[int, ...], where: str = "cuda") -> dict[str, Callable[[], Any]]:
    """{row: the same by PyTorch}, on random arrays of its own, channels last, in float32 without tf32."""
    n, h, w, c = shape
    F = torch.nn.functional
    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 0  # all of cuDNN's algorithms

    def normal(*size: int) -> Any:
        return torch.randn(*size, device=where).contiguous(memory_format=torch.channels_last)

    x, dy, weights = normal(n, c, h, w), normal(n, c, h, w), normal(c, c, 3, 3)
    vectors = [torch.rand(c, device=where) + 0.5 for _ in range(4)]
    labels = torch.randint(0, c, (n, h, w), device=where)
    pooled = normal(n, c, h // 2, w // 2)
    corners = F.max_pool2d(x, 2, return_indices=True)[1]
    batch = (vectors[0], None, None, *vectors[1:3], True, 1e-5, [True, True, True])  # gamma, -, -, mean, 1 / deviation

    def plain(call: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[[], Any]:
        def run() -> Any:
            torch.backends.cudnn.allow_tf32 = False
            with torch.inference_mode():
                return call(*arguments, **options)

        return run

    def gradient(which: int) -> Any:
        mask = [k == which for k in range(3)]
        return torch.ops.aten.convolution_backward(
            dy, x, weights, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask
        )[which]

    return {
        "conv2d": plain(F.conv2d, x, weights, vectors[0], padding=1),
        "conv2d_grad_x": plain(gradient, 0),
        "conv2d_grad_w": plain(gradient, 1),
        "channel_sum": plain(torch.sum, dy, (0, 2, 3)),
        "max_pool2d": plain(F.max_pool2d, x, 2, return_indices=True),
        "scatter_by_index": plain(F.max_unpool2d, pooled, corners, 2, output_size=(h, w)),
        "crop_concat": plain(torch.cat, (x, dy), 1),
        "upsample_bilinear": plain(F.interpolate, pooled, size=(h, w), mode="bilinear"),
        "channel_moments": plain(torch.var_mean, x, (0, 2, 3), correction=0),
        "batch_norm": plain(F.batch_norm, x, *vectors),
        "batch_norm_grad": plain(torch.ops.aten.native_batch_norm_backward, dy, x, *batch),
        "relu": plain(torch.relu, x),
        "sigmoid": plain(torch.sigmoid, x),
        "dropout": plain(F.dropout, x, 0.5, True),
        "add": plain(torch.add, x, dy),
        "softmax": plain(F.softmax, x, 1),
        "softmax_cross_entropy": plain(F.cross_entropy, x, labels),
    }
