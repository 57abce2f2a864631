"""Correctness before speed: every row, step and precision on the device, gradients, a training run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

import minunet as mu
from bench.gpu_device import Clock, Device
from minunet import backends, models
from minunet.backends.cuda.choose import LADDER, use_step
from minunet.contract import ROWS
from minunet.differences import gradcheck
from minunet.nn.optim import SGD

ROOT = Path(__file__).resolve().parents[1]
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
GRADIENT = {  # of the norm of each gradient in a small network, against the reference in float64
    "float64": 1e-9,
    "float32": 1e-4,
}
ROUNDED = {  # of the norm of all of them together: rounded factors turn a maximum or a ReLU here and there, which is
    "tf32": 5e-2,  # 5e-2 of a single gradient and 1e-2 of all, emulated
    "fp16": 5e-2,
    "bf16": 5e-2,
}
WIDTH = 16  # of that network: with fewer channels no step would use tensor cores
CURVE = 1e-2  # losses of a short run, relative to the CPU's: rounding grows from step to step
DRY_EVERY = 25  # of the gradient checks a dry run makes one in so many
CONVOLUTIONS = ("conv2d", "conv2d_grad_x", "conv2d_grad_w")
Job = tuple[str, Callable[[], Any]]


def _suite() -> tuple[Any, Any, Any]:
    """The conformance suite of tests/: a checkout has it beside bench/."""
    _tests()
    import cases
    import checks
    import rounding

    return cases, checks, rounding


def _tests() -> None:
    if str(ROOT / "tests") not in sys.path:
        sys.path.insert(0, str(ROOT / "tests"))


def tally(jobs: Iterator[Job], clock: Clock, device: Device | None = None) -> dict[str, Any]:
    """Run named checks until the clock is over: how many passed, which failed, how many were left out.

    device : told of each, so that one which breaks it is known by name
    """
    device = device or Device(dry=True)
    found = device.keep({"passed": 0, "failed": {}, "left_out_for_time": 0})
    for name, check in jobs:
        if clock.over():
            found["left_out_for_time"] += 1
            continue
        _, why = device.attempt(name, check)
        found["passed"] += not why
        if why:
            found["failed"][name] = why
    return found


def in_turn(several: list[list[Job]]) -> Iterator[Job]:
    """The first of each list, then the second of each: should time be short, each has then run once."""
    for jobs in zip_longest(*several):
        yield from (job for job in jobs if job is not None)


def conformance(device: Device, clock: Clock) -> dict[str, Any]:
    """All rows of the contract, float32 and float64."""
    cases, checks, _ = _suite()

    def of_row(row: Any, dtype: np.dtype) -> list[Job]:
        listed = cases.cases(row.name)
        return [
            (f"{row.name}, {case.label}, {dtype}", partial(checks.check_case, device.backend, row, case, dtype))
            for case in (listed[:1] if device.dry else listed)
        ]

    dtypes = (F32,) if device.dry else (F32, F64)
    return tally(in_turn([of_row(row, dtype) for dtype in dtypes for row in ROWS.values()]), clock, device)


def ladder(device: Device, clock: Clock) -> dict[str, Any]:
    """Each step of the convolution ladder, and what the rule chooses, in each precision, on every size they can do."""
    cases, checks, rounding = _suite()

    def check(step: str | None, precision: str, row: str, case: Any, dtype: np.dtype) -> None:
        inputs = checks.sample(case, dtype)
        if precision in rounding.ROUNDED:
            inputs = (*(rounding.round_to(precision, x) for x in inputs[:2]), *inputs[2:])
        with backends.precision(precision):
            if step is None:
                result = checks.run(device.backend, ROWS[row], inputs, case.options)
            else:
                with use_step(step):
                    result = checks.run(device.backend, ROWS[row], inputs, case.options)
        checks.compare(ROWS[row], result, checks.exact(ROWS[row], inputs, case.options), dtype)

    def of(step: str | None, precision: str, row: str, dtype: np.dtype) -> list[Job]:
        listed = cases.cases(row)
        return [
            (
                f"{step or 'chosen'}, {precision}, {row}, {case.label}, {dtype}",
                partial(_unless_impossible, check, (step, precision, row, case, dtype)),
            )
            for case in (listed[:1] if device.dry else listed)
        ]

    several = [
        of(step.name, precision, row, dtype)
        for step in LADDER.values()
        for row in step.passes()
        for precision in step.precisions
        if precision != "strict"  # the same kernels as by default
        for dtype in ((F32, F64) if step.double and not device.dry else (F32,))
    ]
    several += [of(None, precision, row, F32) for precision in backends.PRECISIONS for row in CONVOLUTIONS]
    return tally(in_turn(several), clock, device)


def gradients(device: Device, clock: Clock) -> dict[str, Any]:
    """Every operation's derivative against finite differences in float64, as tests/test_gradients.py has them."""
    _tests()
    try:
        from test_gradients import CASES
    except ImportError as error:  # it is written for pytest
        return {"skipped": f"the cases cannot be imported ({error})"}

    def jobs() -> Iterator[Job]:
        rng = np.random.default_rng(0)
        for number, (label, case) in enumerate(CASES.items()):
            if not device.dry or number % DRY_EVERY == 0:
                inputs = [make(rng) for make in case.inputs]
                yield label, partial(_gradcheck, device.backend, case.f, inputs)

    return tally(jobs(), clock, device)


def _gradcheck(backend: str, f: Callable, inputs: list[np.ndarray]) -> None:
    with backends.use_backend(backend):
        gradcheck(f, inputs, directions=1)


def _unless_impossible(check: Callable[..., None], arguments: tuple) -> None:
    """A step refuses sizes that it cannot do; that is no failure."""
    try:
        check(*arguments)
    except ValueError as error:
        if " cannot do " not in str(error):
            raise


def small_unet(width: int = 4, seed: int = 0) -> Any:
    return models.build("unet", in_channels=1, n_classes=2, width=width, depth=1, seed=seed)


def network_error(device: Device, kind: str) -> float:
    """Largest relative error of a small U-Net's gradients against the reference in float64, for GRADIENT's kinds; for
    those of ROUNDED that of all gradients together. Raises ValueError where it is larger than allowed."""
    rng = np.random.default_rng(1)
    model = small_unet(WIDTH)
    dtype = F64 if kind == "float64" else F32
    x = rng.standard_normal((2, 20, 20, 1)).astype(np.float32)
    labels = rng.integers(0, 2, (2, *model.output_size(20, 20))).astype(np.int32)

    def run(target: Any, to: Callable[[np.ndarray], Any]) -> list[Any]:
        logits = target(mu.Tensor(to(x.astype(target.parameters()[0].dtype))))
        mu.ops.softmax_cross_entropy(logits, to(labels)).backward()
        return [p.grad for p in target.parameters()]

    with mu.use_backend("reference"):
        truth = run(small_unet(WIDTH).astype(F64), np.asarray)
    precision = kind if kind in backends.PRECISIONS else "default"
    with mu.use_backend(device.backend), backends.precision(precision):
        found = [device.numpy(g) for g in run(model.astype(dtype).to(device.backend), device.to)]
    if kind in ROUNDED:
        found, truth = ([np.concatenate([g.ravel() for g in gradients])] for gradients in (found, truth))
    error = float(np.max([np.linalg.norm(g - t) / np.linalg.norm(t) for g, t in zip(found, truth, strict=True)]))
    allowed = (GRADIENT | ROUNDED)[kind]
    if not error <= allowed:
        raise ValueError(f"a gradient in {kind} is off by {error:.1e}, and {allowed:.0e} is allowed")
    return error


def network_gradients(device: Device, clock: Clock) -> dict[str, Any]:
    """A small U-Net's gradients in each precision."""
    found = device.keep({})
    for kind in (*GRADIENT, *ROUNDED):
        if clock.over():
            found[kind] = "left out: out of time"
            continue
        error, why = device.attempt(kind, partial(network_error, device, kind))
        found[kind] = f"failed: {why}" if why else float(f"{error:.2g}")
    return found


def curve(device: Device | None, steps: int) -> list[float]:
    """Losses of a short training run on fixed random data: on the device, or with None on the CPU, by the reference,
    which has nothing to compile.
    """
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 20, 20, 1)).astype(np.float32)
    model = small_unet(seed=3)
    labels = (rng.random((1, *model.output_size(20, 20))) < 0.5).astype(np.int32)
    to = device.to if device else np.asarray
    losses = []
    with mu.use_backend(device.backend if device else "reference"):
        if device:
            model.to(device.backend)
        optimizer, data, target = SGD(model.parameters(), lr=0.05, momentum=0.9), mu.Tensor(to(x)), to(labels)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = mu.ops.softmax_cross_entropy(model(data), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def training_run(device: Device, clock: Clock) -> dict[str, Any]:
    """A short run whose losses are those of the CPU."""
    del clock
    steps = 3 if device.dry else 60
    ours, cpu = curve(device, steps), curve(None, steps)
    off = float(np.max([abs(a - b) / abs(b) for a, b in zip(ours, cpu, strict=True)]))  # a NaN stays one
    if not off <= CURVE:
        raise ValueError(f"losses differ from the CPU's by {off:.1e}, and {CURVE:.0e} is allowed")
    return {
        "steps": steps,
        "first": round(ours[0], 6),
        "last": round(ours[-1], 6),
        "largest_difference": float(f"{off:.2g}"),
    }
