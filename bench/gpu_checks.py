"""Correctness before speed: every row, step and precision on the device, gradients, a training run, the sanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import minunet as mu
from bench.gpu_device import Clock, Device
from minunet import backends, models
from minunet.backends.cuda.choose import LADDER, use_step
from minunet.contract import ROWS
from minunet.nn.optim import SGD

ROOT = Path(__file__).resolve().parents[1]
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
GRADIENT = {F32: 1e-4, F64: 1e-9}  # of norm(gradient), a small network's against the reference in float64
CURVE = 1e-2  # losses of a short run, relative to the CPU's: rounding grows from step to step


def _suite() -> tuple[Any, Any, Any]:
    """The conformance suite of tests/: a checkout has it beside bench/."""
    if str(ROOT / "tests") not in sys.path:
        sys.path.insert(0, str(ROOT / "tests"))
    import cases
    import checks
    import rounding

    return cases, checks, rounding


def attempt(check: Callable[[], Any]) -> str:
    """ "" where it passes, else what went wrong: one failure must not end the others."""
    try:
        check()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ""


def tally(jobs: Iterator[tuple[str, Callable[[], Any]]], clock: Clock) -> dict[str, Any]:
    """Run named checks until the clock is over: how many passed, which failed, how many were left out."""
    passed, failed, left = 0, {}, 0
    for name, check in jobs:
        if clock.over():
            left += 1
            continue
        said = attempt(check)
        passed += not said
        if said:
            failed[name] = said
    return {"passed": passed, "failed": failed, "left_out_for_time": left}


def conformance(device: Device, clock: Clock) -> dict[str, Any]:
    """All rows of the contract, float32 and float64."""
    cases, checks, _ = _suite()

    def jobs() -> Iterator[tuple[str, Callable[[], Any]]]:
        for dtype in (F32,) if device.dry else (F32, F64):
            for row in ROWS.values():
                listed = cases.cases(row.name)
                for case in listed[:1] if device.dry else listed:
                    name = f"{row.name}, {case.label}, {dtype}"
                    yield name, lambda r=row, c=case, d=dtype: checks.check_case(device.backend, r, c, d)

    return tally(jobs(), clock)


def ladder(device: Device, clock: Clock) -> dict[str, Any]:
    """Each step of the convolution ladder, in each precision that it has, on every size that it can do."""
    cases, checks, rounding = _suite()

    def check(step: str, precision: str, row: str, case: Any, dtype: np.dtype) -> None:
        inputs = checks.sample(case, dtype)
        if precision in rounding.ROUNDED:
            inputs = (*(rounding.round_to(precision, x) for x in inputs[:2]), *inputs[2:])
        with use_step(step), backends.precision(precision):
            result = checks.run(device.backend, ROWS[row], inputs, case.options)
        checks.compare(ROWS[row], result, checks.exact(ROWS[row], inputs, case.options), dtype)

    def jobs() -> Iterator[tuple[str, Callable[[], Any]]]:
        for step in LADDER.values():
            for row in step.passes():
                listed = cases.cases(row)
                for case in listed[:1] if device.dry else listed:
                    for precision in [p for p in step.precisions if p != "strict"]:
                        for dtype in (F32, F64) if step.double and not device.dry else (F32,):
                            name = f"{step.name}, {precision}, {row}, {case.label}, {dtype}"
                            arguments = (step.name, precision, row, case, dtype)
                            yield name, lambda a=arguments: _unless_impossible(check, a)

    return tally(jobs(), clock)


def _unless_impossible(check: Callable[..., None], arguments: tuple) -> None:
    """A step refuses sizes that it cannot do; that is no failure."""
    try:
        check(*arguments)
    except ValueError as error:
        if " cannot do " not in str(error):
            raise


def small_unet(seed: int = 0) -> Any:
    return models.build("unet", in_channels=1, n_classes=2, width=4, depth=1, seed=seed)


def gradients(device: Device, dtype: np.dtype) -> float:
    """Largest relative error of a small U-Net's gradients against the reference in float64."""
    rng = np.random.default_rng(1)
    model = small_unet()
    x = rng.standard_normal((2, 20, 20, 1)).astype(np.float32)
    labels = rng.integers(0, 2, (2, *model.output_size(20, 20))).astype(np.int32)

    def run(target: Any, to: Callable[[np.ndarray], Any]) -> list[Any]:
        logits = target(mu.Tensor(to(x.astype(target.parameters()[0].dtype))))
        mu.ops.softmax_cross_entropy(logits, to(labels)).backward()
        return [p.grad for p in target.parameters()]

    with mu.use_backend("reference"):
        truth = run(small_unet().astype(F64), np.asarray)
    with mu.use_backend(device.backend):
        found = [device.numpy(g) for g in run(model.astype(dtype).to(device.backend), device.to)]
    worst = float(np.max([np.linalg.norm(g - t) / np.linalg.norm(t) for g, t in zip(found, truth, strict=True)]))
    if not worst <= GRADIENT[dtype]:
        raise ValueError(f"a gradient in {dtype} is off by {worst:.1e}, and {GRADIENT[dtype]:.0e} is allowed")
    return worst


def network_gradients(device: Device, clock: Clock) -> dict[str, Any]:
    del clock
    return {str(dtype): float(f"{gradients(device, dtype):.2g}") for dtype in (F64, F32)}


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


def sanitizer(device: Device, clock: Clock) -> dict[str, Any]:
    """compute-sanitizer's memcheck and racecheck over a training step, where the tool exists."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if device.dry or not Path(tool).is_file():
        return {"skipped": "a dry run" if device.dry else "compute-sanitizer was not found"}
    code = "from bench.gpu_device import Device; from bench.gpu_checks import curve; curve(Device(False), 1)"
    found = {}
    for kind in ("memcheck", "racecheck"):
        if clock.over():
            found[kind] = "left out for time"
            continue
        command = [tool, "--tool", kind, "--error-exitcode", "9", sys.executable, "-c", code]
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        try:
            done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True,
                                  text=True, timeout=max(5.0, clock.seconds - clock.spent()))  # fmt: skip
        except subprocess.TimeoutExpired:
            found[kind] = "did not end in time"
            continue
        found[kind] = "no error" if done.returncode == 0 else " ".join((done.stdout + done.stderr).split())[-300:]
    return found
