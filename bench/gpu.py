"""`python -m bench gpu --out DIR`: on a machine with a GPU, check every kernel, then time it; in at most 8 minutes.

Sections run one after the other, the most important first, each with a share of the time, in a process that a broken
kernel may take with it; what fails or does not fit is written down and the next one starts. DIR/results.json and
DIR/results.txt are written after each section. Needs no network; PyTorch and cuDNN's frontend, where they are, are
the peers.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import (
    gpu_checks,
    gpu_cudnn,
    gpu_layers,
    gpu_memory,
    gpu_networks,
    gpu_numba,
    gpu_resources,
    gpu_sanitizer,
    gpu_table,
    report,
)
from bench.gpu_device import Clock, Device, clocks
from bench.gpu_worker import Section, Worker
from minunet import backends, cli
from minunet.errors import UsageError, UserError
from minunet.files import atomic_write

SECONDS = 440.0  # in all: 8 minutes, less what starting and one slow call may take
SECTIONS: tuple[tuple[str, Section, float], ...] = (  # name, what runs, its share; what one leaves, the next may use
    ("conformance", gpu_checks.conformance, 0.13),
    ("ladder", gpu_checks.ladder, 0.10),
    ("gradients", gpu_checks.gradients, 0.05),
    ("network gradients", gpu_checks.network_gradients, 0.03),
    ("training run", gpu_checks.training_run, 0.04),
    ("layers", gpu_layers.measure, 0.23),
    ("networks", gpu_networks.measure, 0.13),
    ("memory-bound", gpu_memory.measure, 0.04),
    ("numba", gpu_numba.measure, 0.09),
    ("cuDNN plans", gpu_cudnn.measure, 0.08),
    ("sanitizer", gpu_sanitizer.measure, 0.06),
    ("resources", gpu_resources.measure, 0.02),
)


def describe(device: Device, clock: Clock) -> dict[str, Any]:
    """What the device says of itself."""
    del clock
    return device.describe()


def run(dry: bool, seconds: float, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """All sections: {"device", "machine", "sections": {name: {"result", "failed", "seconds"}}}.

    keep : is given the results after each section, so that they outlast whatever comes next
    """
    whole, promised = Clock(seconds), 0.0
    results: dict[str, Any] = {"machine": report.machine(), "commit": commit(), "clocks before": clocks()}
    with Worker(dry) as worker:
        entry = worker.run(describe, 60.0)
        results["device"] = entry.get("result") or {"device": f"not known: {entry['failed']}", "measured": False}
        results["sections"] = {}
        for name, section, share in SECTIONS:
            promised += share * seconds
            print(f"{whole.spent():6.0f} s  {name}", file=sys.stderr, flush=True)
            start = time.monotonic()
            if whole.over():
                entry = {"result": {"left out": "out of time"}}
            else:
                entry = worker.run(section, max(1.0, promised - whole.spent()))
            results["sections"][name] = {**entry, "seconds": round(time.monotonic() - start, 1)}
            keep(results)
    results["clocks after"] = clocks()
    keep(results)
    return results


def commit() -> str:
    """The commit of this checkout, "+" where files differ from it."""
    command = ["git", "-C", str(report.ROOT), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "not known"
    return done.stdout.strip() if done.returncode == 0 else "not known"


def failures(results: dict[str, Any]) -> list[str]:
    """One line for each check that failed, wherever it stands in the results."""
    found = []

    def search(where: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key == "failed" and inner:
                    said = inner.items() if isinstance(inner, dict) else [("", inner)]
                    found.extend(f"{where}: {name} {text}".replace("  ", " ") for name, text in said)
                elif key == "wrong":
                    found.append(f"{where}: {inner}")
                else:
                    search(f"{where}, {key}" if where else str(key), inner)
        elif isinstance(value, str) and value.startswith("failed: "):
            found.append(f"{where}: {value}")

    search("", results["sections"])
    return found


def write(results: dict[str, Any], folder: Path) -> None:
    contents = {"results.json": json.dumps(results, indent=1) + "\n", "results.txt": gpu_table.text(results)}
    for name, content in contents.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")


def slug(name: str) -> str:
    """A file's name from a device's: "NVIDIA H200" -> "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main(argv: list[str] | None = None) -> int:
    """The command. Returns 0, or 1 where a check failed; raises UserError where there is no GPU."""
    p = argparse.ArgumentParser(
        prog="python -m bench gpu", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument("--out", metavar="DIR", default="gpu-results", help="where results.json and results.txt are written")
    p.add_argument("--dry", action="store_true", help="run it all without a GPU, on tiny sizes; nothing is timed")
    p.add_argument("--seconds", type=float, default=SECONDS, help="time for all sections together")
    p.add_argument("--keep", action="store_true", help="also as bench/results/DEVICE.json, which README's tables show")
    p.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = p.parse_args(argv)
    if args.dry and args.keep:
        raise UsageError("--keep: a dry run measures nothing that README could show; leave out --dry or --keep")
    if not args.seconds > 0:
        raise UsageError(f"--seconds {args.seconds}: must be positive; the default is {SECONDS:.0f}")
    backend = "cuda_host" if args.dry else "cuda"
    if backend not in backends.available():
        remedy = "" if args.dry else "; --dry runs the command without one"
        raise UserError(f"bench gpu: {backends.get(backend).reason()}{remedy}")
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    results = run(args.dry, args.seconds, lambda so_far: write(so_far, folder))
    print(gpu_table.text(results))
    print(f"written: {folder / 'results.json'}, {folder / 'results.txt'}")
    failed = failures(results)
    if args.keep and not results["device"]["measured"]:
        failed.append("nothing is kept: it is not known which device this is")
    elif args.keep:
        file = report.RESULTS / f"{slug(results['device']['device'])}.json"
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        report.rewrite_readme()
        print(f"kept: {file}; README's tables are up to date")
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
