"""compute-sanitizer over every row, every step of the ladder and a training step, where the tool exists."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any

from bench import gpu_checks
from bench.gpu_device import Clock, Device

TOOLS = ("memcheck", "racecheck")
PLACES = ("/usr/local/cuda/bin/compute-sanitizer", "/usr/local/cuda/compute-sanitizer/compute-sanitizer")
SECONDS = "MINUNET_BENCH_SECONDS"  # tells the watched program its time
FOUND = 9  # exit code of the tool where it found an error
LEAST = 30.0  # seconds without which the second tool is not begun


def measure(device: Device, clock: Clock) -> dict[str, Any]:
    """{"memcheck": "no error" or what it said, "racecheck": ...}"""
    tool = shutil.which("compute-sanitizer") or next(filter(os.path.isfile, PLACES), None)
    if device.dry or tool is None:
        return {"skipped": "a dry run" if device.dry else "compute-sanitizer was not found"}
    found = device.keep({})
    for number, kind in enumerate(TOOLS, start=1):
        device.at = kind
        left = clock.seconds - clock.spent()
        if number > 1 and left < LEAST:
            found[kind] = "left out: out of time"
            continue
        found[kind] = once(tool, kind, max(LEAST, left / (len(TOOLS) + 1 - number)))
    return found


def once(tool: str, kind: str, seconds: float) -> str:
    """One tool of the sanitizer over `python -m bench.gpu_sanitizer`."""
    command = [tool, "--tool", kind, "--error-exitcode", str(FOUND), sys.executable, "-m", "bench.gpu_sanitizer"]
    root = str(gpu_checks.ROOT)
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, SECONDS: str(0.7 * seconds)}
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"did not end within {seconds:.0f} s"
    except OSError as error:
        return f"could not be started ({error})"
    said = " ".join((done.stdout + done.stderr).split())
    if done.returncode == 0:
        return f"no error; {said[-120:]}"
    return f"failed: exit code {done.returncode}: {said[-600:]}"


def exercise(device: Device, clock: Clock) -> str:
    """A training step, then rows and steps in turn, as many of their cases as time allows, and how many those were."""
    gpu_checks.curve(device, 1)
    rows = gpu_checks.conformance(device, Clock(0.5 * (clock.seconds - clock.spent())))
    steps = gpu_checks.ladder(device, Clock(clock.seconds - clock.spent()))
    ran = rows["passed"] + steps["passed"]
    left = rows["left_out_for_time"] + steps["left_out_for_time"]
    wrong = len(rows["failed"]) + len(steps["failed"])
    return f"{ran} checks passed, {wrong} gave another result, {left} were left out for time"


def main() -> int:
    """What the sanitizer watches. Without CuPy's memory pool, in whose large blocks a wrong address would go unseen."""
    device = Device(dry=False)
    device.module.cupy()[0].cuda.set_allocator(None)
    print(exercise(device, Clock(float(os.environ.get(SECONDS, "20")))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
